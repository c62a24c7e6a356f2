"""The daemon's side of the zygote (see `zygote_server`): ask it to do things in machines, and hear how they end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from atoll.domain.errors import HostError, Internal, Unavailable
from atoll.host import messages, pidfd, process
from atoll.host.threads import in_thread

log = logging.getLogger(__name__)

_SOURCE_ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.insert(0, sys.argv[1]); from atoll.host import zygote_server; zygote_server.main(int(sys.argv[2]))"
_INLINE_MAX = 60_000
_EXIT_SECONDS = 5.0


class GuestProcess:
    """A command that the zygote started; keeps its pidfd until it is waited for and closed."""

    def __init__(self, pid: int, handle: int) -> None:
        self._pid = pid
        self._handle = handle
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        """Its process id on the host."""
        return self._pid

    async def wait(self) -> int:
        """Its exit status: 0..255, 128+n when killed by signal n. Unavailable if the zygote was stopped before it ended."""
        return await asyncio.shield(self._status)

    def signal(self, number: int) -> None:
        """Send it a signal; nothing wrong if it has ended."""
        if self._handle >= 0:
            pidfd.send(self._handle, number)

    def ended(self, status: int | None) -> None:
        """Told by the zygote's client: it ended so, or (None) nobody will ever know."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if self._status.done():
            return
        if status is not None:
            self._status.set_result(status)
        else:
            self._status.set_exception(Unavailable("The process that watches commands has stopped"))
            self._status.exception()  # retrieved: nobody need wait for it


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker answered: its message, the descriptors beside it, the process if it started one."""

    message: Mapping[str, Any]
    fds: Sequence[int]
    process: GuestProcess | None = None


class Zygote:
    """Starts the zygote and speaks with it. `start` before all else, `stop` at the end; all on one event loop."""

    def __init__(self) -> None:
        self._link: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watch: pidfd.Watch | None = None  # while there is a link: a worker that holds its other end may outlive the zygote
        self._numbers = 0
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._processes: dict[int, GuestProcess] = {}
        self._sending = asyncio.Lock()
        self._wanted = False

    @property
    def pid(self) -> int:
        """The zygote's process id; 0 when it does not run."""
        return self._child.pid if self._child else 0

    async def start(self) -> None:
        """Start the process and wait until it answers. From now on it is started again if it should ever end."""
        self._wanted = True
        await self.call("echo", {})

    async def stop(self) -> None:
        """Close the connection, at which the zygote ends; commands that it started go on."""
        self._wanted = False
        await self.rest()

    async def rest(self) -> None:
        """End the process, which the next call starts again: where no machine runs, its memory is not needed."""
        child, self._child = self._child, None
        self._lost()
        if child is not None:
            await in_thread(_end, child)

    async def call(self, name: str, arguments: Mapping[str, Any], fds: Sequence[int] = ()) -> Answer:
        """Do one of the zygote's calls in a worker. HostError when it failed; the caller owns the answer's descriptors."""
        number, answer = await self._submit(name, arguments, fds)
        try:
            return await answer
        finally:
            self._answers.pop(number, None)

    async def execute(self, arguments: Mapping[str, Any], fds: Sequence[int]) -> GuestProcess:
        """Start a command in a machine (`zygote_server._exec` has the arguments). HostError when it could not be started."""
        _, answer = await self._submit("exec", arguments, fds)
        try:
            started = (await asyncio.shield(answer)).process
        except asyncio.CancelledError:
            answer.add_done_callback(_abandon)
            raise
        if started is None:
            raise Internal("The zygote answered a request for a process without one")
        return started

    async def _submit(self, name: str, arguments: Mapping[str, Any], fds: Sequence[int]) -> tuple[int, asyncio.Future[Answer]]:
        self._numbers += 1
        number = self._numbers
        payload = json.dumps({**arguments, "call": name, "id": number}).encode()
        if len(payload) <= _INLINE_MAX:
            await self._send(payload, fds)
        else:
            with _memfd(payload) as file:
                await self._send(b"", [file.fileno(), *fds])
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        return number, answer

    async def _connect(self) -> socket.socket:
        """The connection; starts the process if there is none. Unavailable before `start` and after `stop`."""
        if self._watch is not None and pidfd.is_gone(self._watch.fd):
            self._ended()
        if self._link is not None:
            return self._link
        if not self._wanted:
            raise Unavailable("The process that enters machines is not running")
        if self._child is not None:
            await in_thread(_end, self._child)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._child = await in_thread(_spawn, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._watch = pidfd.Watch(pidfd.open(self._child.pid), self._ended)  # not reaped yet: the number is its own
        self._link = ours
        asyncio.get_running_loop().add_reader(ours, self._readable)
        return ours

    async def _send(self, payload: bytes, fds: Sequence[int]) -> None:
        """Send, waiting while the socket is full. Unavailable if there is no zygote, HostError for what cannot be sent."""
        async with self._sending:
            is_new = self._link is None
            while True:
                link = await self._connect()
                try:
                    socket.send_fds(link, [payload], list(fds), socket.MSG_NOSIGNAL)
                    return
                except BlockingIOError:
                    await _writable(link)
                except ConnectionError as error:
                    if is_new:
                        raise Unavailable(f"The process that enters machines is not running: {error}") from error
                    self._lost()  # it has ended, of which `_readable` has not heard yet: this was not sent
                    is_new = True
                except OSError as error:  # it may well live, and what it does for others with it
                    raise HostError(f"The process that enters machines cannot be asked: {error}") from error

    def _readable(self) -> None:
        """Take all messages that are there."""
        while self._link is not None:
            try:
                data, fds = messages.receive(self._link)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._ended()
                return
            self._dispatch(json.loads(data), fds)

    def _dispatch(self, message: dict[str, Any], fds: list[int]) -> None:
        """Match one message with what waits for it."""
        if "exit" in message:
            found = self._processes.pop(message["exit"], None)
            if found is not None:
                found.ended(message["status"])
            return
        process = None
        if "pid" in message:
            process = self._processes[message["pid"]] = GuestProcess(message["pid"], fds.pop())
        answer = self._answers.pop(message["id"], None)
        if answer is None or answer.done():
            for fd in fds:
                os.close(fd)
        elif "error" in message or "done" in message:
            said = message.get("error", f"its worker ended with status {message.get('done')}")
            answer.set_exception(HostError(f"In the machine: {said}"))
        else:
            answer.set_result(Answer(message, fds, process))

    def _ended(self) -> None:
        log.error("The zygote has ended")
        self._lost()

    def _lost(self) -> None:
        """No connection any more: fail what waits for it."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(link)
            link.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unavailable("The process that enters machines has stopped"))
        self._answers.clear()
        for found in self._processes.values():
            found.ended(None)
        self._processes.clear()


def _abandon(answer: asyncio.Future[Answer]) -> None:
    """The caller was cancelled before its command had started: end it, nobody holds it."""
    if not answer.cancelled() and answer.exception() is None:
        started = answer.result().process
        if started is not None:
            started.signal(signal.SIGKILL)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Wait for a zygote whose connection is closed; kill it if it does not end."""
    try:
        child.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _spawn(fd: int) -> subprocess.Popen[bytes]:
    """Start the interpreter from a sealed copy of its binary in memory.

    A worker stands in the guest's process list for a moment before it becomes the guest's command; a privileged guest that
    opened its /proc/PID/exe then would hold the host's interpreter. So it holds a copy that nobody can write.
    """
    if process.observer is not None:
        process.observer(["atoll-zygote"])
    image = os.memfd_create("atoll-zygote", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(os.path.realpath(sys.executable), "rb") as binary:
            while os.sendfile(image, binary.fileno(), None, 1 << 24):
                pass
        _seal(image)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, _SOURCE_ROOT, str(fd)],
            executable=f"/proc/self/fd/{image}",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=process.environment(),
            pass_fds=(fd, image),
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(image)


def _seal(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


@contextlib.contextmanager
def _memfd(payload: bytes) -> Iterator[BinaryIO]:
    with open(os.memfd_create("atoll-request", os.MFD_CLOEXEC), "w+b") as file:
        file.write(payload)
        file.flush()
        yield file


async def _writable(link: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(link, tell)
    try:
        await ready
    finally:
        loop.remove_writer(link)
