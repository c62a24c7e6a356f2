"""Commands and consoles of real containers: many at once, large streams, signals, clients that vanish, and what is left."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator

import audit
import commands
import pytest
from box import SECONDS, Daemon, wait_until
from commands import MEBIBYTE, Client, calm, settled, storms

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

LARGE = 24 * MEBIBYTE
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@pytest.fixture(scope="module")
def c1(daemon: Daemon) -> Iterator[Daemon]:
    """A container that runs commands."""
    daemon.run("atoll", "launch", "tiny", "c1", "--wait", "agent")
    yield daemon
    daemon.run("atoll", "delete", "--force", "c1")


def test_fifty_at_once_again_and_again_leave_nothing(c1: Daemon) -> None:
    storms(c1, "c1", 100, 50)
    before = calm(c1)
    storms(c1, "c1", 200, 50)
    settled(c1, before)


def test_exit_statuses_and_signals(c1: Daemon) -> None:
    async def run() -> None:
        async with Client(c1) as client:
            scripts = [f"exit {number}" for number in (0, 1, 125, 128, 255)] + ["kill -9 $$", "kill -TERM $$"]
            ended = await asyncio.gather(*(client.run("c1", "sh", "-c", script) for script in scripts))
            assert [status for status, _, _ in ended] == [0, 1, 125, 128, 255, 137, 143]
            for interactive in (False, True):
                for number in SIGNALS:
                    running = await client.start("c1", "sleep", "100", interactive=interactive)
                    await running.attach()
                    await running.control(command="signal", signal=number)
                    assert await running.status() == 128 + number

    asyncio.run(run())


def test_large_streams_come_whole(c1: Daemon) -> None:
    given = os.urandom(LARGE)
    digest = hashlib.md5(given).hexdigest().encode()

    async def run() -> None:
        async with Client(c1) as client:
            assert (await client.run("c1", "md5sum", given=given))[1].split()[0] == digest
            assert await client.run("c1", "cat", given=given) == (0, given, b"")
            count = str(LARGE)
            status, out, _ = await client.run("c1", "sh", "-c", f"stty raw; head -c {count} /dev/zero", interactive=True)
            assert (status, len(out), out.count(b"\0")) == (0, LARGE, LARGE)

    asyncio.run(run())


def test_the_window_of_a_terminal(c1: Daemon) -> None:
    async def run() -> None:
        async with Client(c1) as client:
            script = "stty size; trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done"
            running = await client.start("c1", "sh", "-c", script, interactive=True, width=100, height=30)
            sockets = await running.attach()
            shown = b""
            while b"ready" not in shown:
                shown += await sockets["0"].receive_bytes()
            await running.control(command="window-resize", args={"width": "80", "height": "25"})
            status, more, _ = await running.finish()
            assert (status, (shown + more).split()) == (3, [b"30", b"100", b"ready", b"25", b"80"])

    asyncio.run(run())


def count(daemon: Daemon, command: str) -> int:
    """How many processes in the box run a command, or a shell that runs it."""
    return sum(line.endswith(command) for line in daemon.run("ps", "-eo", "args=").splitlines())


def test_clients_that_vanish_take_their_commands_with_them(c1: Daemon) -> None:
    """With and without a control channel to tell by, with and without output on its way."""

    before = calm(c1)

    async def run() -> None:
        async with Client(c1) as mortal:
            held = []  # who forgets a websocket closes it
            for names in (["0", "1", "2"], ["0", "1", "2", "control"]):
                for command in (["sleep", "1000"], ["yes"]):
                    running = await mortal.start("c1", *command)
                    held.append(await running.attach(*names))
            for names in (["0"], ["0", "control"]):
                for script in ("sleep 1000", "yes"):
                    running = await mortal.start("c1", "sh", "-c", script, interactive=True)
                    held.append(await running.attach(*names))
            await asyncio.to_thread(wait_until, lambda: min(count(c1, each) for each in ("sleep 1000", "yes")) >= 4, "all run")

    asyncio.run(run())
    settled(c1, before)


def test_a_machine_that_is_killed_ends_its_commands(daemon: Daemon) -> None:
    daemon.run("atoll", "launch", "tiny", "c2", "--wait", "agent")
    before = calm(daemon)

    async def run() -> list[int]:
        async with Client(daemon) as client:
            script = "echo here; exec sleep 1000"
            started = [await client.start("c2", "sh", "-c", script, interactive=bool(number % 2)) for number in range(10)]
            for number, running in enumerate(started):
                sockets = await running.attach()
                assert (await sockets["0" if number % 2 else "1"].receive_bytes()).split() == [b"here"]
            await client.call("PUT", "/1.0/instances/c2/state", {"action": "stop", "force": True, "timeout": -1})
            return [await running.status() for running in started]

    assert set(asyncio.run(run())) == {137}
    daemon.run("atoll", "delete", "--force", "c2")
    settled(daemon, before)
    audit.check(daemon)


def test_a_daemon_that_ends_takes_its_commands_with_it(c1: Daemon) -> None:
    async def begin() -> None:
        client = Client(c1)
        for interactive in (False, True):
            await (await client.start("c1", "sleep", "4321", interactive=interactive)).attach()
        await client.call("POST", "/1.0/instances/c1/console", {})
        await asyncio.to_thread(c1.terminate)
        await client.__aexit__()

    asyncio.run(begin())
    wait_until(lambda: not count(c1, "sleep 4321"), "the commands have ended")
    c1.start()
    assert c1.inside("c1", "echo", "on") == "on"


def test_the_console(c1: Daemon) -> None:
    """Shared by our client and the other: what is typed is shown, and logged."""
    before = calm(c1)

    async def run() -> None:
        async with Client(c1) as client:
            for _ in range(3):
                content = await client.call("POST", "/1.0/instances/c1/console", {"width": 91, "height": 37})
                running = commands.Running(client, content["operation"], content["metadata"]["metadata"]["fds"])
                sockets = await running.attach("control", "0")
                await sockets["0"].send_bytes(b"typed\r")
                shown = b""
                while b"typed" not in shown:
                    shown += await sockets["0"].receive_bytes()
                await sockets["control"].close()
                await client.call("GET", f"{running.operation}/wait?timeout=10")

    asyncio.run(run())
    assert c1.inside("c1", "stty", "-F", "/dev/console", "size") == "37 91"
    c1.run("atoll", "exec", "c1", "--", "sh", "-c", "echo mark > /dev/console")
    for program in ("atoll", "lxc"):
        assert "mark" in c1.run(program, "console", "c1", "--show-log")
    settled(c1, before)


def test_the_log_of_a_console_is_bounded(c1: Daemon) -> None:
    c1.run("atoll", "exec", "c1", "--", "sh", "-c", "seq 100000 > /dev/console")
    shown = c1.run("atoll", "console", "c1", "--show-log")
    assert 100_000 < len(shown) <= 131_072 + 20  # less the carriage returns, which are not shown here
    assert "100000" in shown[-20:]


def test_waiting(daemon: Daemon) -> None:
    daemon.run("atoll", "init", "tiny", "c3")
    conditions = [word for each in ("running", "ipv4", "ipv6", "tcp=80", "agent") for word in ("--for", each)]
    command = daemon.box.enter([daemon.program("atoll"), "wait", "c3", *conditions, "--timeout", f"{SECONDS:g}"])
    waiting = subprocess.Popen(command, env=daemon.env())
    daemon.run("atoll", "start", "c3", "--wait", "exec=test -d /proc/1")
    daemon.run("atoll", "exec", "c3", "--", "sh", "-c", "nc -l -p 80 >/dev/null 2>&1 </dev/null &")
    assert waiting.wait(SECONDS) == 0
    late = daemon.try_("atoll", "wait", "c3", "--for", "tcp=81", "--timeout", "0.2")
    assert (late.returncode, late.stderr) == (1, "Error: Timed out waiting for tcp=81\n")
    daemon.run("atoll", "delete", "--force", "c3")
