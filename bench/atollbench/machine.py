"""The machine: the facts a reader needs, and the kernel limits that many containers at once need raised."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# The peers' packages set the first; their guides for production ask for the others.
LIMITS: Mapping[str, int] = {
    "fs/inotify/max_user_instances": 8192,
    "fs/inotify/max_user_watches": 1048576,
    "kernel/keys/maxkeys": 20000,
    "kernel/keys/maxbytes": 4000000,
}


@contextlib.contextmanager
def raised_limits() -> Iterator[None]:
    """Raises LIMITS for the time of a run. A limit that is higher already, or was changed meanwhile, stays as it is."""
    before: dict[Path, int] = {}
    try:
        for name, wanted in LIMITS.items():
            path = Path("/proc/sys", name)
            current = int(path.read_text())
            if current < wanted:
                before[path] = current
                path.write_text(str(wanted))
        yield
    finally:
        for path, value in before.items():
            if int(path.read_text()) == LIMITS[str(path.relative_to("/proc/sys"))]:
                path.write_text(str(value))


def facts(state: Path, versions: Mapping[str, str]) -> dict[str, str]:
    """What the report says of the machine; `state` is the directory whose file system the systems run on."""
    minute = os.getloadavg()[0]
    return {
        "Date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Machine": f"{os.cpu_count()} cores ({_cpu()}), {_memory() / 1e9:.0f} GB of memory",
        "Kernel": f"{platform.system()} {platform.release()}",
        "System": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "File system": f"{_filesystem(state)}; LXD and Incus on a btrfs loop file upon it, Atoll on overlay",
        "Load before the run": f"{minute:.2f}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Python": platform.python_version(),
    }


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those Debian packages that are installed."""
    show = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${Package}\t${Version}\n", *packages]
    listed = subprocess.run(show, capture_output=True, text=True).stdout
    rows = (line.split("\t") for line in listed.splitlines())
    return {package: version for status, package, version in rows if status.startswith("ii")}


def available_memory() -> float:
    """What the kernel could still give to programs, in MB."""
    return _meminfo("MemAvailable") / 1e6


def _memory() -> float:
    return _meminfo("MemTotal")


def _meminfo(name: str) -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _filesystem(path: Path) -> str:
    show = ["findmnt", "-n", "-o", "FSTYPE", "-T", str(path)]
    return subprocess.run(show, capture_output=True, text=True).stdout.strip() or "unknown"
