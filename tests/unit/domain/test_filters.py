"""The filter language, and that nobody can keep the daemon busy with it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atoll.domain import filters
from atoll.domain.errors import BadRequest

SUBJECT: dict[str, Any] = {
    "name": "c1",
    "status": "Running",
    "ephemeral": False,
    "config": {"limits.cpu": "2", "user.x": "a b"},
    "expanded_config": {"user": {"x": "deep"}},
    "count": 3,
    "nothing": None,
}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ("name eq c1", True),
        ("name EQ C1", True),
        ("name ne c1", False),
        ("not name eq c1", False),
        ("not name ne c1", True),
        ("name eq c", False),
        ("name eq c.*", True),
        ("name eq ^c1$", True),
        ("name eq 'c[12]'", True),
        ("name eq 'c2|c1'", True),
        ("status eq run.*ing", True),
        ("count eq 3", True),
        ("ephemeral eq false", True),
        ("ephemeral eq no", True),
        ("ephemeral eq true", False),
        ("config.limits.cpu eq 2", True),
        ("config.user.x eq 'a b'", True),
        ("expanded_config.user.x eq deep", True),
        ("absent eq x", False),
        ("absent ne x", True),
        ("nothing eq None", False),
        ("name.x eq 1", False),
        ("name eq c2 or status eq running", True),
        ("name eq c1 and status eq stopped", False),
        ("name eq c1 or name eq c2 and status eq stopped", False),  # from left to right
        ("name eq c2 and status eq stopped or count eq 3", True),
    ],
)
def test_what_passes(text: str, passes: bool) -> None:
    assert filters.parse(text)(SUBJECT) is passes


@pytest.mark.parametrize(
    "text", ["name", "name eq", "name is c1", "name eq c1 c2", "name eq c1 or", "name eq 'c1", "not", "eq eq"]
)
def test_malformed(text: str) -> None:
    with pytest.raises(BadRequest, match="Invalid filter"):
        filters.parse(text)


def test_too_long() -> None:
    with pytest.raises(BadRequest):
        filters.parse("name eq " + "x" * 5000)


WORDS = st.sampled_from(
    ["name", "eq", "ne", "not", "and", "or", "config.limits.cpu", "'", '"', "\\", "(", "[", "{", "a{9999999999}"]
)


@pytest.mark.filterwarnings("ignore:Possible nested set")
@given(st.text() | st.lists(WORDS | st.text(max_size=5)).map(" ".join), st.dictionaries(st.text(), st.text() | st.booleans()))
@example("name eq a{99999999999999999999}", {"name": "a"})
@example("name eq [[a]", {"name": "a"})
def test_any_text_is_a_filter_or_a_bad_request(text: str, subject: dict[str, Any]) -> None:
    try:
        passes = filters.parse(text)
    except BadRequest:
        return
    assert passes(SUBJECT) in (True, False)
    assert passes(subject) in (True, False)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", "(a|a)*b", "(a|aa)(a|aa)" * 20, "a?" * 40 + "a" * 40, ".*.*.*.*b", "(.*)(.*)(.*)b", "a{0,900}a{0,900}a{0,900}b",
     "((a*)*)*b", "a*a*b", ".*x.*b", "(a|aa|aaa)b.*"],
)  # fmt: skip
def test_patterns_of_every_kind_end_soon(pattern: str) -> None:
    passes = filters.parse(f"name eq '{pattern}'")
    began = time.thread_time()
    passes({"name": "a" * 5000})
    assert time.thread_time() - began < 0.5
