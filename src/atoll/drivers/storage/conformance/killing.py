"""Each operation is killed at each of its steps, and the audit of the next daemon has to put things right.

A step is a call that changes the host: names, modes, mounts, programs. Dying at step N is simulated faithfully by letting the
first N-1 such calls through and failing all from the Nth on, so that no clean-up of the dying daemon has any effect either.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atoll.drivers.storage.conformance.common import C1, C2, C3, CUSTOM, IMAGE, MakeDriver, paths, tree
from atoll.drivers.storage.conformance.content import MAP, Node, change, fill_small
from atoll.drivers.storage.contract import Refreshing, StorageDriver, VolumeId, VolumeKind
from atoll.host import btrfs, process, project_quota, syscalls

IMAGE2 = VolumeId(VolumeKind.IMAGE, "default", "e" * 64)
S0, S1, S2 = C1.at("s0"), C1.at("s1"), C1.at("s2")
MOST_STEPS = 400

_NAME_CALLS = ["link", "mkdir", "mknod", "rename", "replace", "rmdir", "symlink", "unlink"]
_INODE_CALLS = ["chmod", "chown", "fchmod", "fchown", "fsync", "ftruncate", "removexattr", "setxattr", "utime"]
_KERNEL_CALLS = ["mount", "move_mount", "quotactl", "renameat2", "umount"]
_PROJECT_CALLS = ["assign", "assign_all"]
_SUBVOLUME_CALLS = ["create", "snapshot", "destroy", "set_readonly"]


class Killed(BaseException):
    """The simulated death; no `except Exception` holds it up."""


class Death:
    """Counts the changing calls while `armed`, and lets none through from number `at` on."""

    def __init__(self) -> None:
        self.armed = False
        self.at = 0
        self._count = 0
        self._lock = threading.Lock()

    def arm(self, at: int) -> None:
        """From now on the calls count."""
        self.armed, self.at, self._count = True, at, 0

    @property
    def happened(self) -> bool:
        """Whether a call was refused."""
        return self._count >= self.at

    def step(self) -> None:
        """A call that changes something is about to be made."""
        if self.armed:
            with self._lock:
                self._count += 1
                if self._count >= self.at:
                    raise Killed

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return function(*args, **kwargs)

        return counted


@dataclass(frozen=True, slots=True)
class Operation:
    """What is killed. Each of `subjects` may be absent afterwards, or whole: as it was, as another volume is, or as filled.

    All other volumes must be as they were. `prepare` runs before, unharmed."""

    run: Callable[[StorageDriver], Awaitable[object]]
    subjects: Sequence[VolumeId]
    prepare: Callable[[StorageDriver], Awaitable[object]] | None = None


async def fill_custom(data: Path) -> None:
    """The one file of a custom volume."""
    (data / "a").write_text("1")


async def _mounted(driver: StorageDriver) -> None:
    await driver.mount(C1, MAP)


async def _refresh(driver: StorageDriver) -> None:
    """Where the driver leaves it to the service there is nothing to kill."""
    if isinstance(driver, Refreshing):
        await driver.refresh(C1, C2, snapshots=["s0"])
    else:
        await driver.clone(IMAGE, C3)


OPERATIONS: dict[str, Operation] = {
    "create an image": Operation(lambda d: d.create(IMAGE2, fill_small), [IMAGE2]),
    "create an instance": Operation(lambda d: d.create(C3, fill_small), [C3]),
    "clone an image": Operation(lambda d: d.clone(IMAGE, C3), [C3]),
    "clone a snapshot": Operation(lambda d: d.clone(S0, C3), [C3]),
    "clone a stopped instance": Operation(lambda d: d.clone(C1, C3), [C3]),
    "clone a running instance": Operation(lambda d: d.clone(C1, C3), [C3], _mounted),
    "clone with snapshots": Operation(lambda d: d.clone(C1, C3, snapshots=["s0", "s1"]), [C3, C3.at("s0"), C3.at("s1")]),
    "refresh": Operation(_refresh, [C2, C2.at("s0"), C3]),
    "snapshot a stopped instance": Operation(lambda d: d.snapshot(S2), [S2]),
    "snapshot a running instance": Operation(lambda d: d.snapshot(S2), [S2], _mounted),
    "restore": Operation(lambda d: d.restore(S0), [C1]),
    "delete an instance": Operation(lambda d: d.delete(C2), [C2]),
    "delete a snapshot": Operation(lambda d: d.delete(S1), [S1]),
    "delete an image": Operation(lambda d: d.delete(IMAGE), [IMAGE]),
    "rename a snapshot": Operation(lambda d: d.rename(S0, S2), []),
    "rename an instance": Operation(lambda d: d.rename(C1, C3), []),
    "mount": Operation(lambda d: d.mount(C1, MAP), []),
    "unmount": Operation(lambda d: d.unmount(C1), [], _mounted),
    "create a custom volume": Operation(lambda d: d.create(CUSTOM.parent, fill_custom), [CUSTOM]),
    "snapshot a custom volume": Operation(
        lambda d: d.snapshot(CUSTOM.at("s0")), [CUSTOM.at("s0")], lambda d: d.create(CUSTOM, fill_custom)
    ),
}

PRESENT = (IMAGE, C1, S0, S1, C2)


class KillingConformance:
    """Subclass it in a driver's test module and give the fixture `make`, as for StorageConformance."""

    @pytest.fixture
    def death(self, monkeypatch: pytest.MonkeyPatch) -> Death:
        """Counts what the driver does to the host."""
        death = Death()
        for name in _NAME_CALLS + _INODE_CALLS:
            monkeypatch.setattr(os, name, death.wrap(getattr(os, name)))
        for name in _KERNEL_CALLS:
            monkeypatch.setattr(syscalls, name, death.wrap(getattr(syscalls, name)))
        for name in _PROJECT_CALLS:
            monkeypatch.setattr(project_quota, name, death.wrap(getattr(project_quota, name)))
        for name in _SUBVOLUME_CALLS:
            monkeypatch.setattr(btrfs, name, death.wrap(getattr(btrfs, name)))
        monkeypatch.setattr(process, "observer", lambda _argv: death.step())
        return death

    @pytest.fixture
    async def empty(self, make: MakeDriver) -> AsyncIterator[set[str]]:
        """What an empty pool is made of; the pool stays open for the test."""
        driver = make()
        await driver.create_pool()
        await driver.open()
        yield paths(driver.data(C1).parent.parent)
        await driver.delete_pool()

    @pytest.mark.parametrize("name", OPERATIONS)
    async def test_killed_at_each_step(self, make: MakeDriver, death: Death, empty: set[str], name: str) -> None:
        await self.kill_at_each_step(make, death, empty, name, OPERATIONS[name])

    async def kill_at_each_step(self, make: MakeDriver, death: Death, empty: set[str], name: str, operation: Operation) -> None:
        """For drivers with operations of their own, too."""
        for at in range(1, MOST_STEPS):
            driver = make()
            await driver.open()
            await self._build(driver, operation)
            old = await self._trees(driver, operation)
            killed = await self._run(driver, operation, death, at)
            survivor = make()
            await survivor.open()
            await self._check(survivor, operation, old, f"{name}, step {at}")
            await self._clear(survivor, empty, f"{name}, step {at}")
            if not killed:
                assert at > 1, "the operation has no step"
                return
        raise AssertionError(f"{name} has no end")

    async def _build(self, driver: StorageDriver, operation: Operation) -> None:
        await driver.create(IMAGE, fill_small)
        await driver.clone(IMAGE, C1)
        await driver.snapshot(S0)
        async with driver.open_rootfs(C1) as rootfs:
            change(rootfs, 1000)
        await driver.snapshot(S1)
        await driver.clone(S1, C2)
        if operation.prepare is not None:
            await operation.prepare(driver)

    async def _trees(self, driver: StorageDriver, operation: Operation) -> dict[VolumeId, dict[str, Node]]:
        running = operation.prepare is _mounted
        return {volume: await tree(driver, volume) for volume in PRESENT if not (running and volume == C1)}

    async def _run(self, driver: StorageDriver, operation: Operation, death: Death, at: int) -> bool:
        """Whether it was killed on the way."""
        death.arm(at)
        try:
            await operation.run(driver)
            await driver.close()
        except BaseException:  # what the refused call became on its way out
            if not death.happened:
                raise
            return True
        finally:
            death.armed = False
        return death.happened

    async def _check(self, driver: StorageDriver, operation: Operation, old: dict[VolumeId, dict[str, Node]], where: str) -> None:
        known = set(PRESENT) - set(operation.subjects)
        known |= {volume for volume in operation.subjects if driver.data(volume).is_dir()}
        if CUSTOM.parent not in known and driver.data(CUSTOM).is_dir():
            known.add(CUSTOM)
        await driver.audit(known)
        assert list(await driver.audit(known)) == [], where
        await driver.unmount(C1)
        for volume, before in old.items():
            if volume not in operation.subjects:
                assert await tree(driver, volume) == before, (where, volume)
        for volume in operation.subjects:
            if volume in known:
                found = await tree(driver, volume)
                assert found in (*old.values(), await self._fresh(driver, volume, old)), (where, volume)

    async def _fresh(self, driver: StorageDriver, volume: VolumeId, old: dict[VolumeId, dict[str, Node]]) -> dict[str, Node]:
        """What a volume that is filled by the operation looks like: as itself, if it has all the names of its kind."""
        found = await tree(driver, volume)
        names = {"a", "."} if volume.kind is VolumeKind.CUSTOM else old[IMAGE].keys()
        return found if found.keys() == names else {}

    async def _clear(self, driver: StorageDriver, empty: set[str], where: str) -> None:
        """Delete all; nothing may be left."""
        copied = [volume.at(name) for volume in (C2, C3) for name in ("s0", "s1")]
        for volume in (*copied, S0, S1, S2, CUSTOM.at("s0"), CUSTOM, C1, C2, C3, IMAGE, IMAGE2):
            await driver.delete(volume)
        await driver.close()
        await driver.open()
        survivors = {path for path in paths(driver.data(C1).parent.parent) if not path.startswith(".renames/")}
        assert survivors == empty, where
