"""What the server does for its images by itself."""

from __future__ import annotations

import time
from typing import Any

import pytest

from atoll.domain.caller import DAEMON
from atoll.domain.entities import ImageSource
from atoll.domain.errors import NotFound
from atoll.services.images.upkeep import ImageUpkeep

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
    return ImageUpkeep(world.database, world.images, puller, world.operations, world.settings)  # type: ignore[arg-type]


async def change(world: Any, fingerprint: str, **columns: Any) -> None:
    async with world.database.write() as tx:
        for column, value in columns.items():
            await tx.execute(f"UPDATE images SET {column} = ? WHERE fingerprint = ?", value, fingerprint)


async def watch(world: Any, fingerprint: str) -> None:
    from atoll.db import images as rows

    async with world.database.write() as tx:
        image = await rows.find(tx, "default", fingerprint)
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
    assert await world.get("/1.0/images") == [f"/1.0/images/{used}", f"/1.0/images/{own}"]
    assert world.files() == sorted([used, own])


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
    assert puller.asked == [first, second]  # a server that is away keeps no other from being asked
    await upkeep.tick()
    assert len(puller.asked) == 2  # not before the interval is over


async def test_no_interval_no_updates(world: Any, upkeep: ImageUpkeep, puller: Puller, make_image: Any) -> None:
    await watch(world, await world.add(make_image()))
    await world.settings.patch({"images.auto_update_interval": "0"}, caller=DAEMON)
    await upkeep.tick()
    assert puller.asked == []
