"""The import arrow: import-linter's contracts hold, they cover every package, and they find a planted violation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import rules

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def test_the_contracts_hold() -> None:
    result = lint(rules.ROOT)
    assert result.returncode == 0, result.stdout


def test_a_planted_import_is_found(tmp_path: Path) -> None:
    shutil.copytree(rules.ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(rules.ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "src/atoll/domain/errors.py").open("a") as file:
        file.write("\nfrom atoll.host import process\n")
    result = lint(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "atoll.domain.errors -> atoll.host.process" in result.stdout


def test_the_contracts_cover_every_package() -> None:
    contracts = tomllib.loads((rules.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")}
    covered = layers | set(contracts[1]["source_modules"])
    packages = {f"atoll.{path.parent.name}" for path in (rules.ROOT / "src/atoll").glob("*/__init__.py")}
    assert packages - covered == set()
