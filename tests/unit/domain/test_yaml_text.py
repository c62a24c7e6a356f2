"""Text made of plain data is read back as the same data, whatever is in it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.domain import yaml_text

SCALARS = st.one_of(st.text(max_size=20), st.integers(-(2**40), 2**40), st.booleans(), st.none())
TREES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=10), below, max_size=4), max_leaves=20
)


@given(TREES)
@settings(max_examples=150, deadline=None)
def test_any_tree(tree: Any) -> None:
    assert yaml.safe_load(yaml_text.dump(tree)) == tree


@pytest.mark.parametrize(
    "text", ["2026-01-01T00:00:00Z", "0755", "1e3", "0x1f", "1_0", "~", "NO", "=", "<<", "a: b", "a #b", "- a"]
)
def test_text_that_looks_like_something_else(text: str) -> None:
    assert yaml.safe_load(yaml_text.dump({text: [text]})) == {text: [text]}


def test_how_it_looks() -> None:
    tree = {"name": "c1", "config": {"a.b": "true", "c": "x y"}, "list": [{"a": 1, "b": []}, "x"], "empty": {}}
    assert yaml_text.dump(tree).decode() == (
        'name: c1\nconfig:\n  a.b: "true"\n  c: x y\nlist:\n- a: 1\n  b: []\n- x\nempty: {}\n'
    )
