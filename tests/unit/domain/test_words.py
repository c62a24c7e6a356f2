"""Texts of strangers."""

from __future__ import annotations

import pytest

from atoll.domain import words


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no room", "no room"),
        ("größer als 1 GiB", "größer als 1 GiB"),
        ("a\nERROR b", "a ERROR b"),
        ("\x1b]0;title\x07", " ]0;title "),
        ("\x9b2J\u202eabc\u2028\x7f\0", " 2J abc   "),
        ("", ""),
        ("x" * 1000, "x" * words.LONGEST),
    ],
)
def test_nothing_moves_a_cursor(said: str, shown: str) -> None:
    assert words.of_stranger(said) == shown
