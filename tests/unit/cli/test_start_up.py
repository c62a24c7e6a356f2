"""What may not be imported on the way to a first request: see docs/decisions/0003-client-start-up.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"
SLOW = {"argparse", "enum", "re", "os", "typing", "json", "socket", "ssl", "asyncio", "http", "dataclasses", "pathlib", "yaml"}


@pytest.mark.parametrize("words", [["--help"], ["list", "--help"], ["list"], ["exec", "c1", "true"], ["launch", "x", "c1"]])
def test_slow_modules_stay_out(words: list[str], tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        f"from atoll.cli.main import run\nrun({words!r})\nprint(*sys.modules, file=sys.stderr)"
    )
    environment = {"ATOLL_DIR": str(tmp_path), "ATOLL_CONF": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-ISc", code], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True
    )
    assert SLOW.isdisjoint(done.stderr.splitlines()[-1].split())
