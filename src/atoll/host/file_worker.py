"""The worker that touches a guest's files (security invariant I2): a child of the zygote, one for each session of a client.

Of a running machine it works inside the machine's user and mount namespaces, as the machine's root with the file capabilities
alone; of one that does not run, on the tree that it is given. It holds no descriptor of the host's but its link to the daemon
and /proc/self/fd, and cannot be traced. All that a guest can do to it, such as a FUSE mount that never answers, ends with a
signal: the daemon itself never opens, reads or waits for a guest's file.

Protocol over the link, a SOCK_SEQPACKET pair, one JSON object a message:
    request     {"op", …}: a function of OPERATIONS with its arguments
    answer      {"ok": true, …}, with a descriptor beside it where a stream follows, or {"errno", "error"}
    after a stream one more answer, which says whether all of it came through
A stream is a pipe: content of a file, or names with a NUL after each. It ends the session when the link closes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import stat
from collections.abc import Callable
from typing import Any

from atoll.host import file_sftp, messages, syscalls
from atoll.host.file_tree import NEW_DIRECTORY_MODE, NEW_FILE_MODE, Tree

CHUNK = 1 << 20
_SETPIPE_SIZE = 1031  # F_SETPIPE_SZ
_FD_LIMIT = 1 << 16
_FILE_CAPABILITIES = sum(1 << number for number in (0, 1, 3, 4))  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID

Reply = Callable[..., None]

KINDS = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symlink"))


# --- its beginning ---------------------------------------------------------------------------------------------------------


def begin(reply: Reply, link: int, place: int, *, init: int) -> None:
    """Be the worker for whoever holds the other end of `link`; returns never, or raises OSError before it has answered.

    `place` is the pidfd of a running machine's init, whose process id `init` is, or, with `init` 0, the top of a tree.
    """
    descriptors = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    parent = os.getppid()
    if init:
        _enter(place, init)
        place = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(place)
    syscalls.limit_capabilities(_FILE_CAPABILITIES)
    syscalls.hide_memory()
    syscalls.end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    handle = os.pidfd_open(os.getpid())
    reply({"ok": True}, (handle,))
    try:
        _close_all_but(link, place, descriptors)
        serve(socket.socket(fileno=link), Tree(place, descriptors))
    finally:
        os._exit(0)


def _enter(handle: int, init: int) -> None:
    """Into the machine's namespaces, as its root. A machine without a user namespace of its own has the host's."""
    own_users = os.stat(f"/proc/{init}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    if poller.poll(0):  # asked after the look at its number
        raise ProcessLookupError(errno.ESRCH, "The machine has stopped")
    syscalls.setns(handle, syscalls.CLONE_NEWNS | (syscalls.CLONE_NEWUSER if own_users else 0))
    if own_users:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    with contextlib.suppress(PermissionError):  # a map without the right to set groups: it has none to begin with
        os.setgroups([])


def _close_all_but(*kept: int) -> None:
    """Of the standard ones, /dev/null stays: standard error is the daemon's."""
    os.dup2(0, 2)
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _FD_LIMIT)


# --- its work --------------------------------------------------------------------------------------------------------------


def serve(link: socket.socket, tree: Tree) -> None:
    """Answer requests until the other end closes."""
    with link:
        while True:
            try:
                data, fds = messages.receive(link)
                if not data:
                    return
                _answer(link, tree, messages.loads(data), fds)
            except (ConnectionError, BrokenPipeError):
                return


def _answer(link: socket.socket, tree: Tree, request: dict[str, Any], fds: list[int]) -> None:
    def reply(message: dict[str, Any], passed: tuple[int, ...] = ()) -> None:
        messages.send(link, message, passed)

    try:
        OPERATIONS[request.pop("op")](tree, reply, fds, **request)
    except (ConnectionError, BrokenPipeError):
        raise
    except OSError as error:
        reply({"errno": error.errno or errno.EIO, "error": error.strerror or str(error)})
    finally:
        for fd in fds:
            os.close(fd)


def _look(tree: Tree, reply: Reply, _: list[int], *, path: str) -> None:
    """Attributes of what a path names, of a link itself."""
    reply({"ok": True, **_attributes(tree.stat(path, follow=False))})


def _attributes(found: os.stat_result) -> dict[str, Any]:
    kind = next((name for test, name in KINDS if test(found.st_mode)), "")
    return {
        "kind": kind,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "mode": stat.S_IMODE(found.st_mode),
        "modified": int(found.st_mtime),
        "size": found.st_size,
    }


def _fetch(tree: Tree, reply: Reply, _: list[int], *, path: str) -> None:
    """Attributes, and the content: of a file or directory as a stream, of a link as `target`."""
    with tree.pinned(path, follow=False) as fd:
        found = os.fstat(fd)
        answer = {"ok": True, **_attributes(found)}
        if stat.S_ISLNK(found.st_mode):
            reply({**answer, "target": tree.read_pinned_link(fd)})
            return
        opened = tree.reopen(fd, os.O_RDONLY | (os.O_DIRECTORY if stat.S_ISDIR(found.st_mode) else 0))
    try:
        reader, writer = _pipe()
        try:
            try:
                reply(answer, (reader,))
            finally:
                os.close(reader)
            with contextlib.suppress(BrokenPipeError):  # nobody wants the rest
                _write_names(opened, writer) if stat.S_ISDIR(found.st_mode) else copy(opened, writer)
        finally:
            os.close(writer)
    finally:
        os.close(opened)
    reply({"ok": True})


def _store(tree: Tree, reply: Reply, _: list[int], *, path: str, append: bool, mode: int | None, uid: int, gid: int) -> None:
    """Write a stream to a file: in place of its content or, with `append`, after it. Mode and owner are those of a new file."""
    if append:
        opened, made = tree.open(path, os.O_WRONLY), False
        os.lseek(opened, 0, os.SEEK_END)
    else:
        opened, made = tree.create(path, os.O_WRONLY, 0o600)
    try:
        if made:
            os.fchown(opened, uid, gid)
            os.fchmod(opened, NEW_FILE_MODE if mode is None else mode & 0o777)
        elif not append:
            os.ftruncate(opened, 0)
        reader, writer = _pipe()
        try:
            try:
                reply({"ok": True}, (writer,))
            finally:
                os.close(writer)
            copy(reader, opened)
        finally:
            os.close(reader)
    finally:
        os.close(opened)
    reply({"ok": True})


def _make_directory(tree: Tree, reply: Reply, _: list[int], *, path: str, mode: int | None, uid: int, gid: int) -> None:
    """A directory; one that is there already is left as it is."""
    try:
        tree.make_directory(path, NEW_DIRECTORY_MODE if mode is None else mode)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.EBUSY) or not stat.S_ISDIR(tree.stat(path, follow=True).st_mode):
            raise
    else:
        tree.change_owner(path, uid, gid)
    reply({"ok": True})


def _make_link(tree: Tree, reply: Reply, _: list[int], *, path: str, target: str, uid: int, gid: int) -> None:
    """A symbolic link; one that is there already and points to the same is left as it is."""
    try:
        tree.make_link(path, target)
    except FileExistsError:
        if not stat.S_ISLNK(tree.stat(path, follow=False).st_mode) or tree.read_link(path) != target:
            raise
    else:
        tree.change_owner(path, uid, gid, follow=False)
    reply({"ok": True})


def _remove(tree: Tree, reply: Reply, _: list[int], *, path: str) -> None:
    """A file, a link, or an empty directory."""
    tree.remove(path)
    reply({"ok": True})


def _sftp(tree: Tree, reply: Reply, fds: list[int]) -> None:
    """Speak SFTP on a stream socket until its end."""
    reply({"ok": True})
    with socket.socket(fileno=fds.pop()) as stream:
        file_sftp.serve(stream, tree)


OPERATIONS: dict[str, Callable[..., None]] = {
    "look": _look,
    "fetch": _fetch,
    "store": _store,
    "make-directory": _make_directory,
    "make-link": _make_link,
    "remove": _remove,
    "sftp": _sftp,
}


# --- streams ---------------------------------------------------------------------------------------------------------------


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # over the limit of pipe memory: it stays small
        fcntl.fcntl(writer, _SETPIPE_SIZE, CHUNK)
    return reader, writer


def copy(source: int, target: int) -> None:
    """All of a file into a pipe, or of a pipe into a file, by the kernel alone where it can."""
    try:
        while os.splice(source, target, CHUNK):
            pass
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without it, such as most of /proc
            raise
        while block := os.read(source, CHUNK):
            _write_all(target, block)


def _write_names(folder: int, pipe: int) -> None:
    block = bytearray()
    with os.scandir(folder) as found:
        for entry in found:
            block += os.fsencode(entry.name) + b"\0"
            if len(block) > CHUNK // 16:
                _write_all(pipe, bytes(block))
                block.clear()
    _write_all(pipe, bytes(block))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
