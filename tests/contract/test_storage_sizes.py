"""Sizes by project quotas: the drivers `dir` and `overlay` on file systems that have them.

On kernels without project quotas the tests count themselves, on xfs: then nothing is enforced, everything else is looked at.
`tests/kernels/boot` runs this file under another kernel.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import projects  # found through conftest's path
import pytest

from atoll.domain.errors import Unsupported
from atoll.drivers.storage import REGISTRY
from atoll.drivers.storage.conformance import KillingConformance, StorageConformance, killing
from atoll.drivers.storage.conformance.common import C1, C2, C3, COPY, CUSTOM, IMAGE, MakeDriver, tree, write
from atoll.drivers.storage.conformance.content import MAP, as_guest, fill_image
from atoll.drivers.storage.conformance.killing import Death, Operation
from atoll.drivers.storage.contract import Pool, StorageDriver, VolumeId
from atoll.drivers.storage.layer_streams import LayerStreams
from atoll.host import mount, project_quota, syscalls

pytestmark = pytest.mark.system

MIB = 1 << 20
CAP_SYS_RESOURCE = 24


SIMULATED = "simulated"
PLACES = projects.kinds() or (SIMULATED,)


@pytest.fixture(scope="module")
def counting(images: Path) -> Iterator[dict[str, Path]]:
    """By kind, file systems that the kernel counts on."""
    folder = images / "counting"
    folder.mkdir()
    found = {kind: projects.mount(kind, folder) for kind in projects.kinds()}
    yield {kind: path for kind, path in found.items() if path is not None}
    mount.unmount_below(folder)


@pytest.fixture
def place(
    request: pytest.FixtureRequest, counting: dict[str, Path], filesystems: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder on the file system that the test's parameter names."""
    if request.param != SIMULATED:
        return counting[request.param]
    if "xfs" not in filesystems:
        pytest.skip("no xfs here")
    simulated = projects.Counting(filesystems["xfs"])
    monkeypatch.setattr(syscalls, "quotactl", simulated.quotactl)
    if request.instance is not None:
        request.instance.limits = simulated.limits
    return filesystems["xfs"]


everywhere = pytest.mark.parametrize("place", PLACES, indirect=True)
each_driver = pytest.mark.parametrize("kind", ["dir", "overlay"])


@pytest.fixture
def make(place: Path, kind: str) -> MakeDriver:
    """Makes drivers for one new pool."""
    pool = Pool("p", place / secrets.token_hex(4) / "p")
    return lambda: REGISTRY.create(kind, pool)


def is_enforced(place: Path) -> bool:
    """Whether a write beyond a limit fails."""
    return "counting" in str(place)


def own_project(driver: StorageDriver, volume: VolumeId) -> int:
    """That of an instance's root, or a custom volume's data."""
    data = driver.data(volume)
    if volume.kind is CUSTOM.kind:
        return project_quota.project_of(data)
    if driver.name == "dir":
        return project_quota.project_of(data / "rootfs")
    upper = (data / "layers").read_text().split()[0]
    return project_quota.project_of(data.parent.parent / "layers" / upper / "fs")


def limit_of(driver: StorageDriver, volume: VolumeId) -> int | None:
    """The size that is set, by the file system's account."""
    return project_quota.limit_of(driver.data(IMAGE), own_project(driver, volume))


@contextmanager
def without_privilege() -> Iterator[None]:
    """This thread has no CAP_SYS_RESOURCE."""
    before = syscalls.capabilities()
    lowered = type(before).from_buffer_copy(before)
    lowered[0].effective &= ~(1 << CAP_SYS_RESOURCE)
    syscalls.set_capabilities(lowered)
    try:
        yield
    finally:
        syscalls.set_capabilities(before)


def write_until_refused(root: Path, _uid: int) -> None:
    """Write up to 40 MiB; OSError when it is too much. As a guest's root, this one has no capability on the host that counts."""
    with without_privilege(), open(root / "big", "wb") as file:
        for _ in range(40):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


async def fill(driver: StorageDriver, volume: VolumeId, place: Path) -> None:
    """A guest writes too much."""
    mounted = await driver.mount(volume, MAP)
    try:
        if is_enforced(place):
            with pytest.raises(OSError) as refused:
                await as_guest(mounted, MAP, write_until_refused)
            assert refused.value.errno == {"ext4": errno.EDQUOT, "xfs": errno.ENOSPC}[place.name]
        else:
            await as_guest(mounted, MAP, write_until_refused)
    finally:
        await driver.unmount(volume)


def test_the_kernel_counts() -> None:
    if PLACES == (SIMULATED,):
        pytest.skip("this kernel has no project quotas: sizes are counted by the tests, and nothing is enforced")


@everywhere
@each_driver
class TestConformance(StorageConformance):
    """All of the contract, with each tree counted."""


@everywhere
@each_driver
class TestSizes:
    @pytest.fixture
    async def driver(self, make: MakeDriver) -> AsyncIterator[StorageDriver]:
        """A pool with an image and an instance c1 of it."""
        driver = make()
        await driver.create_pool()
        await driver.open()
        assert driver.capabilities.quotas
        await driver.create(IMAGE, fill_image)
        await driver.clone(IMAGE, C1)
        yield driver
        await driver.unmount(C1)
        await driver.close()
        await driver.delete_pool()

    async def test_a_guest_cannot_write_more(self, driver: StorageDriver, place: Path) -> None:
        await driver.set_size(C1, 16 * MIB)
        await fill(driver, C1, place)
        used = (await driver.usage([C1]))[C1]
        assert 12 * MIB < used <= (16 * MIB if is_enforced(place) else 64 * MIB)
        await driver.set_size(C1, None)
        assert limit_of(driver, C1) is None
        mounted = await driver.mount(C1, MAP)
        await as_guest(mounted, MAP, write_until_refused)

    async def test_a_size_changes_while_the_guest_runs(self, driver: StorageDriver, place: Path) -> None:
        mounted = await driver.mount(C1, MAP)
        await driver.set_size(C1, 16 * MIB)
        if is_enforced(place):
            assert abs(os.statvfs(mounted.rootfs).f_blocks * os.statvfs(mounted.rootfs).f_frsize - 16 * MIB) < MIB
            with pytest.raises(OSError):
                await as_guest(mounted, MAP, write_until_refused)
        await driver.set_size(C1, 100 * MIB)
        await as_guest(mounted, MAP, write_until_refused)

    async def test_a_custom_volume(self, driver: StorageDriver, place: Path) -> None:
        await driver.create(CUSTOM, size=8 * MIB)
        assert limit_of(driver, CUSTOM) == 8 * MIB
        await driver.snapshot(CUSTOM.at("s0"))
        assert own_project(driver, CUSTOM.at("s0")) == project_quota.NONE
        await driver.clone(CUSTOM.at("s0"), COPY)
        assert limit_of(driver, COPY) is None and own_project(driver, COPY) not in (0, own_project(driver, CUSTOM))
        old = own_project(driver, CUSTOM)
        await driver.restore(CUSTOM.at("s0"))
        assert limit_of(driver, CUSTOM) == 8 * MIB and own_project(driver, CUSTOM) != old
        await driver.close()
        assert project_quota.limit_of(place, old) is None
        await fill(driver, CUSTOM, place)
        assert (await driver.usage([CUSTOM]))[CUSTOM] > 4 * MIB

    async def test_snapshots_copies_and_restores_keep_what_they_should(self, driver: StorageDriver) -> None:
        await driver.set_size(C1, 32 * MIB)
        await write(driver, C1, "etc/new", "new")
        await driver.snapshot(C1.at("s0"))
        assert limit_of(driver, C1) == 32 * MIB
        await driver.clone(C1.at("s0"), C2)
        await driver.clone(C1, C3)
        owners = {own_project(driver, volume) for volume in (C1, C2, C3)}
        assert len(owners) == 3 and not owners & {0}
        assert limit_of(driver, C2) is limit_of(driver, C3) is None
        await driver.restore(C1.at("s0"))
        assert limit_of(driver, C1) == 32 * MIB
        await driver.mount(C1, MAP)
        await driver.snapshot(C1.at("s1"))
        await driver.unmount(C1)
        if driver.name == "overlay":
            await driver.mount(C2, MAP)
            await driver.refresh(C2, C1)  # type: ignore[attr-defined]
            await driver.unmount(C2)
            assert limit_of(driver, C1) == 32 * MIB
        assert await tree(driver, C1.at("s1")) == await tree(driver, C2)

    async def test_what_was_there_before_is_counted_from_its_first_size_on(
        self, driver: StorageDriver, make: MakeDriver, monkeypatch: pytest.MonkeyPatch, place: Path
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(project_quota, "reason_against", lambda _folder: "not yet")
            before = make()
            await before.open()
            await before.clone(IMAGE, C2)
            with pytest.raises(Unsupported, match="not yet"):
                await before.set_size(C2, 16 * MIB)
            await before.set_size(C2, None)
            await write(before, C2, "etc/new", "new" * MIB)
        assert own_project(driver, C2) == 0
        mounted = await driver.mount(C2, MAP)
        await driver.set_size(C2, 16 * MIB)
        assert (await driver.usage([C2]))[C2] >= 3 * MIB
        await as_guest(mounted, MAP, lambda root, _uid: (root / "etc/new").rename(root / "var/new"))
        await driver.unmount(C2)
        await fill(driver, C2, place)
        await driver.delete(C2)

    async def test_a_deleted_volume_leaves_no_size(self, driver: StorageDriver, place: Path) -> None:
        await driver.create(CUSTOM, size=8 * MIB)
        await driver.set_size(C1, 8 * MIB)
        await driver.snapshot(C1.at("s0"))
        used = [own_project(driver, C1), own_project(driver, CUSTOM)]
        await driver.delete(CUSTOM)
        await driver.delete(C1.at("s0"))
        assert limit_of(driver, C1) == 8 * MIB
        await driver.delete(C1)
        await driver.close()
        assert [project_quota.limit_of(place, project) for project in used] == [None, None]

    async def test_a_pool_within_a_project_has_no_sizes(self, make: MakeDriver, driver: StorageDriver, place: Path) -> None:
        pool = driver.data(C1).parent.parent
        project_quota.assign(pool, 7)
        restarted = make()
        await restarted.open()
        assert not restarted.capabilities.quotas
        with pytest.raises(Unsupported, match="a quota of its own"):
            await restarted.set_size(C1, MIB)


@everywhere
@pytest.mark.parametrize("kind", ["overlay"])
async def test_what_arrives_by_layers_is_counted(make: MakeDriver, place: Path) -> None:
    driver = make()
    assert isinstance(driver, LayerStreams)
    await driver.create_pool()
    await driver.open()

    async def unpack(made: Path) -> None:
        (made / "file").write_bytes(os.urandom(3 * MIB))

    async def nothing_beside(_made: Path) -> None:
        return

    async with driver.arriving(C1) as coming:
        below = await coming.layer(unpack, (), upper=False)
        upper = await coming.layer(unpack, (), upper=True)
        await coming.state(C1.at("s0"), [below], nothing_beside)
        await coming.state(C1, [upper, below], nothing_beside)
    await driver.set_size(C1, 16 * MIB)
    assert project_quota.limit_of(place, own_project(driver, C1)) == 16 * MIB
    assert 3 * MIB <= (await driver.usage([C1]))[C1] < 6 * MIB
    await fill(driver, C1, place)
    await driver.delete(C1.at("s0"))
    await driver.delete(C1)
    await driver.delete_pool()


async def _sized(driver: StorageDriver) -> None:
    await driver.set_size(C1, 32 * MIB)
    await driver.set_size(C2, 32 * MIB)


OPERATIONS = {
    **{
        name: Operation(killing.OPERATIONS[name].run, killing.OPERATIONS[name].subjects, _sized)
        for name in ("restore", "delete an instance")
    },
    "refresh": killing.OPERATIONS["refresh"],
    "create a custom volume": Operation(lambda d: d.create(CUSTOM.parent, killing.fill_custom, size=MIB), [CUSTOM.parent]),
    "set a size": Operation(lambda d: d.set_size(C1, MIB), []),
}


KILLED = [
    *(("dir", name) for name in ("restore", "create a custom volume", "set a size")),
    *(("overlay", name) for name in ("restore", "refresh", "delete an instance", "set a size")),
]
"""What the drivers do each in a way of its own."""


@pytest.mark.parametrize("place", [SIMULATED], indirect=True)
class TestKilling(KillingConformance):
    """No size is left behind either."""

    limits: dict[int, int]

    async def _clear(self, driver: StorageDriver, empty: set[str], where: str) -> None:
        await super()._clear(driver, empty, where)
        assert self.limits == {}, where

    @pytest.mark.parametrize(("kind", "name"), KILLED)
    async def test_killed_at_each_step(self, make: MakeDriver, death: Death, empty: set[str], name: str) -> None:
        await self.kill_at_each_step(make, death, empty, name, OPERATIONS[name])
