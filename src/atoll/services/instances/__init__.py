"""Instances: one module per use case over what `core` knows and holds."""
