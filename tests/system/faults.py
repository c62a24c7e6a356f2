"""Faults at each step of what is done with storage: the daemon is killed, or no space is left.

python tests/system/faults.py [--driver NAME …] [--deed NAME …] [--fault kill|nospace|full …] [--every N]

kill      strace kills the process, the daemon or a program that it runs, which makes a system call for the nth time in its
          thread; tried with each call that changes something. Then the daemon is started anew
nospace   that call, and all later ones of its kind in the thread, fail with ENOSPC. What is not right then may be put right by a
          new start of the daemon
full      the pool's file system really has so many KiB left, and no more; else as before

Afterwards nothing may be half there, which `verdict` sees to. Printed are the faults of each deed, how often only a new start put
right what a lack of space had left, and what was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tracing
from box import Daemon
from deeds import DEEDS, FRESH, OF_THE_POOL, Request, Upload
from verdict import FIRST, SECOND, Verdict

from atoll.client.errors import ClientError
from atoll.client.http1 import connect_unix
from atoll.client.server import Server, decode

MOST = 60
"""Of one call in one deed."""

FREE = (0, 4, 16, 64, 256, 1024)
"""KiB that are left in a pool that is full."""


class Kind(StrEnum):
    """What goes wrong, in the word of the command line."""

    KILL = "kill"
    NOSPACE = "nospace"
    FULL = "full"


_NAMES = ("mkdir", "mkdirat", "symlink", "rename", "renameat2")
_CALLS = {
    Kind.KILL: (*_NAMES, "unlink", "unlinkat", "rmdir", "fsync", "fdatasync", "move_mount", "umount2", "fchownat"),
    Kind.NOSPACE: (*_NAMES, "link", "pwrite64", "fsync", "fdatasync", "ftruncate", "copy_file_range", "setxattr"),
}
_CALLS_OF_BTRFS = ("ioctl",)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when: at that call of its name in a thread, or with so many KiB left."""

    kind: Kind
    call: str
    at: int

    @property
    def injection(self) -> str:
        """In strace's words."""
        effect = f"signal=SIGKILL:when={self.at}" if self.kind is Kind.KILL else f"error=ENOSPC:when={self.at}+"
        return f"inject={self.call}:{effect}"

    def __str__(self) -> str:
        return f"{self.at} KiB left" if self.kind is Kind.FULL else f"{self.kind} at {self.call} {self.at}"


class Trial:
    """A daemon with a pool of a driver, and one of driver dir beside it, at which faults are tried.

    refused: how often the deed failed.
    mended: what a fault that the daemon survived had left, and a new start has put right or has not.
    """

    links: tuple[str, ...] = ()
    """Calls that speak to others; it is killed at those, too."""

    def __init__(self, daemon: Daemon, driver: str) -> None:
        self.daemon = daemon
        self._driver = driver
        self._server = Server(lambda: connect_unix(str(daemon.dir / "unix.socket")))
        self._files = daemon.dir.parent
        self._verdict = Verdict(daemon)
        self._fresh = ""
        self.refused = 0
        self.mended: list[str] = []

    # --- before --------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make what the deeds need."""
        run = self.daemon.run
        run("atoll", "storage", "create", "default", self._driver, self._small())
        run("atoll", "storage", "create", "other", "dir")
        run("atoll", "profile", "device", "add", "default", "root", "disk", "path=/", "pool=default")
        run("atoll", "image", "build", "busybox", "--alias", "tiny")
        run("atoll", "init", "tiny", "origin")
        run("atoll", "storage", "volume", "create", "default", "data")
        for content, snapshot in ((FIRST, "s0"), (SECOND, "s1")):
            run("atoll", "file", "push", "-", "origin/root/marker", stdin=content)
            run("sh", "-c", f"echo -n {content} > {self.daemon.dir}/storage-pools/default/custom/default_data/marker")
            run("atoll", "snapshot", "origin", snapshot)
            run("atoll", "storage", "volume", "snapshot", "default", "data", snapshot)
        self._verdict.begin(self._server)

    def _small(self) -> str:
        """The setting that makes a pool which is soon full, with its metadata, too."""
        disk, folder = self._files / "disk", self._files / "small"
        folder.mkdir(mode=0o711)
        run = self.daemon.run
        run("truncate", "--size=128M", str(disk))
        run(*(("mkfs.btrfs", "--mixed") if self._driver == "btrfs" else ("mkfs.ext4", "-m", "0")), "-q", str(disk))
        run("mount", "-o", "loop", str(disk), str(folder))
        run("rm", "-rf", f"{folder}/lost+found")
        return f"source={folder}"

    def _make_uploads(self) -> None:
        """The files that deeds send."""
        run, files = self.daemon.run, self._files
        run("atoll", "export", "origin", f"{files}/instance.tar.gz")
        run("atoll", "storage", "volume", "export", "default", "data", f"{files}/volume.tar.gz")
        run("atoll", "publish", "origin", "--alias", "published")
        run("atoll", "image", "export", "published", f"{files}/image")
        run("atoll", "image", "delete", "published")
        run("sh", "-c", f"cd {files} && echo -n {SECOND} > marker && tar -cf files.tar marker")

    # --- faults --------------------------------------------------------------------------------------------------------

    def faults(self, name: str, kind: Kind, every: int) -> Iterator[Fault]:
        """All that can be tried with a deed, or one of so many of each call."""
        if kind is Kind.FULL:
            yield from (Fault(kind, "", free) for free in FREE[::every])
            return
        calls = _CALLS[kind] + (_CALLS_OF_BTRFS if self._driver == "btrfs" else ())
        calls += self.links if kind is Kind.KILL else ()
        refused = self.refused
        counted = self._traced(name, [f"trace={','.join(calls)}"])
        assert self.refused == refused, f"{name} fails without a fault"
        self.clear()
        for call in calls:
            yield from (Fault(kind, call, at) for at in range(1, min(_steps(counted, call), MOST) + 1, every))

    def clear(self) -> None:
        """Delete the subjects."""
        self._verdict.clear(self._server)

    def suffer(self, name: str, fault: Fault) -> list[str]:
        """Do it with that fault; one sentence for each thing that is wrong then. Afterwards the subjects are gone."""
        if fault.kind is Kind.FULL:
            self._do_when_full(name, fault.at)
        else:
            self._traced(name, [f"trace={fault.call}", fault.injection])
        if fault.kind is Kind.KILL:
            self.restart()
        return self.judge(fresh=fault.kind is Kind.KILL)

    def judge(self, *, fresh: bool) -> list[str]:
        """What is wrong now; `fresh`: the daemon has been started anew since the fault. Afterwards the subjects are gone."""
        found: list[str] = []
        try:
            for look in (self._verdict.on_subjects, self._verdict.clear, self._verdict.on_remains):
                seen, fresh = self._judged(look, fresh=fresh)
                found += seen
            if seen:
                self._verdict.begin(self._server)  # told once is enough
        except (AssertionError, ClientError, OSError) as error:
            return [*found, f"{type(error).__name__}: {error}"]
        return found

    def _judged(self, look: Callable[[Server], list[str]], *, fresh: bool) -> tuple[list[str], bool]:
        """What is wrong, and whether the daemon has been started anew since the fault, as it is when anything was wrong."""
        try:
            found = look(self._server)
        except (ClientError, OSError) as error:
            found = [f"{type(error).__name__}: {error}"]
        if not found or fresh:
            return found, fresh
        self.mended.append("; ".join(found))
        self.restart()
        return look(self._server), True

    def restart(self) -> None:
        """Kill the daemon if it is there, and start another."""
        self._server.close()
        self.daemon.kill()
        self.daemon.start()

    def _do_when_full(self, name: str, free: int) -> None:
        self._begin(name)
        filler = self._verdict.pool("default") / "filler"
        _fill(filler, free)
        self._attempt(name)
        filler.unlink()
        _flush(filler.parent)

    def _traced(self, name: str, expressions: Sequence[str]) -> str:
        """Do it under strace with those expressions, whatever comes of it; returns strace's log."""
        self._begin(name)
        with tempfile.NamedTemporaryFile("r", errors="replace") as log:
            with tracing.attached(self.daemon.pid, *expressions, log=log.name):
                self._attempt(name)
            self._server.close()
            return log.read()

    def _begin(self, name: str) -> None:
        """Do what comes before it."""
        for before in DEEDS[name].before:
            self._send(before)

    def _attempt(self, name: str) -> None:
        """Do it, whatever comes of it."""
        try:
            self._send(DEEDS[name].request)
        except (ClientError, OSError):
            self.refused += 1

    def _send(self, request: Request) -> None:
        """Have it done; ClientError when it fails."""
        method, path, body = request
        if not isinstance(body, Upload):
            words = {key: self._driver if value == OF_THE_POOL else value for key, value in (body or {}).items()}
            self._server.change(method, path.replace(FRESH, self._fresh), words if body else None)
            return
        headers = {f"X-LXD-{name}": value for name, value in body.headers.items()}
        if not (self._files / body.file).exists():
            self._make_uploads()
            self._verdict.begin(self._server)
        data = (self._files / body.file).read_bytes()
        self._fresh = hashlib.sha256(data).hexdigest()
        answer = decode(self._server.exchange(method, path, {"Content-Type": "application/octet-stream", **headers}, data))
        self._server.wait(answer.operation)

    def finish(self) -> list[str]:
        """Delete all there is; what is left nevertheless."""
        self.restart()
        return self._verdict.on_remains(self._server) + self._verdict.on_the_end(self._server)


def _fill(file: Path, free: int) -> None:
    """Make a file that leaves so many KiB of its file system."""
    size, step = 0, 64 << 20
    with file.open("wb") as filler:
        while step >= 4096:
            try:
                os.posix_fallocate(filler.fileno(), size, step)
                size += step
            except OSError:
                step //= 2
        filler.truncate(max(0, size - (free << 10)))
    _flush(file.parent)


def _flush(folder: Path) -> None:
    """What was freed on a file system can be used."""
    subprocess.run(["sync", "-f", str(folder)], check=True)


def _steps(log: str, call: str) -> int:
    """How often a thread made the call, at most."""
    threads = Counter(line.split()[0] for line in log.splitlines() if re.match(rf"\d+ +{call}\(", line))
    return max(threads.values(), default=0)


@contextlib.contextmanager
def trial(driver: str) -> Iterator[Trial]:
    """A prepared one, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="atoll-faults-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        daemon = Daemon(folder)
        try:
            daemon.start()
            made = Trial(daemon, driver)
            made.prepare()
            yield made
        finally:
            daemon.close()


def main(drivers: Sequence[str], deeds: Sequence[str], kinds: Sequence[Kind], every: int) -> int:
    """Try them all; returns how many faults had wrong consequences."""
    wrong = 0
    for driver in drivers:
        with trial(driver) as tried:
            for name in deeds:
                wrong += sum(try_all(tried, driver, name, kind, every) for kind in kinds)
            for sentence in tried.finish():
                print(f"{driver}: {sentence}", flush=True)
                wrong += 1
    return wrong


def try_all(tried: Trial, driver: str, name: str, kind: Kind, every: int) -> int:
    """Try those of a kind with one deed, and tell; returns how many had wrong consequences."""
    began, refused, count, wrong = time.monotonic(), tried.refused, 0, 0
    tried.mended.clear()
    for fault in tried.faults(name, kind, every):
        found = tried.suffer(name, fault)
        count += 1
        wrong += bool(found)
        for sentence in found:
            print(f"    {fault}: {sentence}", flush=True)
    for sentence in tried.mended:
        print(f"    put right, if it is, by a new start: {sentence}")
    counts = f"{count:4} faults{tried.refused - refused:4} refused{len(tried.mended):3} mended{wrong:3} wrong"
    print(f"{driver:8}{name:30}{kind:8}{counts}{time.monotonic() - began:5.0f} s", flush=True)
    return wrong


def command_line(deeds: Collection[str]) -> argparse.ArgumentParser:
    """What a tool that tries faults is asked for. It needs root, and ends in good order when it is told to."""
    if os.geteuid() != 0:
        sys.exit("needs root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", nargs="+", default=["overlay", "dir", "btrfs"])
    parser.add_argument("--deed", nargs="+", default=list(deeds), choices=list(deeds))
    parser.add_argument("--fault", nargs="+", type=Kind, default=list(Kind))
    parser.add_argument("--every", type=int, default=1)
    return parser


if __name__ == "__main__":
    asked = command_line(DEEDS).parse_args()
    sys.exit(bool(main(asked.driver, asked.deed, asked.fault, asked.every)))
