"""Commands in instances through the API, many at a time, and what they leave behind in the daemon.

python tests/system/commands.py [COUNT [CONCURRENT]]     10,000 commands, 50 at a time, in a daemon of its own
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parent))

from box import CGROUPS, Daemon, wait_until

MEBIBYTE = 1 << 20
THREADS_MOST = 40


class Client:
    """Speaks to a daemon over its unix socket."""

    def __init__(self, daemon: Daemon) -> None:
        self._session = aiohttp.ClientSession(
            "http://atoll", connector=aiohttp.UnixConnector(str(daemon.dir / "unix.socket"), limit=0)
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The envelope of an answer; AssertionError for a refusal."""
        async with self._session.request(method, path, json=body) as answer:
            content: dict[str, Any] = json.loads(await answer.read())
        assert answer.status < 400, content
        return content

    async def start(self, name: str, *command: str, **more: Any) -> Running:
        """Start a command with websockets, none of which is connected yet."""
        body = {"command": command, "wait-for-websocket": True, **more}
        content = await self.call("POST", f"/1.0/instances/{name}/exec", body)
        return Running(self, content["operation"], content["metadata"]["metadata"]["fds"])

    async def connect(self, url: str) -> aiohttp.ClientWebSocketResponse:
        """A websocket."""
        return await self._session.ws_connect(url, max_msg_size=0)

    async def run(self, name: str, *command: str, given: bytes = b"", **more: Any) -> tuple[int, bytes, bytes]:
        """Run a command to its end: (exit status, output, errors)."""
        running = await self.start(name, *command, **more)
        await running.attach()
        return await running.finish(given)


@dataclass
class Running:
    """A command that was started."""

    client: Client
    operation: str
    secrets: dict[str, str]

    async def attach(self, *names: str) -> dict[str, aiohttp.ClientWebSocketResponse]:
        """Connect its websockets."""
        self.sockets = {
            name: await self.client.connect(f"{self.operation}/websocket?secret={self.secrets[name]}")
            for name in names or self.secrets
        }
        return self.sockets

    async def finish(self, given: bytes = b"") -> tuple[int, bytes, bytes]:
        """Give it its input, and gather what it says until its end."""
        outputs = [name for name in ("1", "2") if name in self.sockets] or ["0"]
        gathering = [asyncio.ensure_future(_gather(self.sockets[name])) for name in outputs]
        if "1" in self.sockets:
            for start in range(0, len(given), MEBIBYTE):
                await self.sockets["0"].send_bytes(given[start : start + MEBIBYTE])
            await self.sockets["0"].send_str("")
        elif given:
            await self.sockets["0"].send_bytes(given)
        said = await asyncio.gather(*gathering)
        status = await self.status()
        for socket in self.sockets.values():
            await socket.close()
        return status, said[0], said[1] if len(said) > 1 else b""

    async def status(self) -> int:
        """Its exit status, once it has ended."""
        ended = (await self.client.call("GET", f"{self.operation}/wait?timeout=60"))["metadata"]
        found: int = ended["metadata"]["return"]
        return found

    async def control(self, **message: Any) -> None:
        """Tell its control channel something."""
        await self.sockets["control"].send_str(json.dumps(message))


async def _gather(socket: aiohttp.ClientWebSocketResponse) -> bytes:
    found = []
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY:
            break
        found.append(message.data)
    return b"".join(found)


async def storm(client: Client, name: str, count: int, concurrent: int) -> float:
    """Run that many commands, that many at a time, every third on a terminal; each is checked. Returns commands a second."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            script = f"echo say{number}; exit {number % 126}"
            status, said, _ = await client.run(name, "sh", "-c", script, interactive=number % 3 == 0)
            assert (status, said.split()) == (number % 126, [f"say{number}".encode()]), (number, status, said)

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(concurrent)))
    return count / (time.monotonic() - began)


@dataclass(frozen=True)
class Holdings:
    """What a daemon holds, and what runs beside it."""

    descriptors: int
    threads: int
    zygote: int
    processes: int
    groups: int
    memory: int  # resident bytes; compared with some tolerance by who wants to

    def leaks(self, before: Holdings) -> dict[str, tuple[int, int]]:
        """What there is more of than before, but for memory, and threads of the pool that had not been needed yet."""
        names = ("descriptors", "zygote", "processes", "groups")
        found = {name: (getattr(before, name), now) for name in names if (now := getattr(self, name)) > getattr(before, name)}
        return found | ({"threads": (before.threads, self.threads)} if self.threads > THREADS_MOST else {})


def holdings(daemon: Daemon) -> Holdings:
    """A look at it."""
    pid = daemon.pid
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    processes = daemon.run("ps", "-eo", "pid=,stat=,args=").splitlines()
    zygotes = [line.split()[0] for line in processes if "zygote_server" in line]
    inside = sum(1 for line in processes if " ps -eo " not in line)
    handles = sum(len(daemon.run("ls", f"/proc/{zygote}/fd").split()) for zygote in zygotes)
    groups = sum(1 for top in CGROUPS.glob(f"*/{daemon.mark}") for _ in os.walk(top))
    return Holdings(
        len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"]), handles, inside, groups, int(fields["VmRSS"].split()[0]) << 10
    )


def calm(daemon: Daemon) -> Holdings:
    """The holdings at rest: the same, but for memory, at two looks."""
    last: Holdings | None = None

    def look() -> Holdings | None:
        nonlocal last
        now, before = holdings(daemon), last
        last = now
        same = before is not None and dataclasses.replace(before, memory=0) == dataclasses.replace(now, memory=0)
        return now if same else None

    found: Holdings = wait_until(look, "the daemon is at rest")
    return found


def settled(daemon: Daemon, before: Holdings) -> Holdings:
    """The holdings once nothing is left; AssertionError when something is."""

    def look() -> Holdings | None:
        now = holdings(daemon)
        return None if now.leaks(before) else now

    try:
        found: Holdings = wait_until(look, "nothing is left")
    except AssertionError as error:
        raise AssertionError(f"left over (before, now): {holdings(daemon).leaks(before)}") from error
    return found


def storms(daemon: Daemon, name: str, count: int, concurrent: int) -> float:
    """`storm`, by a client that comes and goes."""

    async def run() -> float:
        async with Client(daemon) as client:
            return await storm(client, name, count, concurrent)

    return asyncio.run(run())


def measure(daemon: Daemon, count: int, concurrent: int) -> None:
    """The storm, in parts, each with what it left."""
    storms(daemon, "c1", 10 * concurrent, concurrent)  # whatever is made once is there
    before = calm(daemon)
    print(f"before: {before}")
    for part in range(10):
        rate = storms(daemon, "c1", count // 10, concurrent)
        print(f"{(part + 1) * (count // 10):>7} commands, {rate:.0f}/s, {holdings(daemon).memory / MEBIBYTE:.1f} MiB")
    print(f"after:  {settled(daemon, before)}")


def main(count: int, concurrent: int) -> None:
    """A daemon, an instance, and the storm."""
    with tempfile.TemporaryDirectory(prefix="atoll-commands-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        daemon = Daemon(folder)
        try:
            daemon.start()
            daemon.run("atolld", "init", "--auto")
            daemon.run("atoll", "image", "build", "busybox", "--alias", "tiny")
            daemon.run("atoll", "launch", "tiny", "c1")
            measure(daemon, count, concurrent)
        finally:
            daemon.close()


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(numbers[0] if numbers else 10_000, numbers[1] if len(numbers) > 1 else 50)
