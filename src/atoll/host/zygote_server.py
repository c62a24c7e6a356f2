"""The zygote: a small, warm, single-threaded process that forks for each request, so that no hot path starts an interpreter.

Started by `atoll.host.zygote` with one end of a SOCK_SEQPACKET pair. It imports almost nothing of Atoll, and all it will ever
need, before the first request: a forked worker may find itself in a guest's root, where no import may look anything up.

Protocol: one message is one JSON object, with file descriptors beside it.
    to the zygote    {"id", "call", …}: `call` names a function of CALLS; the rest is its arguments. A message too large for
                     the socket is an empty one whose first descriptor is a memfd with the object.
    from a worker    {"id", "pid": n} with a pidfd when the call started a process, {"id", "ok": true} when it did its work,
                     {"id", "errno", "error"} when it could not
    from the zygote  {"id", "done": status} when the worker of a request has gone, {"exit": pid, "status"} when a process
                     that a call started has ended; sent before the process id is free to be reused

The zygote is the subreaper of what its workers start, so a worker need not stay for as long as a command runs. It ends when
the other end of its socket is closed.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from atoll.host import cgroup_entry, file_worker, guest_mount, liblxc, messages, syscalls

Reply = Callable[..., None]


class Server:
    """The loop: take requests, fork, reap."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._workers: dict[int, int] = {}

    def run(self) -> None:
        """Serve until the other end closes."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poller = select.poll()
        poller.register(self._link, select.POLLIN)
        poller.register(reader, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poller.poll()}
            if reader in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(reader, 4096)
                self._reap()
            if self._link.fileno() in ready and not self._take():
                return

    def _take(self) -> bool:
        """Take one request; False at the end of the connection."""
        data, fds = messages.receive(self._link)
        if not data and not fds:
            return False
        try:
            request = json.loads(data) if data else _read_memfd(fds.pop(0))
            child = _fork(request)
            if child == 0:
                self._work(request, fds)
            self._workers[child] = request["id"]
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _work(self, request: dict[str, Any], fds: list[int]) -> None:
        """In the worker: do one request and end. Never returns."""
        signal.set_wakeup_fd(-1)
        number = request.pop("id")

        def reply(message: dict[str, Any], passed: tuple[int, ...] = ()) -> None:
            messages.send(self._link, {"id": number, **message}, passed)

        try:
            CALLS[request.pop("call")](reply, fds, **request)
        except OSError as error:
            reply({"errno": error.errno or errno.EIO, "error": str(error)})
        except BaseException as error:  # noqa: BLE001 - the last line of a process: the cause has to reach the daemon
            reply({"errno": errno.EIO, "error": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(0)

    def _reap(self) -> None:
        """Tell of every ended child, and only then release its process id."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            status = ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status
            if ended.si_pid in self._workers:
                messages.send(self._link, {"id": self._workers.pop(ended.si_pid), "done": status})
            else:
                messages.send(self._link, {"exit": ended.si_pid, "status": status})
            os.waitpid(ended.si_pid, 0)


def _fork(request: dict[str, Any]) -> int:
    """Fork a worker: in the group `unified` if the request has one. Where it cannot be born there, the worker finds None."""
    if request.get("unified"):
        try:
            return cgroup_entry.fork(request["unified"])
        except OSError:
            request["unified"] = None
    return os.fork()


def _read_memfd(fd: int) -> dict[str, Any]:
    with open(fd, "rb") as file:
        file.seek(0)
        request: dict[str, Any] = json.load(file)
        return request


def _exec(
    reply: Reply,
    fds: list[int],
    *,
    lxcpath: str,
    name: str,
    init: int,
    command: list[str],
    environment: dict[str, str],
    user: int,
    group: int,
    cwd: str,
    unified: str | None,
    groups: list[str],
) -> None:
    """Start a command in a container; descriptors: its three standard ones, then the pidfd of the container's init. `unified`
    (see `_fork`) and `groups` are the container's in the hierarchies of v2 and v1: the command inherits them from this process,
    or liblxc moves it."""
    argv = [os.fsencode(word) for word in command]
    env = {os.fsencode(key): os.fsencode(value) for key, value in environment.items()}
    limits = _limits_of(init)

    def body() -> int:
        """In the guest: let go of everything of the host's, then be the command."""
        try:
            os.closerange(3, _FD_LIMIT)
            _enter_directory(cwd)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_CORE, limits[resource.RLIMIT_CORE])
            os._exit(_become(argv, env))
        except BaseException:  # noqa: BLE001 - an exception must not travel through liblxc's frames
            os._exit(126)

    if not _is_alive(fds[3]):  # asked again after its limits were read by number
        raise ProcessLookupError(errno.ESRCH, "The machine has stopped")
    _take_limits(limits)
    stdio = (fds[0], fds[1], fds[2])
    move = unified is None or not _enter(groups)
    pid = liblxc.attach(_library(), lxcpath, name, body, user=user, group=group, stdio=stdio, move=move)
    handle = os.pidfd_open(pid)
    reply({"pid": pid}, (handle,))


_FD_LIMIT = 1 << 16


def _enter_directory(cwd: str) -> None:
    """Change to it, as the user and after all host descriptors are closed; `/` if that cannot be."""
    try:
        os.chdir(cwd or "/")
    except OSError:
        os.chdir("/")


def _become(argv: list[bytes], env: dict[bytes, bytes]) -> int:
    """Execute the command, looked for in its own PATH. Returns only on failure: 127 not found, 126 not executable."""
    paths = [argv[0]]
    if b"/" not in argv[0]:
        search = env.get(b"PATH", b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        paths = [folder + b"/" + argv[0] for folder in search.split(b":") if folder]
    code = 127
    for path in paths:
        try:
            os.execve(path, argv, env)
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                return _become([b"/bin/sh", path, *argv[1:]], env) if argv[0] != b"/bin/sh" else 126
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                code = 126
    return code


_RLIMITS = tuple(range(16))


def _limits_of(pid: int) -> dict[int, tuple[int, int]]:
    """The resource limits of a process, by the kernel's number: a command in a machine gets those of its init."""
    return {number: resource.prlimit(pid, number) for number in _RLIMITS}


def _take_limits(limits: dict[int, tuple[int, int]]) -> None:
    """Take over limits, but for core dumps: this process is still the host's."""
    for number, pair in limits.items():
        if number != resource.RLIMIT_CORE and resource.getrlimit(number) != pair:
            with contextlib.suppress(OSError, ValueError):  # raising a hard limit needs CAP_SYS_RESOURCE
                resource.setrlimit(number, pair)


def _enter(groups: list[str]) -> bool:
    """Go into them; False if that cannot be, as on a host that is a container itself."""
    try:
        cgroup_entry.enter(groups)
    except OSError:
        return False
    return True


def _is_alive(handle: int) -> bool:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return not poller.poll(0)


def _mount(reply: Reply, fds: list[int], **arguments: Any) -> None:
    """Mount into a container; descriptor: the pidfd of its init."""
    guest_mount.attach(fds[0], **arguments)
    reply({"ok": True})


def _unmount(reply: Reply, fds: list[int], **arguments: Any) -> None:
    """Unmount in a container; descriptor: the pidfd of its init."""
    guest_mount.detach(fds[0], **arguments)
    reply({"ok": True})


def _files(reply: Reply, fds: list[int], *, init: int) -> None:
    """Become a worker on files; descriptors: its link, then the pidfd of a machine's init or, with `init` 0, a folder."""
    file_worker.begin(reply, fds[0], fds[1], init=init)


def _echo(reply: Reply, fds: list[int], *, text: str = "", fail: int = 0) -> None:
    """Answer, for a look whether the zygote lives; fails with an errno if asked to."""
    if fail:
        raise OSError(fail, os.strerror(fail))
    reply({"ok": True, "text": text, "fds": len(fds)}, tuple(fds))


def _describe(reply: Reply, fds: list[int], *, extensions: list[str]) -> None:
    """liblxc's version, and which of those API extensions it has."""
    library = _library()
    found = {name: bool(library.lxc_has_api_extension(name.encode())) for name in extensions}
    reply({"version": liblxc.version(library), "extensions": found})


CALLS: dict[str, Callable[..., None]] = {
    "exec": _exec,
    "mount": _mount,
    "unmount": _unmount,
    "files": _files,
    "describe": _describe,
    "echo": _echo,
}

_loaded: list[Any] = []


def _library() -> Any:
    """liblxc, loaded once: by the zygote itself where it is installed, so that workers find it loaded."""
    if not _loaded:
        _loaded.append(liblxc.load())
    return _loaded[0]


def main(fd: int) -> None:
    """Be the zygote on that socket."""
    os.closerange(3, fd)
    os.closerange(fd + 1, _FD_LIMIT)
    syscalls.set_process_name(b"atoll-zygote")
    syscalls.become_subreaper()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # what commands inherit
    os.chdir("/")
    os.umask(0o022)
    with contextlib.suppress(OSError):
        _library()
    gc.disable()  # workers live for milliseconds; a collection would only copy the pages that they share
    gc.freeze()
    with contextlib.suppress(OSError):  # the daemon went away: nobody is left to serve
        Server(socket.socket(fileno=fd)).run()
    sys.exit(0)
