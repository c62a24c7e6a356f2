"""The command tables: data only, one module a family."""
