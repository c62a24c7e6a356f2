"""`bench/migrate`: copies of instances between two servers of a kind, LXD and Atoll in turn, by each way that they have."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atollbench import images, machine, processes, report, section, systems
from atollbench.boxes import CommandError, remove_cgroups
from atollbench.measure import say
from atollbench.systems import System

_BOX = Path(__file__).resolve().parent.parent / "box"
_WAYS = {"lxd": ("dir", "btrfs"), "atoll": ("dir", "btrfs", "overlay")}
_NAMES = {"dir": "rsync", "btrfs": "btrfs streams", "overlay": "layers"}
_TARGET = 0.8
_PASSWORD = "between"
_SMALL_BYTES = 2048


@dataclass(frozen=True)
class Load:
    """What an instance holds, beside its image."""

    title: str
    archive: Path
    megabytes: float


class Pair:
    """Two servers of one system that reach each other, "a" and "b", with a pool for each way; and a client of both."""

    def __init__(self, system: System, root: Path, *, prefix: str) -> None:
        self.system = system
        self.prefix = prefix
        self._root = root
        self._roots = {name: root / name for name in "ab"}
        self._client = {**system.environment(root / "a"), f"{system.prefix}_CONF": str(root / "conf")}
        self._holder: subprocess.Popen[bytes] | None = None
        self._init = 0

    def start(self) -> None:
        """Both answer, with their pools, and trust the client."""
        lines = []
        for name, root in self._roots.items():
            self.system.state(root).mkdir(parents=True)
            root.chmod(0o711)
            environment = shlex.join(["env", *(f"{key}={value}" for key, value in self.system.environment(root).items())])
            lines.append(f"{environment} {shlex.quote(self.system.daemon)} >{shlex.quote(str(self._root))}/{name}.log 2>&1 &")
        self._root.chmod(0o711)
        (self._root / "conf").mkdir()
        self._holder = subprocess.Popen(
            [_BOX, "sh", "-c", "\n".join([*lines, "wait"])], stdin=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while not all(self.system.socket(root).exists() for root in self._roots.values()):
            if time.monotonic() > deadline:
                raise CommandError(f"{self.system.daemon} made no socket within a minute")
            time.sleep(0.05)
        (self._init,) = processes.children(self._holder.pid)
        for number, name in enumerate(self._roots):
            self._set_up(name, 8443 + number)

    def _set_up(self, name: str, port: int) -> None:
        system, root = self.system, self._roots[name]
        own = system.environment(root)
        self.run(system.waitready(), environment=own)
        for key, value in (("core.https_address", f"127.0.0.1:{port}"), ("core.trust_password", _PASSWORD)):
            self.run([system.client, "config", "set", key, value], environment=own)
        for driver in _WAYS[system.key]:
            size = ["size=15GiB"] if driver == "btrfs" else []
            self.run([system.client, "storage", "create", driver, driver, *size], environment=own)
        address = [f"127.0.0.1:{port}", "--accept-certificate", "--password", _PASSWORD]
        self.run([system.client, "remote", "add", name, *address])

    def run(self, argv: Sequence[str], *, environment: dict[str, str] | None = None) -> None:
        """One of the system's programs, to its end, where the servers are."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._init), "-n", "--", *argv],
            env=environment or self._client,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
        )
        if done.returncode:
            raise CommandError(f"`{' '.join(argv)}` exited with {done.returncode}: {done.stderr.strip()[-500:]}")

    def fill(self, name: str, driver: str, load: Load) -> None:
        """An instance at a, in that pool, with that load."""
        client, instance = self.system.client, f"a:{name}"
        self.run([client, "launch", "a:tiny", instance, "--storage", driver])
        self.run([client, "file", "push", str(load.archive), f"{instance}/root/load.tar"])
        self.run([client, "exec", instance, "--", "sh", "-c", "cd /root && tar xf load.tar && rm load.tar && sync"])
        self.run([client, "stop", "--force", instance])

    def copy(self, name: str, driver: str) -> float:
        """Seconds that the copy to b takes; it is gone again afterwards. What an earlier one has left to be written, by whichever
        system, is on the disk before it begins."""
        client = self.system.client
        os.sync()
        begun = time.monotonic()
        self.run([client, "copy", f"a:{name}", f"b:{name}", "--storage", driver])
        took = time.monotonic() - begun
        self.run([client, "delete", f"b:{name}"])
        return took

    def most_memory(self) -> float:
        """MB that a daemon has had at most since the last question."""
        most = 0.0
        for process in processes.in_namespace_of(self._init):
            if process.parent == self._init or processes.parent_of(process.parent) == self._init:
                status = Path(f"/proc/{process.pid}/status").read_text()
                found = [line for line in status.splitlines() if line.startswith("VmHWM:")]
                if Path(self.system.daemon).name in process.title and found:
                    most = max(most, float(found[0].split()[1]) * 1024 / 1e6)
                    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        return most

    def stop(self) -> None:
        """Ends every process of it."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
        remove_cgroups(self.prefix)


def main(argv: Sequence[str] | None = None) -> int:
    return section.main(_parser(), run, argv)


def _parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="bench/migrate", description="Compare copies between two servers of LXD and of Atoll.")
    parse.add_argument("--repeat", type=int, default=3, metavar="N", help="copies of each kind (3)")
    parse.add_argument("--megabytes", type=int, default=500, metavar="N", help="size of the large file (500)")
    parse.add_argument("--files", type=int, default=20000, metavar="N", help="number of the small files (20000)")
    parse.add_argument("--only", metavar="SYSTEM", choices=tuple(_WAYS), help="of lxd and atoll (both)")
    section.add_options(parse)
    return parse


def run(options: argparse.Namespace) -> str:
    """Measures; on return nothing of it runs any more."""
    facts = machine.facts(options.state, {})
    seconds: dict[tuple[str, str, str], list[float]] = {}
    memory: dict[str, float] = {}
    chosen = [each for each in (systems.LXD, systems.atoll(options.atoll_programs)) if options.only in (None, each.key)]
    with tempfile.TemporaryDirectory(prefix="atoll-bench-", dir=options.state) as name, contextlib.ExitStack() as stack:
        root = Path(name)
        root.chmod(0o711)
        loads = _loads(root, options)
        pairs = [_started(system, root, options, stack) for system in chosen]
        for load in loads:
            _measure(pairs, load, options.repeat, seconds, memory)
    return _text(loads, seconds, memory, facts)


def _started(system: System, root: Path, options: argparse.Namespace, stack: contextlib.ExitStack) -> Pair:
    say(f"{system.title}: start")
    pair = Pair(system, root / system.key, prefix=f"am{os.getpid()}-{system.key}")
    stack.callback(pair.stop)
    pair.start()
    for side in "ab":
        pair.run([system.client, "image", "import", str(images.busybox(options.cache)), f"{side}:", "--alias", "tiny"])
    return pair


def _measure(
    pairs: Sequence[Pair],
    load: Load,
    repeat: int,
    seconds: dict[tuple[str, str, str], list[float]],
    memory: dict[str, float],
) -> None:
    """Each way in turn, before the next repetition. The first copy of each, which finds nothing warm, does not count."""
    ways = [(pair, driver) for pair in pairs for driver in _WAYS[pair.system.key]]
    for pair, driver in ways:
        pair.fill(f"{pair.prefix}-{driver}", driver, load)
    for pair in pairs:
        pair.most_memory()
    for repetition in range(repeat + 1):
        say(f"{load.title}: copy {repetition}/{repeat}")
        for pair, driver in ways:
            took = pair.copy(f"{pair.prefix}-{driver}", driver)
            if repetition:
                seconds.setdefault((load.title, pair.system.key, driver), []).append(took)
    for pair, driver in ways:
        pair.run([pair.system.client, "delete", f"a:{pair.prefix}-{driver}"])
    for pair in pairs:
        memory[pair.system.key] = max(memory.get(pair.system.key, 0.0), pair.most_memory())


def _loads(root: Path, options: argparse.Namespace) -> list[Load]:
    """Files that cannot be compressed, in archives."""
    large, small = root / "large.tar", root / "small.tar"
    with tarfile.open(large, "w") as archive, open("/dev/urandom", "rb") as random:
        head = tarfile.TarInfo("large")
        head.size = options.megabytes * 1_000_000
        archive.addfile(head, random)
    with tarfile.open(small, "w") as archive, open("/dev/urandom", "rb") as random:
        for number in range(options.files):
            head = tarfile.TarInfo(f"small/{number // 100}/{number}")
            head.size = _SMALL_BYTES
            archive.addfile(head, random)
    return [
        Load(f"{options.megabytes} MB in one file", large, options.megabytes),
        Load(f"{options.files} files of 2 kB", small, options.files * _SMALL_BYTES / 1e6),
    ]


def _text(
    loads: Sequence[Load],
    seconds: dict[tuple[str, str, str], list[float]],
    memory: dict[str, float],
    facts: Mapping[str, str],
) -> str:
    lines = []
    for load in loads:
        took = {key[1:]: statistics.median(values) for key, values in seconds.items() if key[0] == load.title}
        best = {driver: took.get(("lxd", driver)) or min(_peers(took), default=None) for driver in _NAMES}
        for driver, way in _NAMES.items():
            own, peer = took.get(("atoll", driver)), best[driver]
            ratio = None if own is None or peer is None else peer / own
            lines.append(
                [
                    f"{load.title}, {way}",
                    _rate(load, took.get(("lxd", driver))),
                    _rate(load, own),
                    report.ABSENT if ratio is None else f"{ratio:.2f}",
                    report.ABSENT if ratio is None else f"≥ {_TARGET}",
                    report.ABSENT if ratio is None else "met" if ratio >= _TARGET else "missed",
                ]
            )
    most = ", ".join(f"{key} {report.number(value)} MB" for key, value in memory.items())
    command = shlex.join(["bench/migrate", *sys.argv[1:]])
    return "\n\n".join(
        [
            report.SECTION,
            f"Written by `{command}`: {facts['Date']}, {facts['Machine']}, load {facts['Load before the run']}.",
            "Copies of a stopped instance between two servers on one machine, over TLS, by the real clients, start to exit;\n"
            "median. The content is random. *Ratio* is Atoll's rate over LXD's by the same way, for layers over LXD's best; the\n"
            "image is at both ends.",
            report.table(["copy between servers", "LXD", "Atoll", "ratio", "target", "verdict"], lines),
            f"Resident size of a daemon, at most, while they went: {most}.",
        ]
    )


def _peers(took: dict[tuple[str, str], float]) -> Iterator[float]:
    return (value for (system, _), value in took.items() if system == "lxd")


def _rate(load: Load, seconds: float | None) -> str:
    return report.ABSENT if seconds is None else f"{report.number(load.megabytes / seconds)} MB/s"
