"""Use cases: one module each, with its lock, transaction, undo and event. Services know contracts, never a driver."""
