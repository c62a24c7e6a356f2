"""Commands in machines, and what they leave."""

from __future__ import annotations

import asyncio
import os
import signal

from atoll.drivers.instance.conformance.rig import SECONDS, Rig, calm, nothing, run, settled, spec, started
from atoll.drivers.instance.contract import MachineId

MEBIBYTE = 1 << 20


class Commands:
    """Part of the suite: one method per promise of the contract."""

    async def test_exit_statuses(self, rig: Rig) -> None:
        """As a shell would tell them."""
        machine = await started(rig)
        assert (await run(rig, machine, "true"))[0] == 0
        assert (await run(rig, machine, "false"))[0] == 1
        assert (await run(rig, machine, "sh", "-c", "exit 7"))[0] == 7
        assert (await run(rig, machine, "no-such-command"))[0] == 127
        assert (await run(rig, machine, "/no/such/command"))[0] == 127
        assert (await run(rig, machine, "/etc/passwd"))[0] == 126

    async def test_signals(self, rig: Rig) -> None:
        """128 and the signal's number."""
        machine = await started(rig)
        for number in (signal.SIGTERM, signal.SIGKILL):
            process = await rig.driver.exec(machine, spec(["sleep", "1000"], nothing()))
            await asyncio.sleep(0.05)
            process.signal(number)
            assert await asyncio.wait_for(process.wait(), SECONDS) == 128 + number
            process.signal(number)  # to what has ended: nothing

    async def test_knows_where_a_process_runs(self, rig: Rig) -> None:
        """Its own machine while it runs, none once it has ended; none for what runs outside."""
        machine, _ = await started(rig), await started(rig, "c2")
        process = await rig.driver.exec(machine, spec(["sleep", "1000"], nothing()))
        inside, outside = rig.hold(process.pid), rig.hold(os.getpid())
        try:
            found = await rig.driver.find_by_process(inside)
            assert found is not None and found.machine == machine
            assert await rig.driver.find_by_process(outside) is None
            process.signal(signal.SIGKILL)
            await asyncio.wait_for(process.wait(), SECONDS)
            assert await rig.driver.find_by_process(inside) is None
        finally:
            inside.close()
            outside.close()

    async def test_no_byte_is_lost(self, rig: Rig) -> None:
        """Ten mebibytes out; input comes back as it went in; errors have a stream of their own."""
        machine = await started(rig)
        code, out, err = await run(rig, machine, "head", "-c", str(10 * MEBIBYTE), "/dev/zero")
        assert (code, len(out), err) == (0, 10 * MEBIBYTE, b"")
        given = os.urandom(MEBIBYTE)
        assert await run(rig, machine, "cat", given=given) == (0, given, b"")
        assert (await run(rig, machine, "sh", "-c", "echo oh >&2"))[1:] == (b"", b"oh\n")

    async def test_environment_directory_user_group(self, rig: Rig) -> None:
        """Nothing but the given environment; a directory that does not exist falls back to /."""
        machine = await started(rig)
        path = {"PATH": "/bin:/usr/bin"}
        _, out, _ = await run(rig, machine, "env", environment={**path, "COLOUR": "blau grün"})
        found = set(out.decode().split("\n"))
        assert "COLOUR=blau grün" in found, out
        assert not {line for line in found if line.startswith(("SHLVL", "LXC_", "PYTHON", "INVOCATION"))}
        assert (await run(rig, machine, "pwd", cwd="/etc"))[1] == b"/etc\n"
        assert (await run(rig, machine, "pwd", cwd="/no/such/place"))[1] == b"/\n"
        assert (await run(rig, machine, "id", "-u", user=1000, group=1001))[1] == b"1000\n"
        assert (await run(rig, machine, "id", "-g", user=1000, group=1001))[1] == b"1001\n"

    async def test_large_arguments(self, rig: Rig) -> None:
        """An argument as large as the kernel takes one, and a few of them."""
        machine = await started(rig)
        words = ["x" * 100_000] * 3
        assert (await run(rig, machine, "echo", *words))[1] == " ".join(words).encode() + b"\n"

    async def test_terminal(self, rig: Rig) -> None:
        """A fresh pty of the machine's is the command's terminal."""
        machine = await started(rig)
        master, slave = await rig.driver.open_terminal(machine, user=0, group=0)
        assert not os.get_inheritable(master)
        assert not os.get_inheritable(slave)
        process = await rig.driver.exec(machine, spec(["test", "-t", "0"], (slave, slave, slave), terminal=True))
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0
        os.close(slave)
        os.close(master)

    async def test_many_commands_at_once(self, rig: Rig) -> None:
        """Fifty, each with its own status and output."""
        machine = await started(rig)
        commands = [run(rig, machine, "sh", "-c", f"echo {number}; exit {number}") for number in range(50)]
        results = await asyncio.gather(*commands)
        assert results == [(number, f"{number}\n".encode(), b"") for number in range(50)]

    async def test_commands_leave_nothing(self, rig: Rig) -> None:
        """After five hundred commands no descriptor, process or control group is left over."""
        machine = await started(rig)
        await asyncio.gather(*(run(rig, machine, "true") for _ in range(40)))  # threads and buffers are there
        nothing()
        before = await calm(rig)
        for _ in range(20):
            codes = await asyncio.gather(*(self._quiet(rig, machine) for _ in range(25)))
            assert set(codes) == {0}
        await settled(rig, before)

    async def _quiet(self, rig: Rig, machine: MachineId) -> int:
        process = await rig.driver.exec(machine, spec(["true"], nothing()))
        return await asyncio.wait_for(process.wait(), SECONDS)
