"""Scripts and service files: shellcheck finds nothing, help works without root, and units keep what instances rely on."""

from __future__ import annotations

import os
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
import rules

UNITS = rules.ROOT / "packaging/systemd"


def scripts() -> list[Path]:
    """Everything that a shell runs."""
    found = [path for place in ("scripts", ".ci", "bench") for path in sorted((rules.ROOT / place).iterdir())]
    return [path for path in found if path.is_file() and path.read_text().startswith(("#!/bin/bash", "# shellcheck shell"))]


def shellcheck(*paths: Path) -> str:
    """What it complains about."""
    argv = ["shellcheck", "--external-sources", "--severity=warning", *map(str, paths)]
    return subprocess.run(argv, cwd=rules.ROOT, capture_output=True, text=True, check=False).stdout


def test_shellcheck_is_silent() -> None:
    names = {path.name for path in scripts()}
    assert {"launch", "lib.sh", "lock", "run", "test"} <= names
    assert shellcheck(*scripts()) == ""


def test_a_planted_mistake_is_found(tmp_path: Path) -> None:
    script = tmp_path / "bad"
    script.write_text('#!/bin/bash\ncd "$1"\nunused=$(ls)\n')
    assert "SC2164" in shellcheck(script)


def test_scripts_are_strict_and_executable() -> None:
    for path in scripts():
        if path.name != "lib.sh":
            assert os.access(path, os.X_OK), path
            assert "\nset -e" in path.read_text(), path


@pytest.mark.parametrize("words", [["--help"], ["--state", "/x", "--name", "m1", "--help"]])
def test_launch_helps(words: list[str]) -> None:
    shown = subprocess.run([rules.ROOT / "scripts/launch", *words], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("Usage: scripts/launch [--state DIR] [--name NAME] [--image FILE] [--no-image | --install]\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bogus"], "unknown option: --bogus"),
        (["--name"], "--name needs a value"),
        (["--name", "a/b"], "not a machine's name: a/b"),
    ],
)
def test_launch_refuses(words: list[str], message: str) -> None:
    result = subprocess.run([rules.ROOT / "scripts/launch", *words], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"launch: {message}" in result.stderr


def unit(name: str) -> ConfigParser:
    """A unit file; where a key is given twice the last one counts."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / name)
    return parser


def test_the_service_leaves_instances_alone() -> None:
    service = unit("atoll.service")["Service"]
    assert service["KillMode"] == "process"
    assert service["Delegate"] == "yes"
    assert service["LimitCORE"] == "0"
    assert service["TasksMax"] == "infinity"


def test_stopping_the_daemon_does_not_stop_instances() -> None:
    companion = unit("atoll-instances.service")["Unit"]
    assert companion["After"] == companion["Wants"] == "atoll.service"
    assert not {"Requires", "BindsTo", "PartOf"} & set(companion)
