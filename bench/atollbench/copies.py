"""`bench/storage`: copies of one stopped instance within a pool, by LXD and Atoll in turn, on each driver and file system."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atollbench import images, machine, report, section, systems
from atollbench.boxes import Box
from atollbench.measure import say

_POOL_SIZE = "20GiB"
_FILE_BYTES = 200_000


@dataclass(frozen=True)
class Place:
    """A kind of pool: the driver, and the file system that it is made on where that is not the machine's."""

    driver: str
    filesystem: str = ""

    @property
    def name(self) -> str:
        return self.driver + self.filesystem

    @property
    def title(self) -> str:
        return f"{self.driver} on {self.filesystem}" if self.filesystem else self.driver


_PLACES: Mapping[str, Sequence[Place]] = {
    "lxd": (Place("dir"), Place("dir", "xfs"), Place("btrfs")),
    "atoll": (Place("dir"), Place("dir", "xfs"), Place("btrfs"), Place("overlay")),
}

Seconds = dict[tuple[str, Place], list[float]]
"""By a system's key and the kind of pool."""


def main(argv: Sequence[str] | None = None) -> int:
    return section.main(_parser(), run, argv)


def _parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="bench/storage", description="Compare copies within a pool of LXD and of Atoll.")
    parse.add_argument("--repeat", type=int, default=3, metavar="N", help="copies of each kind (3)")
    parse.add_argument("--megabytes", type=int, default=2000, metavar="N", help="content, half of it one file (2000)")
    section.add_options(parse)
    return parse


def run(options: argparse.Namespace) -> str:
    """Measures; on return nothing of it runs or is mounted any more."""
    facts = machine.facts(options.state, {})
    seconds: Seconds = {}
    with tempfile.TemporaryDirectory(prefix="atoll-bench-", dir=options.state) as name, contextlib.ExitStack() as stack:
        root = Path(name)
        root.chmod(0o711)
        servers = []
        for system in (systems.LXD, systems.atoll(options.atoll_programs, backend="dir")):
            say(f"{system.title}: start")
            folders = {place: _folder(root, system.key, place, stack) for place in _PLACES[system.key]}
            box = Box(system, root / system.key, prefix=f"as{os.getpid()}-{system.key}")
            stack.callback(box.stop)
            box.start()
            _fill(box, folders, images.busybox(options.cache), options.megabytes)
            servers.append(box)
        for repetition in range(options.repeat + 1):  # the first copy of each, which finds nothing warm, does not count
            say(f"copy {repetition}/{options.repeat}")
            _each(servers, seconds if repetition else {})
    return _text(seconds, facts, options)


def _folder(root: Path, key: str, place: Place, stack: contextlib.ExitStack) -> Path | None:
    """Where the pool is to be, if it says so: an empty directory on its file system."""
    if not place.filesystem:
        return None
    image, mounted = root / f"{key}.{place.filesystem}", root / f"{key}-{place.filesystem}"
    with open(image, "wb") as file:
        file.truncate(20 << 30)
    mounted.mkdir(mode=0o711)
    subprocess.run([f"mkfs.{place.filesystem}", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    stack.callback(subprocess.run, ["umount", "--lazy", mounted], check=True)
    (mounted / "pool").mkdir(mode=0o711)
    return mounted / "pool"


def _fill(box: Box, folders: Mapping[Place, Path | None], image: Path, megabytes: int) -> None:
    """A pool of each kind with one stopped instance, which has one file of half the size, and many small ones."""
    client, half = box.system.client, megabytes * 500_000
    script = f"""set -e; mkdir /root/small; cd /root/small
        head -c {half} /dev/urandom >../large; number=0
        while [ $number -lt {half // _FILE_BYTES} ]; do
            head -c {_FILE_BYTES} /dev/urandom >$number; number=$((number + 1))
        done; sync"""
    box.run([client, "image", "import", str(image), "--alias", "tiny"])
    for place, folder in folders.items():
        given = [f"source={folder}"] if folder else [f"size={_POOL_SIZE}"] if place.driver == "btrfs" else []
        name = _instance(box, place)
        box.run([client, "storage", "create", place.name, place.driver, *given])
        box.run([client, "launch", "tiny", name, "--storage", place.name])
        box.run(box.system.execute(name, "sh", "-c", script), timeout=900)
        box.run(box.system.stop(name))


def _each(servers: Sequence[Box], seconds: Seconds) -> None:
    """One copy of each kind, the systems in turn."""
    for place in _PLACES["atoll"]:
        for box in servers:
            if place in _PLACES[box.system.key]:
                name = _instance(box, place)
                took = _timed(lambda box=box, name=name: box.run(box.system.copy(name, f"{name}-copy"), timeout=900))
                box.run(box.system.delete(f"{name}-copy"), timeout=900)
                os.sync()  # what is still to be written of this copy is not the next one's
                seconds.setdefault((box.system.key, place), []).append(took)


def _timed(action: Callable[[], object]) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def _instance(box: Box, place: Place) -> str:
    return f"{box.prefix}-{place.name}"


def _text(seconds: Seconds, facts: Mapping[str, str], options: argparse.Namespace) -> str:
    lines = []
    for place in _PLACES["atoll"]:
        own = statistics.median(seconds["atoll", place])
        peers = seconds.get(("lxd", place))
        lines.append(
            [
                place.title,
                f"{statistics.median(peers):.2f} s" if peers else report.ABSENT,
                f"{own:.2f} s",
                f"{own / statistics.median(peers):.3f}" if peers else report.ABSENT,
            ]
        )
    command = shlex.join(["bench/storage", *sys.argv[1:]])
    said = (
        f"Written by `{command}` ({facts['Date']}, {facts['Machine']}; load {facts['Load before the run']}): copies within a "
        f"pool of a stopped instance with {options.megabytes} MB of random content, half of it in one file and half in files of "
        f"{_FILE_BYTES // 1000} kB, by the real clients, from start to exit; median of {options.repeat}. *Ratio* is Atoll's time "
        "over LXD's."
    )
    return "\n\n".join(
        [
            report.COPIES,
            textwrap.fill(said, 120),
            report.table(["copy of an instance, pool", "LXD", "Atoll", "ratio"], lines),
        ]
    )
