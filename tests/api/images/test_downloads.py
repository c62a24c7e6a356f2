"""One download for all who want an image at the same time, and what breaks one on its way."""

from __future__ import annotations

import asyncio
import hashlib
import random
from io import FileIO
from typing import Any

import pytest
from mirror import Mirror, body, pull

from atoll.domain.caller import DAEMON
from atoll.host import download
from atoll.services.images.sources import Source
from atoll.services.operations import Operation, OperationSpec

pytestmark = pytest.mark.usefixtures("quick")


async def begin(world: Any, mirror: Mirror, *, project: str = "default", **fields: Any) -> Operation:
    """A pull that has been asked for, and goes on."""
    answer = await world.call("POST", f"/1.0/images?project={project}", body(mirror, **fields))
    content = await answer.json()
    assert answer.status == 202, content
    found: Operation = world.operations.find(content["metadata"]["id"])
    return found


async def ends(operation: Operation) -> str:
    """Its error, once it ended."""
    assert await operation.wait(30)
    return operation.error


async def join(*running: Operation) -> None:
    """Wait until all of them are seen to take part in a download."""
    async with asyncio.timeout(30):
        while not all("download_progress" in each.metadata for each in running):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


async def use(world: Any, mirror: Mirror) -> Operation:
    """An instance's wish for the image."""
    source = Source(mirror.address, "simplestreams", alias="tiny/1/default", certificate=mirror.certificate)

    async def work(operation: Operation) -> None:
        await world.puller.for_instance("default", source, operation, caller=DAEMON)

    started: Operation = world.operations.start(OperationSpec("use", work, caller=DAEMON))
    return started


@pytest.fixture
async def settled(world: Any) -> None:
    await world.local_settings()
    async with world.database.write() as tx:
        await tx.insert("INSERT INTO projects (name, description) VALUES ('other', '')")
        await tx.insert(
            "INSERT INTO projects_config (project_id, key, value) SELECT id, 'features.images', 'true' FROM projects"
            " WHERE name = 'other'"
        )


@pytest.mark.usefixtures("settled")
async def test_many_at_the_same_time_download_once(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    fingerprint = mirror.offer("tiny/1", meta, rootfs)
    mirror.stuck = "squashfs"
    running = [await begin(world, mirror, alias=alias) for alias in ("tiny/1", "tiny/1/default", "tiny/1/amd64")]
    running += [await begin(world, mirror, project="other", alias="tiny/1"), await use(world, mirror)]
    await join(*running)
    mirror.free()
    assert [await ends(each) for each in running] == [""] * 5
    assert mirror.asked("squashfs") == 1
    assert world.files() == [fingerprint, f"{fingerprint}.rootfs"]
    assert len(await world.get("/1.0/images?project=other")) == 1


async def test_who_is_cancelled_leaves_the_download_to_the_others(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    mirror.stuck = "squashfs"
    first, second = [await begin(world, mirror, alias=alias) for alias in ("tiny/1", "tiny/1/default")]
    await join(first, second)
    world.operations.cancel(first)
    error = await ends(first)
    mirror.free()
    assert (error, await ends(second)) == ("Operation was cancelled", "")
    assert mirror.asked("squashfs") == 1


async def test_the_last_who_is_cancelled_ends_it(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    mirror.stuck = "squashfs"
    running = [await begin(world, mirror, alias="tiny/1") for _ in range(2)]
    await mirror.until_asked("squashfs")
    for each in running:
        world.operations.cancel(each)
        await ends(each)
    assert world.files() == []
    mirror.free()
    assert (await pull(world, mirror, alias="tiny/1"))["err"] == ""


async def test_a_failure_is_told_to_all(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    path = next(path for path in mirror.files if path.endswith("squashfs"))
    mirror.files[path] = bytes(len(rootfs))
    mirror.stuck = "squashfs"
    running = [await begin(world, mirror, alias="tiny/1") for _ in range(3)]
    await join(*running)
    mirror.free()
    errors = [await ends(each) for each in running]
    assert all("hash" in error for error in errors)
    assert (mirror.asked("squashfs"), world.files()) == (1, [])


@pytest.mark.usefixtures("settled")
async def test_what_one_does_with_it_is_nothing_to_the_others(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    answers = [
        await world.call("POST", f"/1.0/images?project={project}", {**body(mirror, alias="tiny/1"), "profiles": [profile]})
        for project, profile in (("default", "absent"), ("other", "default"))
    ]
    ended = [await world.ended(answer) for answer in answers]
    assert ("absent" in ended[0]["err"], ended[1]["err"]) == (True, "")


async def test_a_file_that_changed_meanwhile_comes_whole(world: Any, mirror: Mirror, make_image: Any) -> None:
    """The address is what counts there: the new file is the announced one, the beginning was of the old one."""
    new = make_image(serial="2")
    mirror.heads["/here"] = {
        "LXD-Image-URL": f"{mirror.address}/file", "LXD-Image-Hash": hashlib.sha256(new).hexdigest()
    }  # fmt: skip
    mirror.files["/file"] = make_image(serial="1")
    mirror.broken["/file"] = 50
    mirror.later["/file"] = new
    ended = await pull(world, mirror, protocol="direct", server=f"{mirror.address}/here")
    assert (ended["err"], mirror.asked("/file")) == ("", 2)


async def test_a_single_file_goes_on_where_it_broke(world: Any, mirror: Mirror, make_image: Any) -> None:
    data = make_image(serial=random.Random(0).randbytes(1_000_000))
    mirror.heads["/here"] = {
        "LXD-Image-URL": f"{mirror.address}/file", "LXD-Image-Hash": hashlib.sha256(data).hexdigest()
    }  # fmt: skip
    mirror.files["/file"] = data
    mirror.broken["/file"] = 700_000
    ended = await pull(world, mirror, protocol="direct", server=f"{mirror.address}/here")
    assert (ended["err"], mirror.asked("/file"), len(mirror.ranges)) == ("", 2, 1)


async def test_a_full_disk_leaves_nothing(
    world: Any, mirror: Mirror, meta: bytes, rootfs: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    monkeypatch.setattr(download, "_open", lambda path, present: FileIO("/dev/full", "w"))
    assert (await pull(world, mirror, alias="tiny/1"))["err"] == "Cannot store the image: No space left on device"
    assert (mirror.asked("lxd.tar"), world.files()) == (1, [])
    monkeypatch.undo()


async def test_a_kill_in_the_middle_is_repaired(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    """What the daemon does at its start finds exactly the folder that a download under way has."""
    mirror.offer("tiny/1", meta, rootfs)
    mirror.stuck = "squashfs"
    running = await begin(world, mirror, alias="tiny/1")
    await mirror.until_asked("squashfs")
    assert len(world.files()) == 1
    assert len(await world.images.repair()) == 1
    assert world.files() == []
    world.operations.cancel(running)
    await ends(running)


async def test_progress_is_shown_to_all(world: Any, mirror: Mirror, meta: bytes, rootfs: bytes) -> None:
    mirror.offer("tiny/1", meta, rootfs)
    mirror.stuck = "squashfs"
    running = [await begin(world, mirror, alias="tiny/1") for _ in range(2)]
    await join(*running)
    mirror.free()
    assert [await ends(each) for each in running] == ["", ""]
    assert all(each.metadata["download_progress"].startswith("rootfs: ") for each in running)
