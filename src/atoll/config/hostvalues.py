"""Values about the host and its kernel: CPUs, id maps, process limits, device numbers, paths, compression."""

from __future__ import annotations

import re
from typing import NamedTuple

from atoll.config.values import ValueType, list_of, matching, quoted
from atoll.domain import compression
from atoll.domain.compression import Algorithm, Compression
from atoll.domain.errors import BadRequest

_CPU_RANGE = r"([0-9]{1,5})(?:-([0-9]{1,5}))?"
_CPU_TIME = r"([0-9]{1,9})ms/([0-9]{1,9})ms"
_CPU_SHARE = r"([0-9]{1,3})%"
_ID_RANGE = r"([0-9]{1,10})(?:-([0-9]{1,10}))?"
_RLIMIT = r"([0-9]{1,20}|unlimited)(?::([0-9]{1,20}|unlimited))?"
_RSYNC_RATE = r"([0-9]{1,12}(?:\.[0-9]{1,3})?)(?:([KMGkmg])(i?[Bb])?)?"
_SYSCALL_LINE = r"[a-z][a-z0-9_]{0,63}( [A-Za-z0-9_\[\],|&<>=!:.-]+)*"
_RLIM_INFINITY = 2**64 - 1
_HIGHEST_CPU = 8191


class CpuLimit(NamedTuple):
    """Either so many CPUs, balanced by the daemon (`number`), or these very ones (`pinned`, ascending)."""

    number: int = 0
    pinned: tuple[int, ...] = ()


class CpuAllowance(NamedTuple):
    """A soft share of the CPUs in percent, or a hard quota: `quota_ms` of CPU time in every `period_ms`."""

    percent: int = 0
    quota_ms: int = 0
    period_ms: int = 0


class IdRange(NamedTuple):
    """Ids from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many ids."""
        return self.last - self.first + 1


class IdmapEntry(NamedTuple):
    """One line of raw.idmap: the host's ids appear as the guest's; both ranges have one size."""

    is_uid: bool
    is_gid: bool
    host: IdRange
    guest: IdRange


class ResourceLimit(NamedTuple):
    """A soft and a hard rlimit; None is unlimited."""

    soft: int | None
    hard: int | None


def parse_cpu_set(text: str) -> tuple[int, ...]:
    """CPU numbers of `0-3,5`, ascending and distinct."""
    cpus: set[int] = set()
    for item in text.split(","):
        match = re.fullmatch(_CPU_RANGE, item.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"Invalid CPU limit syntax {quoted(text)}")
        low = int(match[1])
        high = int(match[2]) if match[2] else low
        if high < low or high > _HIGHEST_CPU:
            raise ValueError(f"Invalid CPU limit syntax {quoted(text)}: bad range {quoted(item.strip())}")
        cpus.update(range(low, high + 1))
    return tuple(sorted(cpus))


def parse_cpu_limit(text: str) -> CpuLimit:
    """`4` is a number of CPUs; `1-1`, `0-3,5` name them."""
    if text.isascii() and text.isdigit():
        if not 1 <= int(text[:6]) <= _HIGHEST_CPU + 1:
            raise ValueError(f"Invalid CPU limit {quoted(text)}: at least one CPU is needed")
        return CpuLimit(number=int(text))
    return CpuLimit(pinned=parse_cpu_set(text))


def parse_cpu_allowance(text: str) -> CpuAllowance:
    """`50%` or `25ms/100ms`."""
    if (match := re.fullmatch(_CPU_SHARE, text, re.ASCII)) and 1 <= int(match[1]) <= 100:
        return CpuAllowance(percent=int(match[1]))
    if (match := re.fullmatch(_CPU_TIME, text, re.ASCII)) and int(match[1]) and int(match[2]):
        return CpuAllowance(quota_ms=int(match[1]), period_ms=int(match[2]))
    raise ValueError(f"Invalid CPU allowance {quoted(text)}: expected one like 50% or 25ms/100ms")


def parse_rsync_rate(text: str) -> int:
    """Bytes a second, from what rsync reads: `100` and `100K` are KiB, `1.5m` and `1.5MiB` MiB, `1MB` a million bytes."""
    match = re.fullmatch(_RSYNC_RATE, text, re.ASCII)
    if match is None:
        raise ValueError(f"Invalid rsync rate {quoted(text)}: expected one like 500K or 1.5MiB")
    decimal = (match[3] or "").lower() == "b"
    return int(float(match[1]) * (1000 if decimal else 1024) ** (1 + "kmg".index((match[2] or "k").lower())))


def parse_id_range(text: str) -> IdRange:
    """`1000` or `1000-1999`, below 2^32-1 (which the kernel keeps for "no id")."""
    match = re.fullmatch(_ID_RANGE, text, re.ASCII)
    if match is None:
        raise ValueError(f"Invalid id range {quoted(text)}")
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if not first <= last < 2**32 - 1:
        raise ValueError(f"Invalid id range {quoted(text)}")
    return IdRange(first, last)


def parse_idmap(text: str) -> tuple[IdmapEntry, ...]:
    """Lines of `both|uid|gid <host ids> <guest ids>`; empty lines are skipped."""
    entries = []
    for line in text.split("\n"):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or words[0] not in ("both", "uid", "gid"):
            raise ValueError(f"Invalid raw.idmap line {quoted(line)}: expected both|uid|gid <host ids> <guest ids>")
        host, guest = parse_id_range(words[1]), parse_id_range(words[2])
        if host.size != guest.size:
            raise ValueError(f"Invalid raw.idmap line {quoted(line)}: the two ranges differ in size")
        entries.append(IdmapEntry(words[0] != "gid", words[0] != "uid", host, guest))
    return tuple(entries)


def parse_rlimit(text: str) -> ResourceLimit:
    """`1000:2000`, `unlimited`, or `3000` for both."""
    match = re.fullmatch(_RLIMIT, text, re.ASCII)
    if match is None:
        raise ValueError(f"Invalid resource limit {quoted(text)}: expected <soft>[:<hard>], a number or 'unlimited'")
    soft, hard = (_rlimit_value(match[1]), _rlimit_value(match[2] or match[1]))
    if hard is not None and (soft is None or soft > hard):
        raise ValueError(f"Invalid resource limit {quoted(text)}: soft is above hard")
    return ResourceLimit(soft, hard)


def parse_syscalls(text: str) -> tuple[str, ...]:
    """Lines of a seccomp list: a system call (`mount`), maybe with an action and argument rules. Empty ones are skipped."""
    lines = tuple(line.strip() for line in text.split("\n") if line.strip())
    for line in lines:
        if not re.fullmatch(_SYSCALL_LINE, line, re.ASCII):
            raise ValueError(f"Invalid system call line {quoted(line)}")
    return lines


def _rlimit_value(text: str) -> int | None:
    if text == "unlimited":
        return None
    number = int(text)
    if number >= _RLIM_INFINITY:
        raise ValueError(f"Invalid resource limit {quoted(text)}: it does not fit 64 bits")
    return number


def parse_mode(text: str) -> int:
    """An octal file mode of permission bits: `0660`; set-id and sticky bits have no place on device nodes and sockets."""
    if not re.fullmatch(r"[0-7]{3,4}", text, re.ASCII) or int(text, 8) > 0o777:
        raise ValueError(f"Invalid file mode {quoted(text)}: expected octal permission bits like 0660")
    return int(text, 8)


def parse_path(text: str) -> str:
    """A path without `..` steps. Where it may lead is checked again when it is opened."""
    if ".." in text.split("/"):
        raise ValueError(f"Invalid path {quoted(text)}: it may not contain '..'")
    return text


def parse_absolute_path(text: str) -> str:
    """A path from the root, without `..` steps."""
    if not text.startswith("/"):
        raise ValueError(f"Invalid path {quoted(text)}: it must be absolute")
    return parse_path(text)


def parse_compression(text: str) -> Compression:
    """`zstd -9`: an algorithm, perhaps with a level; the very grammar that is applied where something is packed."""
    try:
        return compression.parse(text)
    except BadRequest as error:
        raise ValueError(str(error)) from error


CPU_LIMIT = ValueType("CPU set", parse_cpu_limit)
CPU_ALLOWANCE = ValueType("CPU allowance", parse_cpu_allowance)
ID_RANGES = list_of(ValueType("id range", parse_id_range))
IDMAP = ValueType("id map", parse_idmap, multiline=True)
RLIMIT = ValueType("resource limit", parse_rlimit)
SYSCALLS = ValueType("list of system calls", parse_syscalls, multiline=True)
MODE = ValueType("file mode", parse_mode)
PATH = ValueType("path", parse_path)
ABSOLUTE_PATH = ValueType("path", parse_absolute_path)
COMPRESSION = ValueType("compression", parse_compression, choices=tuple(Algorithm))
HEX4 = matching("4-digit hexadecimal id", r"[0-9a-fA-F]{4}")
PCI_ADDRESS = matching("PCI address", r"([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
MOUNT_OPTIONS = matching("mount options", r"[^\s,]+(,[^\s,]+)*")
KERNEL_MODULES = list_of(matching("kernel module", r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"))
FILESYSTEMS = list_of(matching("file system", r"[a-z0-9][a-z0-9_.-]{0,31}"))
FUSE_FILESYSTEMS = list_of(matching("FUSE redirection", r"[a-z0-9][a-z0-9_.-]{0,31}=[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}"))
VOLUME_REFERENCE = matching("volume reference", r"(?!\.{1,2}/)[^-/\s][^/\s]{0,63}/(?!\.{1,2}$)[^-/\s][^/\s]{0,127}")
RSYNC_RATE = ValueType("rsync rate", parse_rsync_rate)
