"""The one way to start a program.

`run` takes an argv list (never a shell line), finds the program by its absolute host path, says which Debian package has it
when it is missing, and turns a failure into HostError with what the program said. Tests install a hook to see every start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.domain.errors import DeadlineExceeded, HostError, Unsupported
from atoll.host.threads import finished, in_thread, waiting_thread

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MOST_LINES = 3
"""Of what a program said that failed, the last: some say a line for each of thousands of files."""

PACKAGES = {
    "apt-config": "apt",
    "btrfs": "btrfs-progs",
    "busybox": "busybox-static",
    "dnsmasq": "dnsmasq-base",
    "lxc-start": "lxc",
    "lxc-freeze": "lxc",
    "lxc-unfreeze": "lxc",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mksquashfs": "squashfs-tools",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "rsync": "rsync",
    "setfacl": "acl",
    "tar": "tar",
    "unsquashfs": "squashfs-tools",
    "unshare": "util-linux",
    "xz": "xz-utils",
    "zstd": "zstd",
}
"""Which Debian package brings a program, for the message when it is not there."""

observer: Callable[[Sequence[str]], None] | None = None
"""Called with the argv of every program before it starts; tests set it."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished program left: its exit code and its two outputs."""

    code: int
    stdout: bytes
    stderr: bytes


def _end_of(said: bytes) -> str:
    return "\n".join(said.decode(errors="replace").strip()[-2000:].splitlines()[-MOST_LINES:])


def find(program: str) -> str:
    """The absolute path of a host program. Unsupported, naming its package, if it is not installed."""
    path = shutil.which(program, path=SEARCH_PATH)
    if path is None:
        package = PACKAGES.get(program, program)
        raise Unsupported(f"The program {program!r} is not installed", hint=f"install the package {package!r}")
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The small environment that programs get: nothing of the daemon's own leaks into them."""
    base = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    for name in ("TMPDIR", "http_proxy", "https_proxy", "no_proxy"):
        if name in os.environ:
            base[name] = os.environ[name]
    return {**base, **(extra or {})}


async def start(
    argv: Sequence[str],
    *,
    stdin: int | None = asyncio.subprocess.DEVNULL,
    stdout: int | None = asyncio.subprocess.PIPE,
    stderr: int | None = asyncio.subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """Start a program and return it running; the caller awaits and reaps it."""
    program = find(argv[0])
    if observer is not None:
        observer(argv)
    return await asyncio.create_subprocess_exec(
        program,
        *argv[1:],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment(env),
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
    )


class _Child:
    """A program that is started and attended in a thread, and can be killed from outside at any moment."""

    def __init__(self, argv: Sequence[str], **options: Any) -> None:
        self._argv = argv
        self._options = options
        self._lock = threading.Lock()
        self._killed = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, input: bytes | None) -> Completed:
        """To its end. By vfork, 1 ms, where the event loop's own way of starting a program forks the whole daemon for 7."""
        with self._lock:
            if self._killed:
                return Completed(-signal.SIGKILL, b"", b"")
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                **self._options,
            )
        stdout, stderr = self._process.communicate(input)
        return Completed(self._process.returncode, stdout, stderr)

    def kill(self) -> None:
        """With all that it started and that is still of its session: a child of it could keep the pipes open."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)


async def _end(child: _Child, talk: asyncio.Future[Completed]) -> None:
    """Kill and reap."""
    try:
        await in_thread(child.kill)  # it waits for a start that is under way
    finally:
        with contextlib.suppress(OSError):  # of a program that could not be started: nobody asks any more
            await finished(talk)


async def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float = 60.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a program to its end. HostError on a non-zero exit (unless `check=False`), DeadlineExceeded after `timeout` seconds.

    A cancelled or late program is killed and reaped before the error leaves here.
    """
    program = find(argv[0])
    if observer is not None:
        observer(argv)
    child = _Child([program, *argv[1:]], env=environment(env), cwd=cwd, pass_fds=pass_fds)
    talk = waiting_thread(child.run, input)
    try:
        async with asyncio.timeout(timeout):
            done = await asyncio.shield(talk)
    except BaseException as error:
        if not talk.done():
            await _end(child, talk)
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded(f"{argv[0]} did not finish in {timeout:g} seconds") from error
        raise
    if check and done.code != 0:
        raise HostError(f"{argv[0]} failed with exit code {done.code}: {_end_of(done.stderr or done.stdout)}")
    return done
