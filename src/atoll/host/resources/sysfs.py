"""Reading small files of /proc and /sys below a root folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_NUMBERS = re.compile(r"(\d+)")
_LARGEST = 1 << 20
"""Bytes; /proc/cpuinfo of a large host stays below it."""


class Tree:
    """Files below `root`, named from there: `text("sys/class/net/eth0/mtu")`. What is missing reads as empty."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def text(self, path: str) -> str:
        """A file's content without white space around it; empty if it cannot be read."""
        try:
            with open(self.root / path, "rb") as file:
                return file.read(_LARGEST).decode(errors="replace").strip("\0 \t\n")
        except OSError:
            return ""

    def number(self, path: str, default: int = 0, *, base: int = 0) -> int:
        """A file's number, decimal or 0x…; a negative one, which the kernel writes for "unknown", is the default."""
        try:
            found = int(self.text(path), base)
        except ValueError:
            return default
        return found if found >= 0 else default

    def names(self, folder: str) -> list[str]:
        """Names in a folder, with numbers in them in numeric order; empty if there is no such folder."""
        try:
            return sorted(os.listdir(self.root / folder), key=_natural)
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """Whether there is something of that name."""
        return (self.root / path).exists()

    def link(self, path: str) -> str:
        """The last part of where a link leads; empty if it is none."""
        try:
            return os.path.basename(os.readlink(self.root / path))
        except OSError:
            return ""

    def real(self, path: str) -> str:
        """The path with all links followed, from the root."""
        real = os.path.realpath(self.root / path)
        return os.path.relpath(real, os.path.realpath(self.root))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = _NUMBERS.split(name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def id_set(text: str) -> set[int]:
    """The kernel's lists: `0-3,8` is {0, 1, 2, 3, 8}."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return found


def without_empty(fields: Mapping[str, Any], optional: Iterable[str]) -> dict[str, Any]:
    """The fields, without those of `optional` that have nothing in them."""
    skipped = {name for name in optional if not fields[name]}
    return {name: value for name, value in fields.items() if name not in skipped}
