"""Templates of an image, rendered into instances on real storage drivers."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.entities import Instance
from atoll.domain.errors import AtollError, BadRequest
from atoll.domain.idmap import IdMap
from atoll.drivers.storage import REGISTRY
from atoll.drivers.storage.contract import Pool, StorageDriver, VolumeId, VolumeKind
from atoll.services.instances import templates
from atoll.services.instances.core import Loaded
from atoll.services.instances.expand import Expanded

pytestmark = pytest.mark.system

MAP = IdMap.plain(1_000_000, 65536)
IMAGE = VolumeId(VolumeKind.IMAGE, "default", "f" * 64)
METADATA = """\
architecture: x86_64
creation_date: 1424284563
templates:
  /etc/hostname: {when: [create, copy], template: name.tpl}
  /var/lib/deep/every: {when: [start], template: every.tpl, properties: {default: none}}
  /etc/once: {when: [create, start], template: once.tpl, create_only: true}
"""
TEXTS = {
    "name.tpl": "{{ container.name }} {{ trigger }}\n",
    "every.tpl": '{{ config_get("user.x", properties.default) }} {{ instance.privileged }} {{ devices.root.path }} {{ path }}\n',
    "once.tpl": "{{ trigger }}\n",
}


@dataclass
class Guest:
    """An instance on a driver; `config` is its record's."""

    driver: StorageDriver
    loaded: Loaded

    async def start(self, **config: str) -> None:
        """What a start does until its root file system is mounted, with that configuration (`_` for `.` in names)."""
        named = {key.replace("_", ".", 1): value for key, value in config.items()}
        record = replace(self.loaded.record, config=named)
        await templates.apply(Loaded(record, Expanded(named, self.loaded.expanded.devices)), self.driver)

    async def read(self, name: str) -> str | None:
        """A file of it, or None if there is none."""
        async with self.driver.open_rootfs(self.loaded.volume) as rootfs:
            path = rootfs / name
            return path.read_text() if path.is_file() else None

    async def paths(self) -> set[str]:
        """All names in it."""
        async with self.driver.open_rootfs(self.loaded.volume) as rootfs:
            return {str(path.relative_to(rootfs)) for path in rootfs.rglob("*")}


@pytest.fixture(params=["dir", "overlay"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorageDriver]:
    """An open pool."""
    driver: StorageDriver = REGISTRY.create(request.param, Pool("p", tmp_path / secrets.token_hex(4) / "p"))
    if (reason := await driver.check(tmp_path)) is not None:
        pytest.skip(reason)
    await driver.create_pool()
    await driver.open()
    yield driver
    await driver.delete_pool()


async def make(driver: StorageDriver, *, metadata: str = METADATA, texts: dict[str, str] = TEXTS, rootfs: Any = None) -> Guest:
    """An instance c1 of an image with these templates; `rootfs` may fill the image's root file system."""

    async def fill(data: Path) -> None:
        (data / "rootfs/etc").mkdir(parents=True)
        if rootfs is not None:
            rootfs(data / "rootfs")
        (data / "metadata.yaml").write_text(metadata)
        if texts:
            (data / "templates").mkdir()
        for name, text in texts.items():
            (data / "templates" / name).write_text(text)

    await driver.create(IMAGE, fill)
    volume = VolumeId(VolumeKind.INSTANCE, "default", "c1")
    await driver.clone(IMAGE, volume)
    record = Instance(1, "default", "c1", "container", "x86_64", False, False, "", "", "", "", "none")
    return Guest(driver, Loaded(record, Expanded({}, {"root": {"type": "disk", "path": "/", "pool": "p"}})))


async def test_the_first_start_and_later_ones(driver: StorageDriver) -> None:
    guest = await make(driver)
    await guest.start(volatile_apply_template="create")
    assert await guest.read("etc/hostname") == "c1 create\n"
    assert await guest.read("etc/once") == "create\n"
    assert await guest.read("var/lib/deep/every") == "none false / /var/lib/deep/every\n"
    await guest.start(user_x="set", security_privileged="true")
    assert await guest.read("var/lib/deep/every") == "set true / /var/lib/deep/every\n"
    assert await guest.read("etc/once") == "create\n" and await guest.read("etc/hostname") == "c1 create\n"
    await guest.start(volatile_apply_template="copy")
    assert await guest.read("etc/hostname") == "c1 copy\n"


async def test_files_are_roots_in_the_guest_too(driver: StorageDriver) -> None:
    guest = await make(driver)
    await guest.start(volatile_apply_template="create")
    mounted = await driver.mount(guest.loaded.volume, MAP)
    try:
        owner = 1_000_000 if mounted.shifted else 0
        for name in ("etc/hostname", "var/lib/deep"):
            found = os.lstat(mounted.rootfs / name)
            assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (owner, owner, 0o755 if "deep" in name else 0o644)
    finally:
        await driver.unmount(guest.loaded.volume)


async def test_a_mount_that_a_kill_left_is_no_obstacle(driver: StorageDriver) -> None:
    guest = await make(driver)
    await driver.mount(guest.loaded.volume, MAP)
    await guest.start(volatile_apply_template="create")
    assert await guest.read("etc/hostname") == "c1 create\n"


async def test_an_image_without_templates_costs_no_mount(driver: StorageDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = await make(driver, texts={})
    monkeypatch.setattr(driver, "open_rootfs", None)
    await guest.start(volatile_apply_template="create")


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        ('{% include "/etc/shadow" %}', "'include' is not allowed"),
        ("{{ container.__class__ }}{{ trigger.__class__ }}", "no field"),
        ("{% for a in s %}" * 6 + "x" + "{% endfor %}" * 6 + "{{ 1/0 }}", "division by zero"),
    ],
)
async def test_a_hostile_template_fails_the_start_and_leaves_nothing(driver: StorageDriver, hostile: str, words: str) -> None:
    guest = await make(driver, texts={**TEXTS, "every.tpl": hostile})
    before = await guest.paths()
    with pytest.raises(AtollError, match=words) as raised:
        await guest.start(volatile_apply_template="create")
    assert "every.tpl" in str(raised.value)
    assert await guest.paths() == before


@pytest.mark.parametrize("trap", ["/etc", "/var", "/var/lib", "/var/lib/deep"])
async def test_links_of_the_guest_lead_nowhere_outside(driver: StorageDriver, tmp_path: Path, trap: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    def plant(rootfs: Path) -> None:
        (rootfs / "etc").rmdir()
        path = rootfs / trap.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(outside)

    guest = await make(driver, rootfs=plant)
    with pytest.raises(BadRequest):
        await guest.start(volatile_apply_template="create")
    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", ["metadata.yaml", "templates", "templates/every.tpl"])
async def test_links_in_the_volume_are_not_followed(driver: StorageDriver, tmp_path: Path, name: str) -> None:
    (tmp_path / "secrets").mkdir()
    for secret in ("every.tpl", "metadata.yaml"):
        (tmp_path / "secrets" / secret).write_text("a secret of the host")
    guest = await make(driver)
    planted = driver.data(guest.loaded.volume) / name
    planted.rename(tmp_path / "away")
    planted.symlink_to(tmp_path / "secrets" if name == "templates" else tmp_path / "secrets" / planted.name)
    before = await guest.paths()
    with pytest.raises(BadRequest) as raised:
        await guest.start(volatile_apply_template="create")
    assert "a secret" not in str(raised.value) and await guest.paths() == before
