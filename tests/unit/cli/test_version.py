"""The client tells its own version, and the server's: Atoll's where it is one, else the interface's."""

from __future__ import annotations

import pytest

from atoll.cli import main
from atoll.version import ATOLL_VERSION


def test_the_clients_own_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"{ATOLL_VERSION}\n"
