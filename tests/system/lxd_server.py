"""The LXD 5.0 of Debian, in a box of its own, to exchange things with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from box import SECONDS, Box, kill_boxed  # found through conftest's path

PROGRAM = shutil.which("lxd", path="/usr/sbin:/usr/bin")


class Lxd:
    """A running server with a pool `p` of driver dir that the default profile has its root disk on."""

    def __init__(self, folder: Path, box: Box, env: Mapping[str, str]) -> None:
        self._box = box
        self._env = {
            "LXD_DIR": str(folder / "lxd"),
            "LXD_CONF": str(folder / "lxc"),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}",
            **env,
        }
        for name in ("lxd", "lxc"):
            (folder / name).mkdir()
        (folder / "lxd").chmod(0o711)

    def run(self, *argv: str) -> str:
        """What a command says; AssertionError if it fails."""
        done = subprocess.run(
            self._box.enter(argv),
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"`{' '.join(argv)}` exited with {done.returncode}: {done.stderr}"
        return done.stdout

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """The daemon's process, once it answers."""
        assert PROGRAM is not None
        with log.open("wb") as said:
            process = subprocess.Popen(
                self._box.enter([PROGRAM]), env=self._env, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        self.run("lxd", "waitready", "--timeout", "30")
        self.run("lxc", "storage", "create", "p", "dir")
        self.run("lxc", "profile", "device", "add", "default", "root", "disk", "path=/", "pool=p")
        return process

    def delete_all(self) -> None:
        """Its instances, which have control groups on the machine."""
        for name in self.run("lxc", "list", "--format", "csv", "--columns", "n").split():
            self.run("lxc", "delete", "--force", name)


@contextmanager
def running(folder: Path, box: Box | None = None, env: Mapping[str, str] | None = None) -> Iterator[Lxd]:
    """A server with its state below that folder, in a box of its own unless one is given; all of it is gone afterwards. `env`:
    what its environment has more."""
    found = box or Box()
    try:
        server = Lxd(folder, found, env or {})
        process = server.start(folder / "lxd.log")
        try:
            yield server
        finally:
            try:
                server.delete_all()
            finally:
                kill_boxed(process)
    finally:
        if box is None:
            found.close()
