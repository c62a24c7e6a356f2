"""A daemon in namespaces of its own, as system tests use it.

`Box` holds network, mount and process namespaces in which nothing leads out; `Daemon` is `atolld` in one. Whatever a test
leaves running, mounted or linked ends with the box; state and control groups are removed after it.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
CGROUPS = Path("/sys/fs/cgroup")
SECONDS = 60.0
"""How long any step may take: machines that run tests have much else to do. Waiting costs nothing where a step is quick."""


def wait_until(ready: Callable[[], Any], what: str, *, seconds: float = SECONDS) -> Any:
    """Ask until the answer is true, and return it; AssertionError when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {what}"
        time.sleep(0.02)
    return answer


def children(pid: int) -> list[int]:
    """Processes whose parent it is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return sorted(found)


def loop_devices(folder: Path) -> set[str]:
    """The files below a folder that loop devices show; they are the machine's, whatever namespace they were made in."""
    found = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # another one, which has been let go of meanwhile
            found.add(path.read_text().strip().removesuffix(" (deleted)"))
    return {file for file in found if file.startswith(f"{folder}/")}


def kill_boxed(process: subprocess.Popen[bytes]) -> None:
    """Kill what runs in a box, of which nsenter, which is ours, is the parent."""
    for pid in children(process.pid):
        with contextlib.suppress(ProcessLookupError):  # it may be about to end by itself
            os.kill(pid, signal.SIGKILL)
    process.wait(SECONDS)


class Box:
    """Namespaces held by a process; they end with it, and it with this one."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [ROOT / "scripts/box", "--lxcfs", "sh", "-c", "echo ready; exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        (self.init,) = children(self._holder.pid)
        self._end: int | None = os.pidfd_open(self.init)

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The command that runs another inside."""
        return ["nsenter", "--target", str(self.init), "--net", "--mount", "--pid", "--", *argv]

    def close(self) -> None:
        """End all that runs inside, if that has not been done. Its first process ends last: nothing writes any more then."""
        if self._end is None:
            return
        self._holder.kill()
        self._holder.wait()
        assert select.select([self._end], [], [], SECONDS)[0], "what runs in the box does not end"
        os.close(self._end)
        self._end = None


class Daemon:
    """`atolld` in a box, with its state in a folder that has to be reachable by everybody."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.log = folder / "log"
        self.box = Box()
        self._process: subprocess.Popen[bytes] | None = None

    # --- life ----------------------------------------------------------------------------------------------------------

    def start(self, *before: str) -> None:
        """Run it, by a program in front of it if one is given, until it is ready."""
        argv = self.box.enter([*before, self.program("atolld"), "--group", "root"])
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, env=self.env(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.run("atolld", "waitready", "--timeout", "30")

    @property
    def pid(self) -> int:
        """The daemon's process, of which nsenter is the parent."""
        assert self._process is not None
        (pid,) = wait_until(lambda: children(self._process.pid) if self._process else [], "atolld runs")
        return pid

    def kill(self) -> None:
        """Kill it, wherever it is."""
        if self._process is None:
            return
        kill_boxed(self._process)
        self._process = None

    def terminate(self) -> None:
        """End it as a service manager does; machines go on."""
        assert self._process is not None
        os.kill(self.pid, signal.SIGTERM)
        assert self._process.wait(SECONDS) == 0
        self._process = None

    def reboot(self) -> None:
        """End everything at once, as a host that loses its power, and come up in a box of its own."""
        self.kill()
        self.box.close()
        self.remove_groups()
        self.box = Box()
        self.start()

    def close(self) -> None:
        """End everything and remove all of it."""
        try:
            self.kill()
        finally:
            self.box.close()
            self.remove_groups()
            wait_until(lambda: not loop_devices(self.state.parent), "its loop devices are let go of")
            shutil.rmtree(self.state)

    # --- use -----------------------------------------------------------------------------------------------------------

    @property
    def dir(self) -> Path:
        """The state directory."""
        return self.state

    def env(self) -> dict[str, str]:
        """What its clients and itself run with."""
        return {
            "ATOLL_DIR": str(self.state),
            "LXD_DIR": str(self.state),
            "LXD_CONF": str(self.state.parent / "lxc"),
            "HOME": str(self.state.parent),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT / "src"),
            "PATH": os.environ["PATH"],
        }

    @staticmethod
    def program(name: str) -> str:
        """`atoll` and `atolld` of this checkout; others as they are found."""
        return str(PROGRAMS / name) if name in ("atoll", "atolld") else name

    def try_(self, *argv: str, timeout: float = SECONDS, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the box, whatever comes of it."""
        command = self.box.enter([self.program(argv[0]), *argv[1:]])
        return subprocess.run(
            command, env=self.env(), input=stdin, capture_output=True, text=True, timeout=timeout, cwd="/", check=False
        )

    def run(self, *argv: str, timeout: float = SECONDS, stdin: str = "") -> str:
        """Run a command in the box and return what it wrote; AssertionError, with what it said, if it fails."""
        done = self.try_(*argv, timeout=timeout, stdin=stdin)
        assert done.returncode == 0, f"`{' '.join(argv)}` exited with {done.returncode}: {done.stderr}{self.end_of_log()}"
        return done.stdout

    def begin(self, *argv: str) -> subprocess.Popen[bytes]:
        """A command in the box that goes on by itself, unheard."""
        command = self.box.enter([self.program(argv[0]), *argv[1:]])
        return subprocess.Popen(command, env=self.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def inside(self, name: str, *argv: str) -> str:
        """What a command says in an instance, without the last line's end."""
        return self.run("atoll", "exec", name, "--", *argv).rstrip("\n")

    def query(self, path: str) -> Any:
        """The metadata of a GET."""
        return json.loads(self.run("atoll", "query", path))

    def listed(self, columns: str, *, program: str = "atoll") -> list[list[str]]:
        """Rows of `list`."""
        text = self.run(program, "list", "--format", "csv", "--columns", columns)
        return list(csv.reader(io.StringIO(text)))

    def address(self, name: str, *, version: int = 4, nic: str = "eth0") -> str:
        """The address of an instance, as soon as `list` shows one."""
        pattern = re.compile(rf"(\S+) \({nic}\)")

        def look() -> str:
            (row,) = (row for row in self.listed(f"n{version}") if row[0] == name)
            found = pattern.search(row[1])
            return found[1] if found else ""

        answer: str = wait_until(look, f"{name} has an IPv{version} address")
        return answer

    def init_pid(self, name: str) -> int:
        """The instance's init, in this box's numbers."""
        pid: int = self.query(f"/1.0/instances/{name}/state")["pid"]
        return pid

    def end_of_log(self) -> str:
        """What it said last."""
        return "\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    # --- control groups, which are the machine's own -------------------------------------------------------------------

    @property
    def mark(self) -> str:
        """What its control groups are called."""
        return f"atoll-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}"

    def groups(self, kind: str) -> set[str]:
        """The instances that have a control group of a kind, `payload` or `monitor`, in any hierarchy."""
        return {path.name for path in CGROUPS.glob(f"*/{self.mark}/{kind}/*") if path.is_dir()}

    def remove_groups(self) -> None:
        """Remove what a killed box leaves, once the kernel has emptied it."""
        wait_until(self._groups_are_gone, "its control groups are empty")

    def _groups_are_gone(self) -> bool:
        for top in [CGROUPS / self.mark, *CGROUPS.glob(f"*/{self.mark}")]:
            for path, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(path)
                except FileNotFoundError:
                    continue
                except OSError:
                    return False
        return True
