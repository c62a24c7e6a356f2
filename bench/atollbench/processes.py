"""Processes of a box, seen from the machine: which belong to the daemon, which watch an instance, and their memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_MONITOR_TITLE = "[lxc monitor]"
_SUPPORT = frozenset({"dnsmasq", "lxcfs"})


@dataclass(frozen=True)
class Process:
    """One process. `rss` and `pss` (its proportional share) in bytes."""

    pid: int
    parent: int
    name: str
    title: str
    rss: int
    pss: int


@dataclass(frozen=True)
class Memory:
    """What a group of processes takes, in MB (10^6 bytes)."""

    rss: float
    pss: float


def parent_of(pid: int) -> int:
    # the name stands in parentheses and may hold any character: count from its end
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    return [candidate for candidate in _pids() if _if_readable(parent_of, candidate) == pid]


def in_namespace_of(init: int) -> list[Process]:
    """All processes in the pid namespace of `init`; instances have namespaces of their own, so they are not here."""
    namespace = os.readlink(f"/proc/{init}/ns/pid")
    found = [_if_readable(_read, pid) for pid in _pids() if _if_readable(_namespace, pid) == namespace]
    return [process for process in found if process is not None]


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")


def _read(pid: int) -> Process:
    proc = Path(f"/proc/{pid}")
    title = proc.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    rollup = dict(line.split(":", 1) for line in proc.joinpath("smaps_rollup").read_text().splitlines()[1:] if ":" in line)
    return Process(
        pid=pid,
        parent=parent_of(pid),
        name=proc.joinpath("comm").read_text().strip(),
        title=title,
        rss=_kilobytes(rollup["Rss"]),
        pss=_kilobytes(rollup["Pss"]),
    )


def _kilobytes(field: str) -> int:
    return int(field.split()[0]) * 1024


def _if_readable(read: Callable[[int], T], pid: int) -> T | None:
    """`read(pid)`; None for a process that ended meanwhile, has no memory (a zombie), or is not ours to look at."""
    try:
        return read(pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError, KeyError):
        return None


def daemon_of(processes: Iterable[Process], daemon: int) -> list[Process]:
    """The daemon and the helpers below it, without monitors and without programs that others ship (dnsmasq, lxcfs)."""
    family = {daemon}
    # parents come before children in order of pid but for wrapped pids: go over it until nothing is added
    ordered = sorted((process for process in processes if not _is_apart(process)), key=lambda process: process.pid)
    grown = True
    while grown:
        more = {process.pid for process in ordered if process.parent in family} - family
        family |= more
        grown = bool(more)
    return [process for process in ordered if process.pid in family]


def monitors_of(processes: Iterable[Process], daemon: int, init: int) -> list[Process]:
    """What runs in the box for the sake of its instances: all but the box's `init`, the daemon's family and support."""
    known = list(processes)
    family = {process.pid for process in daemon_of(known, daemon)}
    return [process for process in known if process.pid not in family | {init} and process.name not in _SUPPORT]


def _is_apart(process: Process) -> bool:
    return process.title.startswith(_MONITOR_TITLE) or process.name in _SUPPORT


def memory(processes: Iterable[Process]) -> Memory:
    known = list(processes)
    return Memory(rss=sum(process.rss for process in known) / 1e6, pss=sum(process.pss for process in known) / 1e6)
