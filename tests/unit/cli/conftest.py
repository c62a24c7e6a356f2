"""Commands without a server: what they ask is answered from a table and kept."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.cli import arguments, config, table
from atoll.cli.session import Call
from atoll.cli.spec import GLOBAL_FLAGS

sys.path.insert(0, str(Path(__file__).parent))

REMOTES = {"remotes": {**config.BUILT_IN, "other": {"addr": "unix:///other"}}}


@pytest.fixture
def command(tmp_path, monkeypatch) -> Callable[..., Any]:
    """Run a command line against a table of answers, in an empty folder; returns the Recorder that was asked."""
    from recorder import Recorder  # found through the path above

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("atoll.cli.terminal.read_input", lambda: None)

    def run(line: str, answers: dict[str, Any], **options: Any) -> Recorder:
        path, row, words = table.find(line.split())
        flags = arguments.Flags((*row.flags, *GLOBAL_FLAGS))
        given = arguments.parse(words, flags)
        arguments.check_count(row.usage, given)
        call = Call(path, given, flags, config.Config(REMOTES, ""))
        call._servers["local"] = call._servers["other"] = server = Recorder(answers, **options)
        module, _, function = row.run.partition(":")
        getattr(importlib.import_module(f"atoll.cli.commands.{module}"), function)(call)
        return server

    return run
