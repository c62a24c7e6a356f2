"""Rows to domain objects and back. One SQL text that runs on SQLite and dqlite alike; see docs/architecture.md for its rules."""
