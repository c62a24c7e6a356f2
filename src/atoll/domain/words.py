"""Texts of strangers, shown in messages of ours."""

from __future__ import annotations

LONGEST = 500


def of_stranger(text: str) -> str:
    """What another server says, of a bounded length and without what could move a terminal's cursor or begin a line of a log."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:LONGEST])
