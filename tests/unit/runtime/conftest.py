"""A state directory of the test's own, with a fake server where one is wanted."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("fake_server", Path(__file__).with_name("fake_server.py"))
assert _spec is not None and _spec.loader is not None
fake_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_server)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ATOLL_DIR for this test."""
    monkeypatch.setenv("ATOLL_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def fake(home: Path) -> Iterator[Any]:
    """A fake server at the test's ATOLL_DIR."""
    with fake_server.serving(home) as server:
        yield server
