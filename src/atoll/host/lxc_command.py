"""The command socket of a liblxc monitor: who runs, and the console of who runs, without loading liblxc and without a process
started.

Every monitor listens on an abstract unix socket named after lxcpath and container. A request and an answer are each one C
struct {int, int, pointer}. Command numbers are fixed by liblxc (since 4.0, unchanged in 5, 6 and 7). Any process may bind an
abstract name, so the peer has to be root before a word of its answer counts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass

from atoll.domain.errors import Conflict, NotFound
from atoll.host import pidfd

_STRUCT = struct.Struct("iil")
_PEER = struct.Struct("iII")
_GET_TERMINAL = 0
_GET_INIT_PID = 4
_GET_STATE = 3
_STATE_RUNNING = 2
_STATES_WITH_INIT = frozenset({_STATE_RUNNING, 5, 6, 7})  # RUNNING, FREEZING, FROZEN, THAWED
_SECONDS = 2.0
_NAME_MAX = 106  # sun_path, less the leading and the trailing NUL


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs: its init and its monitor, each with a pidfd that the receiver owns."""

    init_pid: int
    init_fd: int
    monitor_pid: int
    monitor_fd: int


def socket_name(lxcpath: str, name: str) -> bytes:
    """The abstract address that liblxc gives a monitor's socket; hashed as liblxc does when it is too long."""
    plain = f"{lxcpath}/{name}/command".encode()
    if len(plain) < _NAME_MAX:
        return b"\0" + plain
    digest = 0xCBF29CE484222325
    for byte in f"{lxcpath}/{name}".encode():
        digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return b"\0" + f"lxc/{digest:016x}/command".encode()


def find(lxcpath: str, name: str) -> Running | None:
    """The running container of that name, None if there is none or it is between two inits (starting, rebooting)."""
    try:
        if _ask(lxcpath, name, _GET_STATE)[1] not in _STATES_WITH_INIT:
            return None
        init_pid = _ask(lxcpath, name, _GET_INIT_PID)[1]
        return _hold(lxcpath, name, init_pid) if init_pid > 0 else None
    except (OSError, NotFound, struct.error):
        return None


def has_monitor(lxcpath: str, name: str) -> bool:
    """Whether a monitor (of root's) listens, whatever state its container is in."""
    try:
        with _connect(lxcpath, name):
            return True
    except OSError:
        return False


def open_monitor(lxcpath: str, name: str) -> int | None:
    """A pidfd of the monitor that listens, whatever state its container is in; None if there is none. The caller owns it."""
    try:
        pid = _monitor_pid(lxcpath, name)
        fd = pidfd.open(pid)
    except (OSError, NotFound):
        return None
    with contextlib.suppress(OSError):
        if _monitor_pid(lxcpath, name) == pid and not pidfd.is_gone(fd):  # so the number was its own when it was opened
            return fd
    os.close(fd)
    return None


def _monitor_pid(lxcpath: str, name: str) -> int:
    with _connect(lxcpath, name) as link:
        pid: int = _PEER.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
        return pid


def _hold(lxcpath: str, name: str, init_pid: int) -> Running | None:
    """Open both pidfds; ask again afterwards, so that a process id reused meanwhile is noticed."""
    init_fd = pidfd.open(init_pid)
    try:
        monitor_pid = parent_of(init_pid)
        monitor_fd = pidfd.open(monitor_pid)
    except (OSError, NotFound):
        os.close(init_fd)
        raise
    try:
        same = _ask(lxcpath, name, _GET_INIT_PID)[1] == init_pid and not pidfd.is_gone(init_fd)
        if same and parent_of(init_pid) == monitor_pid:
            return Running(init_pid, init_fd, monitor_pid, monitor_fd)
    except (OSError, struct.error):
        pass
    os.close(init_fd)
    os.close(monitor_fd)
    return None


def open_console(lxcpath: str, name: str) -> tuple[socket.socket, int]:
    """Attach to a container's console: (what holds it, the master of a terminal that stands for it).

    The monitor copies between that terminal and the guest's until the socket is closed, and closes the socket when the guest
    ends. Conflict while somebody else is attached, OSError if no container of that name runs.
    """
    link = _connect(lxcpath, name)
    try:
        _send(link, _GET_TERMINAL)
        answer, fds, _, _ = socket.recv_fds(link, _STRUCT.size, 1)
        if not fds:
            raise Conflict("This console is already connected")
        os.set_inheritable(fds[0], False)
        if len(answer) != _STRUCT.size:
            os.close(fds[0])
            raise ConnectionResetError("The monitor's answer was cut short")
    except BaseException:
        link.close()
        raise
    return link, fds[0]


def parent_of(pid: int) -> int:
    """The parent's process id, from /proc/PID/stat. OSError if there is no such process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


def _connect(lxcpath: str, name: str) -> socket.socket:
    """A connection to the monitor. ConnectionRefusedError if nobody, or somebody but root, listens there."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        link.settimeout(_SECONDS)
        link.connect(socket_name(lxcpath, name))
        _, uid, _ = _PEER.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != 0:
            raise ConnectionRefusedError(f"The command socket of {name} belongs to user {uid}")
    except BaseException:
        link.close()
        raise
    return link


def _ask(lxcpath: str, name: str, command: int) -> tuple[int, int]:
    """Send one command; its answer's return code and pointer-sized value."""
    with _connect(lxcpath, name) as link:
        _send(link, command)
        code, _, value = _STRUCT.unpack(link.recv(_STRUCT.size, socket.MSG_WAITALL))
        return code, value


def _send(link: socket.socket, command: int) -> None:
    """Send a command without arguments, with the credentials that the monitor asks for."""
    me = _PEER.pack(os.getpid(), os.geteuid(), os.getegid())
    link.sendmsg([_STRUCT.pack(command, 0, 0)], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, me)])
