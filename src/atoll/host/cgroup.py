"""Control groups, v1, v2 and the two at once: where they are, figures with few reads, freezing, limits.

A group is named by its path below the base that liblxc uses, which is the group of process 1. All functions block for
microseconds per file; for many groups call them in one `in_thread` pass.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.errors import NotFound
from atoll.host import pidfd

FREEZE_SECONDS = 10.0
_UNIFIED = ""
_NO_LIMIT = 1 << 62
_DISK = re.compile(r"[0-9]+:[0-9]+")


@dataclass(frozen=True, slots=True)
class Setting:
    """One file of a controller and the text to write; the name is without `.v1` or `.v2` differences: it is the file's."""

    controller: str
    file: str
    value: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What a group uses. Bytes, nanoseconds; zero where the host does not count it."""

    processes: int = 0
    cpu_ns: int = 0
    memory: int = 0
    memory_peak: int = 0
    swap: int = 0
    swap_peak: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each controller's hierarchy is: the folder that group paths are relative to."""

    v1: Mapping[str, str]
    v2: Mapping[str, str]
    roots: Sequence[str]  # every hierarchy once, also those without a controller

    @property
    def is_unified(self) -> bool:
        """Whether there is only v2."""
        return not self.v1

    def version(self, controller: str) -> int:
        """1 or 2: which version governs a controller; 0 when this host has it not."""
        return 1 if controller in self.v1 else 2 if controller in self.v2 else 0

    def folders(self, group: str) -> tuple[str, list[str]]:
        """A group's folder in the hierarchy of v2, empty if the host has none, and those in the ones of v1."""
        old = set(self.v1.values())
        unified = next((f"{root}/{group}" for root in self.roots if root not in old), "")
        return unified, [f"{root}/{group}" for root in self.roots if root in old]

    def path(self, controller: str, group: str) -> str:
        """The folder of a group in the controller's hierarchy. KeyError if the host has it not."""
        return f"{self.v1.get(controller) or self.v2[controller]}/{group}"


def detect(*, proc: Path = Path("/proc")) -> Layout:
    """Read this host's layout from mountinfo and from the groups of process 1."""
    bases = _bases((proc / "1/cgroup").read_text())
    v1: dict[str, str] = {}
    v2: dict[str, str] = {}
    roots: dict[str, None] = {}
    for mount, kind, options in _mounts((proc / "self/mountinfo").read_text()):
        if kind == "cgroup2":
            root = mount + bases.get(_UNIFIED, "")
            roots[root] = None
            with contextlib.suppress(OSError):
                v2.update(dict.fromkeys(Path(mount, "cgroup.controllers").read_text().split(), root))
            v2.setdefault("freezer", root)
        else:
            known = [name for name in options.split(",") if name in bases]
            for name in known:
                v1[name] = mount + bases[name]
                roots[v1[name]] = None
    return Layout(v1, v2, tuple(roots))


def _bases(text: str) -> dict[str, str]:
    """Controller → group of process 1, "" for the root; the unified hierarchy is controller ""."""
    bases: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        base = group.removesuffix("/init.scope").rstrip("/")
        bases.update(dict.fromkeys(controllers.split(","), base))
    return bases


def _mounts(mountinfo: str) -> list[tuple[str, str, str]]:
    """(mount point, type, super options) of each cgroup mount."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            found.append((left.split(" ")[4], kind, options))
    return found


def read_text(path: str) -> str:
    """A small file's text; empty when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode()
    except OSError:
        return ""
    finally:
        os.close(fd)


def read_number(path: str) -> int:
    """A file that holds one number; 0 when there is none, or it says `max`."""
    text = read_text(path).strip()
    value = int(text) if text.isdecimal() else 0
    return value if value < _NO_LIMIT else 0


def figures(layout: Layout, group: str) -> Figures:
    """What a group uses now."""
    memory, peak, swap, swap_peak = _memory(layout, group)
    return Figures(
        processes=processes(layout, group),
        cpu_ns=_cpu(layout, group),
        memory=memory,
        memory_peak=peak,
        swap=swap,
        swap_peak=swap_peak,
    )


def processes(layout: Layout, group: str) -> int:
    """How many processes and threads are in a group."""
    return read_number(f"{layout.path('pids', group)}/pids.current") if layout.version("pids") else 0


def has_room(layout: Layout, group: str, count: int) -> bool:
    """Whether so many more processes may be in a group, by its own limit."""
    limit = read_text(f"{layout.path('pids', group)}/pids.max").strip() if layout.version("pids") else ""
    return not limit.isdecimal() or processes(layout, group) + count <= int(limit)


def _cpu(layout: Layout, group: str) -> int:
    if "cpuacct" in layout.v1:
        return read_number(f"{layout.v1['cpuacct']}/{group}/cpuacct.usage")
    if "cpu" not in layout.v2:
        return 0
    return parse_flat(read_text(f"{layout.v2['cpu']}/{group}/cpu.stat")).get("usage_usec", 0) * 1000


def _memory(layout: Layout, group: str) -> tuple[int, int, int, int]:
    """(used, most used, swap used, most swap used)"""
    if "memory" in layout.v1:
        folder = f"{layout.v1['memory']}/{group}"
        used = read_number(f"{folder}/memory.usage_in_bytes")
        peak = read_number(f"{folder}/memory.max_usage_in_bytes")
        both = read_number(f"{folder}/memory.memsw.usage_in_bytes")
        both_peak = read_number(f"{folder}/memory.memsw.max_usage_in_bytes") if both else 0
        return used, peak, max(0, both - used), max(0, both_peak - peak)
    if "memory" not in layout.v2:
        return 0, 0, 0, 0
    folder = f"{layout.v2['memory']}/{group}"
    return (
        read_number(f"{folder}/memory.current"),
        read_number(f"{folder}/memory.peak"),
        read_number(f"{folder}/memory.swap.current"),
        read_number(f"{folder}/memory.swap.peak"),
    )


def parse_flat(text: str) -> dict[str, int]:
    """A file of `key number` lines, such as cpu.stat."""
    pairs = (line.split(" ", 1) for line in text.splitlines() if " " in line)
    return {key: int(value) for key, value in pairs if value.strip().isdecimal()}


def is_frozen(layout: Layout, group: str) -> bool:
    """Whether the group is frozen, or about to be."""
    if "freezer" in layout.v1:
        return read_text(f"{layout.v1['freezer']}/{group}/freezer.self_freezing").strip() == "1"
    if "freezer" in layout.v2:
        return read_text(f"{layout.v2['freezer']}/{group}/cgroup.freeze").strip() == "1"
    return False


def freeze(layout: Layout, group: str, *, frozen: bool) -> None:
    """Freeze or thaw, and wait until the kernel says it is done. TimeoutError after FREEZE_SECONDS; then it is thawed again."""
    old = "freezer" in layout.v1
    folder = layout.path("freezer", group)
    file, words = ("freezer.state", ("THAWED", "FROZEN")) if old else ("cgroup.freeze", ("0", "1"))
    write(f"{folder}/{file}", words[frozen])
    deadline = time.monotonic() + FREEZE_SECONDS
    while time.monotonic() < deadline:
        if old:
            state = read_text(f"{folder}/freezer.state").strip() == words[frozen]
        else:
            state = parse_flat(read_text(f"{folder}/cgroup.events")).get("frozen", 0) == int(frozen)
        if state:
            return
        time.sleep(0.001)  # blocks: callers come in a thread
    write(f"{folder}/{file}", words[False])
    raise TimeoutError(f"{group} did not become {'frozen' if frozen else 'thawed'}")


def apply(layout: Layout, group: str, settings: Sequence[Setting]) -> None:
    """Write settings of controllers that this host has; all, or none. What holds already is not written.

    The kernel takes some pairs (a memory limit and the one of memory and swap together) in one order only, so what is refused at
    first is tried once more after the others. OSError names the file; what was written before it is back then.
    """
    done: list[tuple[str, str]] = []
    waiting = [
        (f"{layout.path(setting.controller, group)}/{setting.file}", setting.value)
        for setting in settings
        if layout.version(setting.controller)
    ]
    try:
        for last in (False, True):
            waiting = [pair for pair in waiting if not _write_over(*pair, done, must=last)]
    except OSError:
        for path, before in reversed(done):
            with contextlib.suppress(OSError):  # the file that stands in the way was never written
                write(path, before)
        raise


def _write_over(path: str, value: str, done: list[tuple[str, str]], *, must: bool) -> bool:
    """Write, and note in `done` what stood there. False when it is refused; where it `must` be written that is an OSError."""
    before = _standing(path, value)
    if before == value:
        return True
    try:
        write(path, value)
    except OSError:
        if must:
            raise
        return False
    done.append((path, before))
    return True


def _standing(path: str, value: str) -> str:
    """What a write of `value` puts aside: the file's text, or of a file with a line for each disk that disk's."""
    text = read_text(path).strip()
    disk, _, rest = value.partition(" ")
    if not _DISK.fullmatch(disk):
        return text
    free = "rbps=max wbps=max riops=max wiops=max" if "=" in rest else "0"
    return next((line for line in text.splitlines() if line.startswith(f"{disk} ")), f"{disk} {free}")


def write(path: str, text: str) -> None:
    """Write a control file in one system call."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror} (value {text!r})") from error
    finally:
        os.close(fd)


def usable_cpus(layout: Layout) -> tuple[int, ...]:
    """The CPUs that are online and that groups may be given, ascending."""
    online = parse_cpus(read_text("/sys/devices/system/cpu/online"))
    version = layout.version("cpuset")
    file = "cpuset.cpus.effective" if version == 2 else "cpuset.effective_cpus"
    lent = parse_cpus(read_text(layout.path("cpuset", file))) if version else ()
    return tuple(cpu for cpu in online if not lent or cpu in lent) or (0,)


def parse_cpus(text: str) -> tuple[int, ...]:
    """The numbers of a list as the kernel writes it: `0-2,5`."""
    found: list[int] = []
    for item in filter(None, text.strip().split(",")):
        first, _, last = item.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)


def remove(layout: Layout, group: str) -> bool:
    """Remove an empty group and all groups below it, in every hierarchy; what still has processes stays. Whether nothing did."""
    gone = True
    for root in layout.roots:
        for folder, _, _ in os.walk(f"{root}/{group}", topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass  # liblxc removes them, too
            except OSError:
                gone = False
    return gone


def clear(layout: Layout, group: str, *, seconds: float) -> int:
    """Remove a group that nothing should be in any more. What is just leaving it has so long; what stays is killed. How many
    processes that were."""
    if _vanishes(layout, group, seconds):
        return 0
    killed = _kill(layout, group)
    _vanishes(layout, group, seconds)
    return killed


def _vanishes(layout: Layout, group: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not remove(layout, group):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)  # blocks: callers come in a thread
    return True


def _kill(layout: Layout, group: str) -> int:
    """Kill what is in a group and below it, in any hierarchy; also what is frozen there. How many processes that were."""
    killed = set[int]()
    for root in layout.roots:
        for folder, _, files in os.walk(f"{root}/{group}"):
            members = Path(folder, "cgroup.procs")
            killed.update(pid for pid in _pids(members) if _kill_member(pid, members))
            if "freezer.state" in files:  # frozen by v1, it does not even die
                with contextlib.suppress(OSError):
                    write(f"{folder}/freezer.state", "THAWED")
    return len(killed)


def _pids(members: Path) -> list[int]:
    """The processes of a group; not those that this process has no number for."""
    try:
        return [pid for line in members.read_text().split() if (pid := int(line))]
    except OSError:
        return []  # it is gone, or of threads


def _kill_member(pid: int, members: Path) -> bool:
    try:
        handle = pidfd.open(pid)
    except NotFound:
        return False
    try:
        return pid in _pids(members) and pidfd.send(handle, signal.SIGKILL)  # so the number was its own when it was opened
    finally:
        os.close(handle)


def exists(layout: Layout, group: str) -> bool:
    """Whether a group exists in any hierarchy."""
    return any(Path(root, group).is_dir() for root in layout.roots)
