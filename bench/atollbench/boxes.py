"""A running system: its daemon in a box, its client, its socket, its processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from atollbench import processes
from atollbench.processes import Process
from atollbench.systems import System
from atollbench.wire import Connection

_BOX = Path(__file__).resolve().parent.parent / "box"
_CGROUPS = Path("/sys/fs/cgroup")


class CommandError(Exception):
    """A program failed, or took longer than it may; the message holds what it said."""


class Box:
    """One system under test, from its empty state directory to its removal.

    Clients run outside of the box and reach the daemon by its socket. Every instance's name must begin with `prefix`,
    which is this run's alone: by it the cgroups that a killed box leaves behind are known.
    """

    def __init__(self, system: System, root: Path, *, prefix: str) -> None:
        self.system = system
        self.root = root
        self.prefix = prefix
        self._environment = system.environment(root)
        self._holder: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._daemon = 0

    def start(self) -> None:
        """Starts the daemon and sets it up; on return it answers requests."""
        for directory in (self.system.state(self.root), self.root / "conf", self.root / "home"):
            directory.mkdir(parents=True)
        self.root.chmod(0o711)
        with self.log.open("wb") as log:
            self._holder = subprocess.Popen(
                [_BOX, self.system.daemon],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then ends its boxes
            )
        try:
            self._await_socket()
            self.run(self.system.waitready())
            self.run(self.system.init(), stdin=self.system.preseed())
            self._find_processes()
        except CommandError as error:
            raise CommandError(f"{error}\n{self._end_of_log()}") from error

    def stop(self) -> None:
        """Ends every process of the box, and removes its state and its instances' cgroups."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
        remove_cgroups(self.prefix)
        shutil.rmtree(self.root)

    @property
    def log(self) -> Path:
        return self.root / "daemon.log"

    def run(self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 180) -> str:
        """Runs one of the system's programs to its end and returns its output; raises CommandError when it fails."""
        try:
            done = subprocess.run(
                argv,
                env=self._environment,
                input="" if stdin is None else stdin,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"`{' '.join(argv)}` took more than {timeout:g} s") from error
        except FileNotFoundError as error:
            raise CommandError(f"{argv[0]} is not installed") from error
        if done.returncode:
            raise CommandError(f"`{' '.join(argv)}` exited with {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def connect(self) -> Connection:
        return Connection(self.system.socket(self.root))

    def daemon_processes(self) -> list[Process]:
        return processes.daemon_of(processes.in_namespace_of(self._init), self._daemon)

    def monitor_processes(self) -> list[Process]:
        return processes.monitors_of(processes.in_namespace_of(self._init), self._daemon, self._init)

    def _await_socket(self) -> None:
        assert self._holder is not None
        deadline = time.monotonic() + 60
        while not self.system.socket(self.root).exists():
            if self._holder.poll() is not None:
                raise CommandError(f"{self.system.daemon} ended with {self._holder.returncode}")
            if time.monotonic() > deadline:
                raise CommandError(f"{self.system.daemon} made no socket within a minute")
            time.sleep(0.05)

    def _find_processes(self) -> None:
        """The box's first process is the holder's only child; the daemon, a child of that which is not lxcfs."""
        assert self._holder is not None
        (self._init,) = processes.children(self._holder.pid)
        below = {process.pid: process for process in processes.in_namespace_of(self._init)}
        # the daemon is started last of what the box's shell starts itself; later orphans have greater pids
        program = Path(self.system.daemon).name
        own = [pid for pid in sorted(below) if below[pid].parent == self._init and program in below[pid].title]
        if not own:
            raise CommandError(f"no process of {program} in its box")
        self._daemon = own[0]

    def _end_of_log(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def remove_cgroups(prefix: str) -> None:
    """Removes the cgroups of instances whose names begin with `prefix`, once the kernel has emptied them."""
    deadline = time.monotonic() + 60
    while (left := _remove_once(prefix)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        raise CommandError(f"cgroups are still in use: {', '.join(map(str, left[:5]))}")


def _remove_once(prefix: str) -> list[Path]:
    left = []
    for path, _, _ in os.walk(_CGROUPS, topdown=False):
        if prefix in path:
            try:
                os.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError:
                left.append(Path(path))
    return left
