from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.config import values


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "On"])
def test_true(text: str) -> None:
    assert values.BOOL.read(text) is True


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "oFF"])
def test_false(text: str) -> None:
    assert values.BOOL.read(text) is False


@pytest.mark.parametrize("text", ["2", "enabled", " true", "y", "tru\u0435"])
def test_not_a_boolean(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid value for a boolean"):
        values.BOOL.read(text)


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_64_bit_integer_is_read(number: int) -> None:
    assert values.INTEGER.read(str(number)) == number


@pytest.mark.parametrize("text", ["1_0", " 1", "1 ", "٣", "1.0", "0x1", "1e3", "--1", str(2**63), str(-(2**63) - 1)])
def test_not_an_integer(text: str) -> None:
    with pytest.raises(ValueError):
        values.INTEGER.read(text)


def test_integer_bounds_are_inclusive() -> None:
    assert [values.PRIORITY.read(text) for text in ("0", "10")] == [0, 10]
    for text in ("-1", "11"):
        with pytest.raises(ValueError, match="must be at"):
            values.PRIORITY.read(text)


@pytest.mark.parametrize("bad", ["\n", "\r", "\0", "\x0b", "\x0c", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"])
def test_a_line_refuses_whatever_may_end_it(bad: str) -> None:
    with pytest.raises(ValueError, match="line breaks or control"):
        values.TEXT.read(f"a{bad}b")


def test_a_blob_keeps_lines_and_refuses_nul() -> None:
    assert values.BLOB.read("a\r\n\tb\n") == "a\r\n\tb\n"
    with pytest.raises(ValueError, match="NUL"):
        values.BLOB.read("a\0b")


def test_values_have_a_longest_size() -> None:
    with pytest.raises(ValueError, match="longer than"):
        values.TEXT.read("x" * (values.LONGEST_LINE + 1))
    with pytest.raises(ValueError, match="longer than"):
        values.BLOB.read("x" * (values.LONGEST_BLOB + 1))


def test_lists_trim_their_items_and_refuse_empty_ones() -> None:
    assert values.list_of(values.INTEGER).read("1, 2,3") == (1, 2, 3)
    for text in ("1,,2", "1,", ","):
        with pytest.raises(ValueError, match="empty item"):
            values.list_of(values.INTEGER).read(text)


def test_words_go_before_the_inner_type() -> None:
    kind = values.or_word(values.INTEGER, "none")
    assert (kind.read("none"), kind.read("3")) == ("none", 3)
    with pytest.raises(ValueError):
        kind.read("None")
    assert "none" in kind.choices


def test_messages_escape_and_cut_what_they_quote() -> None:
    assert values.quoted("a\nb\ud800") == '"a\\nb\\ud800"'
    assert len(values.quoted("x" * 1000)) < 100


@given(st.text())
def test_quoting_is_always_printable(text: str) -> None:
    assert values.quoted(text).isprintable()
