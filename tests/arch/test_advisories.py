"""The list of advisories names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from rules import ROOT

LIST = ROOT / "docs/security/advisories.md"
NAMED = sorted(set(re.findall(r"`((?:tests|src)/[\w/]+\.py)::(\w+)`", LIST.read_text())))


def functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_is_there(file: str, name: str) -> None:
    assert name in functions(ROOT / file)


def test_every_row_names_one() -> None:
    rows = [line for line in LIST.read_text().splitlines() if line.startswith("| CVE-")]
    assert len(rows) > 20
    assert [row for row in rows if ".py::test_" not in row] == []
