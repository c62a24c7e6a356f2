"""Commands over websockets: real programs on this host in the place of a machine's, and sockets in memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from atoll.domain.caller import DAEMON
from atoll.domain.entities import Instance
from atoll.domain.errors import BadRequest, HostError
from atoll.domain.paths import Paths
from atoll.domain.status import OperationStatus
from atoll.drivers.instance.contract import ExecSpec
from atoll.services.events import EventHub
from atoll.services.instances import exec as module
from atoll.services.instances import exec_attended
from atoll.services.instances import sockets as sockets_module
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.exec import ExecService
from atoll.services.instances.exec_run import Command
from atoll.services.instances.expand import Expanded
from atoll.services.operations import Operation, OperationRegistry

SECONDS = 30


class Socket:
    """A websocket in memory: `sent` is what came out; `put` what the client says, None being its end. Gone: it left."""

    def __init__(self) -> None:
        self.sent: list[bytes | None] = []
        self.closed = self.gone = False
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._grown = asyncio.Event()

    def put(self, *data: bytes | None) -> None:
        for each in data:
            self._incoming.put_nowait(each)

    def leave(self) -> None:
        self.gone = True
        self.put(None)

    async def send(self, data: bytes) -> None:
        if self.gone:
            raise ConnectionResetError("gone")
        self.sent.append(data)
        self._grown.set()

    async def send_end(self) -> None:
        if self.gone:
            raise ConnectionResetError("gone")
        self.sent.append(None)

    async def receive(self) -> bytes | None:
        return None if self.gone and self._incoming.empty() else await self._incoming.get()

    async def close(self) -> None:
        self.closed = True

    async def shows(self, text: bytes) -> None:
        """Wait until that came out."""
        while text not in b"".join(data or b"" for data in self.sent):
            self._grown.clear()
            await self._grown.wait()

    @property
    def output(self) -> bytes:
        """All data; the barrier has to be the last thing."""
        assert self.sent[-1] is None and None not in self.sent[:-1]
        return b"".join(data for data in self.sent if data is not None)


class Process:
    """A program of this host."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self.signals: list[int] = []

    @property
    def pid(self) -> int:
        return self._child.pid

    async def wait(self) -> int:
        code = await self._child.wait()
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        self.signals.append(number)
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass


class Driver:
    """Runs commands here."""

    def __init__(self) -> None:
        self.specs: list[ExecSpec] = []
        self.processes: list[Process] = []
        self.terminals: list[int] = []

    async def exec(self, machine: object, spec: ExecSpec) -> Process:
        self.specs.append(spec)
        if spec.command[0] == "refused":
            raise HostError("refused")
        child = await asyncio.create_subprocess_exec(
            *spec.command, stdin=spec.stdin, stdout=spec.stdout, stderr=spec.stderr, start_new_session=True
        )
        self.processes.append(Process(child))
        return self.processes[-1]

    async def open_terminal(self, machine: object, *, user: int, group: int) -> tuple[int, int]:
        master, slave = os.openpty()
        self.terminals.append(master)
        return master, slave


class World:
    """An exec service with its surroundings."""

    def __init__(self, folder: Path, config: dict[str, str]) -> None:
        record = Instance(1, "default", "c1", "container", "x86_64", False, False, "", "", "", "", "none")
        loaded = Loaded(record, Expanded(config, {}))
        self.driver = Driver()
        self.paths = Paths(folder)
        self.paths.logs("c1").mkdir(parents=True)

        async def load(project: str, name: str) -> Loaded:
            return loaded

        core = SimpleNamespace(
            driver=self.driver, paths=self.paths, load=load, require_running=lambda _: None, tell=lambda *_, **__: None
        )
        self.registry = OperationRegistry(EventHub())
        self.service = ExecService(cast(InstanceCore, core), self.registry)

    async def start(self, *command: str, **more: Any) -> Operation:
        return await self.service.start("default", "c1", Command(command, **more), caller=DAEMON)

    async def piped(self, *command: str, **more: Any) -> tuple[Operation, dict[str, Socket]]:
        operation = await self.start(*command, websockets=True, **more)
        return operation, self.connect(operation)

    def connect(self, operation: Operation, names: Sequence[str] | None = None) -> dict[str, Socket]:
        assert operation.spec.connect is not None
        sockets = {name: Socket() for name in names or operation.spec.sockets}
        self.handlers = [asyncio.create_task(cast(Any, operation.spec.connect)(name, each)) for name, each in sockets.items()]
        return sockets

    async def result(self, operation: Operation) -> int:
        assert await operation.wait(SECONDS), "the operation does not end"
        assert operation.status is OperationStatus.SUCCESS, operation.error
        await asyncio.wait_for(asyncio.gather(*getattr(self, "handlers", [])), SECONDS)
        return int(operation.metadata["return"])


def descriptors() -> set[str]:
    """The pipes and terminals that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(("pipe:", "/dev/pt", "/tmp")):
            found.add(target)
    return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, {"environment.FROM": "config", "environment.LANG": "de_DE", "user.x": "y"})
    before = descriptors()
    yield made
    for process in made.driver.processes:
        process.signal(signal.SIGKILL)
    await made.registry.drain(0)
    assert descriptors() <= before, "descriptors were left open"


async def test_input_and_both_outputs(world: World) -> None:
    operation, sockets = await world.piped("sh", "-c", "cat; echo err >&2; exit 7")
    sockets["0"].put(b"one ", b"two", None)
    assert await world.result(operation) == 7
    assert (sockets["1"].output, sockets["2"].output) == (b"one two", b"err\n")
    assert all(socket.closed for socket in sockets.values())


async def test_what_was_written_before_the_client_came_is_there(world: World) -> None:
    operation = await world.start("sh", "-c", "echo early; exit 3", websockets=True)
    await asyncio.sleep(0.1)
    sockets = world.connect(operation)
    assert await world.result(operation) == 3
    assert sockets["1"].output == b"early\n"


async def test_a_control_socket_that_comes_after_the_end_is_not_refused(world: World) -> None:
    operation = await world.start("true", websockets=True)
    world.connect(operation, ["0", "1", "2"])
    assert await world.result(operation) == 0
    late = world.connect(operation, ["control"])
    assert await world.result(operation) == 0
    assert late["control"].closed


async def test_large_output_comes_whole(world: World) -> None:
    operation, sockets = await world.piped("head", "-c", str(5 << 20), "/dev/zero")
    assert await world.result(operation) == 0
    assert sockets["1"].output == bytes(5 << 20)


async def test_a_child_that_keeps_the_output_open_is_not_waited_for(world: World) -> None:
    operation, sockets = await world.piped("sh", "-c", "sleep 60 & echo done")
    assert await asyncio.wait_for(world.result(operation), SECONDS) == 0
    assert sockets["1"].output == b"done\n"


@pytest.mark.parametrize("gone", [("control",), ("0", "1", "2", "control")])
async def test_a_client_that_leaves_takes_its_command_with_it(world: World, gone: tuple[str, ...]) -> None:
    operation, sockets = await world.piped("sh", "-c", "while :; do echo y; sleep 0.01; done")
    await asyncio.sleep(0.05)
    for name in gone:
        sockets[name].leave()
    assert await world.result(operation) == 128 + signal.SIGKILL


async def test_a_command_that_does_not_read_ends_all_the_same(world: World) -> None:
    operation, sockets = await world.piped("sh", "-c", "exec <&-; sleep 0.1; exit 4")
    sockets["0"].put(*[bytes(1 << 16)] * 20, None)
    assert await world.result(operation) == 4


async def test_signals(world: World) -> None:
    operation, sockets = await world.piped("sleep", "60")
    for number in (9999, -1, "x", None, 1e400):
        sockets["control"].put(json.dumps({"command": "signal", "signal": number}).encode())
    for nonsense in (
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'"x"',
        b"{}",
        b"[" * 100_000,
        b'{"command":"window-resize","args":{"width":"1"}}',
    ):
        sockets["control"].put(nonsense)
    sockets["control"].put(json.dumps({"command": "signal", "signal": 15}).encode())
    assert await world.result(operation) == 128 + 15
    assert world.driver.processes[0].signals[0] == 15


async def test_a_client_that_does_not_come(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets_module, "CONNECT_SECONDS", 0.05)
    operation = await world.start("sleep", "60", websockets=True)
    sockets = world.connect(operation, ["0", "1", "control"])
    assert await operation.wait(SECONDS)
    assert (operation.status, operation.error) == (OperationStatus.FAILURE, "The client did not connect its websockets in time")
    await asyncio.gather(*world.handlers)
    assert all(socket.closed for socket in sockets.values())
    assert world.driver.processes[0].signals == [signal.SIGKILL]


@pytest.mark.parametrize("interactive", [False, True])
@pytest.mark.parametrize("connected", [False, True])
async def test_cancelling_kills_and_lets_go(world: World, until: Any, interactive: bool, connected: bool) -> None:
    operation = await world.start("sleep", "60", websockets=True, interactive=interactive)
    if connected:
        world.connect(operation)
    await until(lambda: world.driver.processes)
    world.registry.cancel(operation)
    assert await operation.wait(SECONDS)
    assert operation.status is OperationStatus.CANCELLED
    assert world.driver.processes[0].signals == [signal.SIGKILL]


async def test_a_descriptor_is_connected_once(world: World) -> None:
    operation, _ = await world.piped("sleep", "60")
    await asyncio.sleep(0)
    with pytest.raises(BadRequest):
        await cast(Any, operation.spec.connect)("0", Socket())


@pytest.mark.parametrize("more", [{"websockets": True}, {"websockets": True, "interactive": True}, {}, {"record": True}])
async def test_a_command_that_cannot_be_started(world: World, more: dict[str, bool]) -> None:
    operation = await world.start("refused", **more)
    assert await operation.wait(SECONDS)
    assert (operation.status, operation.error) == (OperationStatus.FAILURE, "refused")


async def test_a_terminal(world: World, until: Any) -> None:
    script = "stty size; read line; echo got $line; read line; stty size"
    operation, sockets = await world.piped("sh", "-c", script, interactive=True, width=100, height=30)
    assert set(sockets) == {"0", "control"}
    sockets["0"].put(b"hello\n")
    async with asyncio.timeout(SECONDS):
        await sockets["0"].shows(b"got hello")
    sockets["control"].put(b'{"command":"window-resize","args":{"width":"80","height":"25"}}')
    await until(lambda: os.get_terminal_size(world.driver.terminals[0]) == (80, 25))
    sockets["0"].put(b"\n")
    assert await world.result(operation) == 0
    assert world.driver.specs[0].terminal
    shown = sockets["0"].output
    assert b"30 100" in shown and b"got hello" in shown and b"25 80" in shown


async def test_a_terminal_whose_client_leaves_hangs_up(world: World) -> None:
    operation, sockets = await world.piped("sleep", "60", interactive=True)
    await asyncio.sleep(0.05)
    sockets["0"].leave()
    assert await world.result(operation) == 128 + signal.SIGHUP


async def test_a_terminal_whose_client_has_no_more_to_type_goes_on(world: World) -> None:
    operation, sockets = await world.piped("sh", "-c", "sleep 0.2; exit 5", interactive=True)
    sockets["0"].put(None)
    assert await world.result(operation) == 5


async def test_a_command_that_does_not_hang_up_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_attended, "HANG_UP_SECONDS", 0.05)
    operation, sockets = await world.piped("sh", "-c", "trap '' HUP; echo ready; sleep 60", interactive=True)
    async with asyncio.timeout(SECONDS):
        await sockets["0"].shows(b"ready")
    sockets["0"].leave()
    assert await world.result(operation) == 128 + signal.SIGKILL


@pytest.mark.parametrize("command", ["sleep 60", "yes"])
async def test_a_client_that_leaves_before_it_had_a_control_channel(world: World, until: Any, command: str) -> None:
    operation = await world.start(*command.split(), websockets=True)
    sockets = world.connect(operation, ["0", "1", "2"])
    await until(lambda: world.driver.processes)
    sockets["0"].put(None)
    await asyncio.sleep(0.05)
    assert not world.driver.processes[0].signals, "it has only ended the input"
    for socket in sockets.values():
        socket.leave()
    assert await world.result(operation) == 128 + signal.SIGKILL


async def test_unattended_and_recorded(world: World) -> None:
    assert await world.result(await world.start("sh", "-c", "echo x; exit 5")) == 5
    operation = await world.start("sh", "-c", "echo out; echo err >&2", record=True)
    assert await world.result(operation) == 0
    base = f"/1.0/instances/c1/logs/exec_{operation.id}"
    assert operation.metadata["output"] == {"1": f"{base}.stdout", "2": f"{base}.stderr"}
    files = {path.suffix: path.read_text() for path in world.paths.logs("c1").iterdir()}
    assert files == {".stdout": "out\n", ".stderr": "err\n"}


async def test_unattended_is_killed_when_it_is_cancelled(world: World, until: Any) -> None:
    operation = await world.start("sleep", "60")
    await until(lambda: world.driver.processes)
    world.registry.cancel(operation)
    assert await operation.wait(SECONDS)
    assert world.driver.processes[0].signals == [signal.SIGKILL]


async def test_the_environment(world: World) -> None:
    await world.result(await world.start("true", environment={"FROM": "client"}))
    await world.result(await world.start("true", user=1000, cwd="/srv"))
    root, other = world.driver.specs
    assert root.environment == {
        "FROM": "client",
        "LANG": "de_DE",
        "PATH": module._PATH,
        "HOME": "/root",
        "USER": "root",
    }
    assert root.cwd == "/root"
    assert "HOME" not in other.environment and other.cwd == "/srv"


@pytest.mark.parametrize(
    "command",
    [
        Command([]),
        Command([""]),
        Command(["a\0b"]),
        Command(["a"], environment={"A=B": "c"}),
        Command(["a"], environment={"": "c"}),
        Command(["a"], environment={"A": "\0"}),
        Command(["a"], cwd="\0"),
        Command(["a"], user=-1),
        Command(["a"], group=2**32 - 1),
        Command(["a"], record=True, websockets=True),
        Command(["a"], record=True, interactive=True),
    ],
)
async def test_malformed_commands(world: World, command: Command) -> None:
    with pytest.raises(BadRequest):
        await world.service.start("default", "c1", command, caller=DAEMON)
    assert world.registry.find_all() == []
