"""The guest API on the wire."""
