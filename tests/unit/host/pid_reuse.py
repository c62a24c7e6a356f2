"""Plays callers whose process id is another process's by the time that it is looked at.

    pid_reuse.py [ATTEMPTS [--old-kernel]]      as root; the second as on a kernel that gives no pidfd of a peer

Two pid namespaces, A and B, stand for two machines. Each attempt has a process of A connect, lets it die while a child keeps the
connection, and gives its number to a new process of B; then it is asked who connected. Either half of the attempts has the
number reused before the connection is accepted, the other half between its acceptance and the look. Prints one line of figures;
the exit status is 1 if a caller was ever taken for one of B's, or for anybody's once it was dead.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from atoll.domain.errors import NotFound
from atoll.drivers.instance.lxc import residents
from atoll.host import peer

CLONE_NEWPID = 0x20000000
BOX = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
PATH = "socket"
TRIES = 200


class Space:
    """A pid namespace, and in it an init that forks when it is told to."""

    def __init__(self) -> None:
        here, there = socket.socketpair()
        middle = os.fork()
        if not middle:
            if ctypes.CDLL(None).unshare(CLONE_NEWPID):
                os._exit(1)
            if not os.fork():
                here.close()
                _be_init(there)
            os._exit(0)
        os.waitpid(middle, 0)
        there.close()
        self._orders = here
        self.namespace = int(self.order("namespace"))

    def order(self, word: str) -> str:
        """Have it done; its answer."""
        self._orders.send(word.encode())
        return self._orders.recv(64).decode()


def _be_init(orders: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    spawned = 0
    while word := orders.recv(64).decode():
        answer = "done"
        if word == "namespace":
            answer = str(os.stat("/proc/self/ns/pid").st_ino)
        elif word == "spawn":
            if spawned:
                os.kill(spawned, signal.SIGKILL)
            spawned = os.fork()
            if not spawned:
                signal.pause()
        elif word == "connect" and not os.fork():
            _connect_and_leave(orders)
        orders.send(answer.encode())
    os._exit(0)


def _connect_and_leave(orders: socket.socket) -> None:
    """Connect, leave the connection to a child, and wait to be killed."""
    orders.close()
    link = socket.socket(socket.AF_UNIX)
    link.connect(PATH)
    if not os.fork():
        link.recv(1)  # until the other end is closed
        os._exit(0)
    signal.pause()


class World:
    """Both spaces, and where their processes connect."""

    def __init__(self) -> None:
        self.a, self.b = Space(), Space()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(PATH)
        self.listener.listen()
        machines = {space.namespace: SimpleNamespace(id=name, has_init=True) for space, name in ((self.a, "a"), (self.b, "b"))}
        self.watcher = cast(Any, SimpleNamespace(by_namespace=machines))

    def connect(self) -> tuple[socket.socket, int]:
        """A connection from A, and the pid of who made it."""
        self.a.order("connect")
        link, _ = self.listener.accept()
        pid, _, _ = peer._CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return link, pid

    def replace(self, pid: int) -> bool:
        """End that process, and give its number to one of B's; whether that worked."""
        os.kill(pid, signal.SIGKILL)
        for _ in range(TRIES):  # the number is free a moment after the process has gone
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
            self.b.order("spawn")
            if peer.pid_namespace(pid) == self.b.namespace:
                return True
            time.sleep(0.001)
        return False

    def look(self, held: peer.Peer) -> str | None:
        """Whose process it is."""
        try:
            machine = residents._around(held, self.watcher)
        finally:
            held.close()
        return cast(Any, machine).id if machine is not None else None

    def attempt(self, *, accepted_first: bool) -> tuple[bool, str | None]:
        """(whether the number was reused, whom the caller was taken for)"""
        link, pid = self.connect()
        with link:
            held = peer.of(link) if accepted_first else None
            reused = self.replace(pid)
            try:
                found = self.look(held or peer.of(link))
            except NotFound:
                found = None
        return reused, found


def main(attempts: int, *, old_kernel: bool) -> int:
    """In a box of its own."""
    if old_kernel:
        peer._held = lambda link: None
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        world = World()
        link, _ = world.connect()
        alive = world.look(peer.of(link))
        reused = confused = 0
        for number in range(attempts):
            worked, found = world.attempt(accepted_first=bool(number % 2))
            reused += worked
            confused += found is not None
    print(f"{attempts} attempts, {reused} numbers reused, {confused} confusions; a caller that lives is of {alive}")
    return int(confused > 0 or alive != "a" or reused < attempts * 0.9)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        sys.exit(main(int(sys.argv[2]), old_kernel="--old-kernel" in sys.argv))
    sys.exit(subprocess.run([*BOX, sys.executable, __file__, "--inside", *(sys.argv[1:] or ["10000"])], check=False).returncode)
