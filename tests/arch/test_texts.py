"""Texts: what the project says in code, tests, scripts and documents is about the project, and links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import rules

TEXTS = ("*.md", "*.py", "*.sh", "*.toml", "*.service", "*.lock")
PLACES = ("src", "tests", "docs", "bench", "packaging", "scripts", ".ci")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def texts() -> list[Path]:
    """All text files of the project; scripts have no suffix."""
    found = [path for place in PLACES for path in (rules.ROOT / place).rglob("*") if path.is_file()]
    found += [path for path in rules.ROOT.iterdir() if path.is_file() and path.suffix in (".md", ".toml", ".lock")]
    wanted = [path for path in found if path.suffix == "" or any(path.match(pattern) for pattern in TEXTS)]
    return [path for path in wanted if "__pycache__" not in path.parts and not _is_binary(path)]


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" in file.read(4096)


def test_no_forbidden_words() -> None:
    found = [
        f"{path.relative_to(rules.ROOT)}:{word}"
        for path in texts()
        for word in rules.forbidden_words(path.read_text(errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize("text", ["see /w" + "ork/x", "# TO" + "DO: later", "in the net" + "box"])
def test_a_planted_word_is_found(text: str) -> None:
    assert list(rules.forbidden_words(f"fine\n{text}\n")) != []


def broken_links(document: Path) -> list[str]:
    """Links to files that are not there."""
    targets = [target for target in LINK.findall(document.read_text()) if "://" not in target]
    return [target for target in targets if not (document.parent / target).exists()]


def documents() -> list[Path]:
    """Everything written for readers."""
    return [*rules.ROOT.glob("*.md"), *(rules.ROOT / "docs").rglob("*.md")]


def test_links_lead_somewhere() -> None:
    assert {str(path): broken for path in documents() if (broken := broken_links(path))} == {}


def test_a_planted_broken_link_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("[here](a.md) [gone](b.md#part) [web](https://example.org/x)")
    assert broken_links(document) == ["b.md"]


def test_every_locked_version_has_a_hash() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (rules.ROOT / name).read_text()
        entries = re.split(r"\n(?=[a-zA-Z])", text[text.index("scripts/lock") :])[1:]
        assert entries
        assert [entry.split()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []
        assert "://" not in text


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((rules.ROOT / "pyproject.toml").read_text())["project"]
    for name, wanted in (
        ("requirements.lock", project["dependencies"]),
        ("requirements-dev.lock", project["dependencies"] + project["optional-dependencies"]["dev"]),
    ):
        locked = set(re.findall(r"^([\w.-]+)==", (rules.ROOT / name).read_text(), re.MULTILINE))
        names = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in wanted}
        assert names - {entry.lower() for entry in locked} == set()
