"""What the server does for its images by itself."""

from __future__ import annotations

import time
from typing import Any

import pytest
from mirror import Mirror

from atoll.domain.caller import DAEMON
from atoll.domain.entities import ImageSource
from atoll.domain.errors import NotFound
from atoll.services.images.sources import Source
from atoll.services.images.upkeep import ImageUpkeep
from atoll.services.operations import OperationSpec

pytestmark = pytest.mark.usefixtures("quick")
DAY = 86400


class Puller:
    """Tells what it is asked to refresh."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def refresh(self, project: str, image: Any, operation: Any, *, caller: Any) -> bool:
        self.asked.append(image.fingerprint)
        raise NotFound("away")


@pytest.fixture
def puller() -> Puller:
    return Puller()


@pytest.fixture
async def upkeep(world: Any, puller: Puller) -> ImageUpkeep:
    await world.local_settings()
    return ImageUpkeep(
        world.database,
        world.images,
        puller,
        world.operations,
        world.settings,
        world.rules,  # type: ignore[arg-type]
    )


async def change(world: Any, fingerprint: str, **columns: Any) -> None:
    async with world.database.write() as tx:
        for column, value in columns.items():
            await tx.execute(f"UPDATE images SET {column} = ? WHERE fingerprint = ?", value, fingerprint)


async def watch(world: Any, fingerprint: str, *, project: str = "default") -> None:
    from atoll.db import images as rows

    async with world.database.write() as tx:
        image = await rows.find(tx, project, fingerprint)
        await rows.set_source(tx, image.id, ImageSource("https://127.0.0.1:1", "lxd", "", "tiny", "container"))
    await change(world, fingerprint, auto_update=1)


async def test_unused_cached_images_go(world: Any, upkeep: ImageUpkeep, make_image: Any) -> None:
    old, used, own, textual = [await world.add(make_image(serial=str(n))) for n in range(4)]
    past = int(time.time()) - 11 * DAY
    await change(world, old, cached=1, upload_date=past)
    await change(world, used, cached=1, upload_date=past, last_use_date=int(time.time()))
    await change(world, own, cached=0, upload_date=past, last_use_date=past)
    await change(world, textual, cached=1, last_use_date="2001-01-01 10:00:00+00:00")
    await upkeep.tick()
    assert await world.get("/1.0/images") == sorted([f"/1.0/images/{used}", f"/1.0/images/{own}"])
    assert world.files() == sorted([used, own])


async def test_cached_images_whose_own_time_is_over_go(world: Any, upkeep: ImageUpkeep, make_image: Any) -> None:
    over, whole, asked_for = [await world.add(make_image(serial=str(n))) for n in range(3)]
    await world.settings.patch({"images.remote_cache_expiry": "0"}, caller=DAEMON)
    now = int(time.time())
    for fingerprint, cached, expiry in ((over, 1, now - 60), (whole, 1, now + 3600), (asked_for, 0, now - 60)):
        await change(world, fingerprint, cached=cached, expiry_date=expiry, last_use_date=now)
    await upkeep.tick()
    assert world.files() == sorted([whole, asked_for])


async def test_a_shorter_expiry_takes_effect_at_once(world: Any, upkeep: ImageUpkeep, make_image: Any) -> None:
    fingerprint = await world.add(make_image())
    await change(world, fingerprint, cached=1, upload_date=int(time.time()) - 3 * DAY)
    await upkeep.tick()
    await world.settings.patch({"images.remote_cache_expiry": "0"}, caller=DAEMON)
    await upkeep.tick()
    assert await world.get("/1.0/images") == [f"/1.0/images/{fingerprint}"]
    await world.settings.patch({"images.remote_cache_expiry": "2"}, caller=DAEMON)
    await world.until(0)


async def test_watched_images_are_looked_after(world: Any, upkeep: ImageUpkeep, puller: Puller, make_image: Any) -> None:
    first, second, _ = [await world.add(make_image(serial=str(n))) for n in range(3)]
    for fingerprint in (first, second):
        await watch(world, fingerprint)
    await upkeep.tick()
    assert sorted(puller.asked) == sorted([first, second])  # a server that is away keeps no other from being asked
    await upkeep.tick()
    assert len(puller.asked) == 2  # not before the interval is over


async def test_no_interval_no_updates(world: Any, upkeep: ImageUpkeep, puller: Puller, make_image: Any) -> None:
    await watch(world, await world.add(make_image()))
    await world.settings.patch({"images.auto_update_interval": "0"}, caller=DAEMON)
    await upkeep.tick()
    assert puller.asked == []


async def configure(world: Any, project: str, **config: str) -> None:
    """A project that has images of its own, with those `images.*` keys."""
    await world.projects.create(project, "", {f"images.{key}": value for key, value in config.items()}, caller=DAEMON)


async def test_a_project_has_its_own_expiry(world: Any, upkeep: ImageUpkeep, make_image: Any) -> None:
    past = int(time.time()) - 5 * DAY
    for project, days in (("short", "2"), ("never", "0"), ("like", "")):
        await configure(world, project, **({"remote_cache_expiry": days} if days else {}))
        ended = await world.upload(make_image(serial=project), project=project)
        await change(world, ended["metadata"]["fingerprint"], cached=1, upload_date=past)
    await upkeep.tick()
    left = {project: len(await world.get(f"/1.0/images?project={project}")) for project in ("short", "never", "like")}
    assert left == {"short": 0, "never": 1, "like": 1}
    config = (await world.projects.find("like")).config
    await world.projects.update("like", "", {**config, "images.remote_cache_expiry": "3"}, caller=DAEMON)
    await upkeep.tick()
    assert await world.get("/1.0/images?project=like") == []


async def test_a_project_has_its_own_interval(world: Any, upkeep: ImageUpkeep, puller: Puller, make_image: Any) -> None:
    watched = {}
    for project, hours in (("often", "1"), ("never", "0")):
        await configure(world, project, auto_update_interval=hours)
        ended = await world.upload(make_image(serial=project), project=project)
        watched[project] = ended["metadata"]["fingerprint"]
        await watch(world, watched[project], project=project)
    await upkeep.tick()
    assert puller.asked == [watched["often"]]
    upkeep._updated["often"] -= 3601
    await upkeep.tick()
    assert puller.asked == [watched["often"]] * 2


async def test_what_a_project_says_of_cached_images(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    await world.local_settings()
    await configure(world, "still", auto_update_cached="false", default_architecture="aarch64")
    here, there = mirror.offer("tiny/1", meta, rootfs), mirror.offer("tiny/1", meta + b"\0" * 512, rootfs, arch="arm64")
    source = Source(mirror.address, "simplestreams", alias="tiny/1", certificate=mirror.certificate)
    operation = world.operations.start(OperationSpec("test"))
    for project, fingerprint, kept in (("default", here, True), ("still", there, False)):
        image = await world.puller.for_instance(project, source, operation, caller=DAEMON)
        assert (image.fingerprint, image.auto_update, image.cached) == (fingerprint, kept, True)
    await world.settings.patch({"images.auto_update_interval": "0"}, caller=DAEMON)
    newer = mirror.offer("tiny/1", meta + b"\0" * 1024, rootfs, version="20270101_05:24")
    image = await world.puller.for_instance("default", source, operation, caller=DAEMON)
    assert image.fingerprint == newer  # what is not kept up to date is no reason not to ask
