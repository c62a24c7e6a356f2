"""The console of a machine and the log of it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict
from atoll.drivers.instance.conformance.rig import SECONDS, Rig, calm, read_until, settled, started
from atoll.drivers.instance.contract import Console, MachineId
from atoll.host.threads import in_thread


class Consoles:
    """Part of the suite: one method per promise of the contract."""

    async def test_a_console_shows_what_is_typed(self, rig: Rig) -> None:
        """It echoes, as terminals do; it is one's at a time, and the next one's when it was let go of."""
        machine = await started(rig)
        for _ in range(2):
            console = await self._free(rig, machine)
            try:
                await console.resize(width=100, height=40)
                with pytest.raises(Conflict):
                    await rig.driver.open_console(machine)
                os.write(console.fd, b"hello\r")
                assert b"hello" in await in_thread(read_until, console.fd, b"hello")
            finally:
                console.close()
                console.close()

    async def test_a_console_ends_with_its_machine(self, rig: Rig) -> None:
        """Reading fails then; and nothing of it is left."""
        machine = await started(rig, "c0")
        await rig.driver.stop(machine, timeout=None)
        before = await calm(rig)
        machine = await started(rig, "c0")
        console = await rig.driver.open_console(machine)
        await rig.driver.stop(machine, timeout=None)
        with pytest.raises(OSError):
            await in_thread(read_until, console.fd, b"never")
        console.close()
        await settled(rig, before)

    async def test_the_log_of_a_console(self, rig: Rig) -> None:
        """It holds what was shown, also when the machine has stopped, until it is cleared or started again."""
        launch = rig.launch("c1")
        await started(rig)
        console = await rig.driver.open_console(launch.id)
        os.write(console.fd, b"hello\r")
        shown = await in_thread(read_until, console.fd, b"hello")
        console.close()
        kept = await self._logged(rig, launch.log_dir)
        assert shown.startswith(kept[:4]), (kept, shown)
        await rig.driver.stop(launch.id, timeout=None)
        assert await rig.driver.console_log(launch.log_dir)
        await rig.driver.clear_console_log(launch.log_dir)
        assert not await rig.driver.console_log(launch.log_dir)
        assert await rig.driver.console_log(rig.scratch / "nowhere") is None

    @staticmethod
    async def _free(rig: Rig, machine: MachineId) -> Console:
        """The console, as soon as it is seen from its other side that it was let go of."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return await rig.driver.open_console(machine)
            except Conflict:
                assert time.monotonic() < deadline, "it is not free"
                await asyncio.sleep(0.01)

    @staticmethod
    async def _logged(rig: Rig, log_dir: Path) -> bytes:
        """The log, as soon as there is something in it: text may be shown a moment before it is logged."""
        deadline = time.monotonic() + SECONDS
        while not (kept := (await rig.driver.console_log(log_dir) or b"").strip()):
            assert time.monotonic() < deadline, "nothing is logged"
            await asyncio.sleep(0.01)
        return kept
