"""Frozen types, closed sets, state tables and error kinds. No input or output happens here."""
