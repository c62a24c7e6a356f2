"""New images: uploads of each kind, bad ones, publishing, building, copying; what a kill leaves."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp import BodyPartReader, FormData, MultipartReader

from atoll.domain.errors import HostError
from atoll.host import archive, process
from atoll.host.imagebuild import build
from atoll.services import intake
from atoll.services.images import receive


def split_form(meta: bytes, rootfs: bytes, *, second: str = "rootfs") -> FormData:
    form = FormData()
    form.add_field("metadata", meta, filename="meta.tar.gz", content_type="application/octet-stream")
    form.add_field(second, rootfs, filename="rootfs.bin", content_type="application/octet-stream")
    return form


async def test_unified_round_trip(world: Any, make_image: Any) -> None:
    data = make_image(compression="xz")
    fingerprint = hashlib.sha256(data).hexdigest()
    ended = await world.upload(data, filename="tiny.tar.xz", properties="release=two&note=a%20b", fingerprint=fingerprint)
    assert ended["metadata"] == {"fingerprint": fingerprint, "size": str(len(data))}
    assert world.events() == [("image-created", f"/1.0/images/{fingerprint}")]
    image = await world.get(f"/1.0/images/{fingerprint}")
    assert image["properties"] == {"os": "Tiny", "release": "two", "note": "a b"}
    assert image | {"properties": {}, "uploaded_at": ""} == {
        "auto_update": False,
        "properties": {},
        "public": False,
        "expires_at": "0001-01-01T00:00:00Z",
        "profiles": ["default"],
        "aliases": [],
        "architecture": "x86_64",
        "cached": False,
        "filename": "tiny.tar.xz",
        "fingerprint": fingerprint,
        "size": len(data),
        "type": "container",
        "created_at": "2023-11-14T22:13:20Z",
        "last_used_at": "0001-01-01T00:00:00Z",
        "uploaded_at": "",
    }
    answer = await world.client.get(f"/1.0/images/{fingerprint}/export")
    assert await answer.read() == data
    assert answer.headers["Content-Disposition"] == f"inline;filename={fingerprint}.tar.xz"
    assert int(answer.headers["Content-Length"]) == len(data)
    assert world.events() == [("image-retrieved", f"/1.0/images/{fingerprint}")]
    head = await world.client.head(f"/1.0/images/{fingerprint}/export")
    assert (head.status, head.headers["Content-Length"], world.events()) == (200, str(len(data)), [])
    assert world.files() == [fingerprint]
    assert (world.paths.images / fingerprint).stat().st_mode & 0o7777 == 0o600


async def test_split_round_trip(world: Any, make_tar: Any, make_image: Any) -> None:
    meta, rootfs = make_tar({"metadata.yaml": "architecture: x86_64\ncreation_date: 1\n"}), make_tar({"etc": None, "etc/x": "y"})
    ended = await world.upload(split_form(meta, rootfs))
    fingerprint = hashlib.sha256(meta + rootfs).hexdigest()
    assert (ended["err"], ended["metadata"]["fingerprint"]) == ("", fingerprint)
    assert world.files() == [fingerprint, f"{fingerprint}.rootfs"]
    assert (await world.get(f"/1.0/images/{fingerprint}"))["filename"] == "rootfs.bin"
    answer = await world.client.get(f"/1.0/images/{fingerprint}/export")
    assert answer.content_type == "multipart/form-data"
    length = int(answer.headers["Content-Length"])
    reader = MultipartReader.from_response(answer)
    found = []
    while (part := await reader.next()) is not None:
        assert isinstance(part, BodyPartReader)
        found.append((part.name, part.filename, bytes(await part.read())))
    assert found == [("metadata", f"meta-{fingerprint}.tar.gz", meta), ("rootfs", f"{fingerprint}.tar.gz", rootfs)]
    head = await world.client.head(f"/1.0/images/{fingerprint}/export")
    assert (head.status, int(head.headers["Content-Length"])) == (200, length)
    image = await world.images.find("default", fingerprint)
    target = world.paths.root / "unpacked"
    target.mkdir()
    await archive.unpack_image(*world.images.files.of(image), target)
    assert (target / "rootfs/etc/x").read_text() == "y"


async def test_squashfs(world: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "rootfs").mkdir(parents=True)
    (tree / "metadata.yaml").write_text("architecture: x86_64\ncreation_date: 1\n")
    await process.run(["mksquashfs", str(tree), str(tmp_path / "image"), "-quiet", "-no-progress"])
    data = (tmp_path / "image").read_bytes()
    fingerprint = await world.add(data)
    answer = await world.client.get(f"/1.0/images/{fingerprint}/export")
    assert await answer.read() == data
    assert answer.headers["Content-Disposition"].endswith(".squashfs")
    assert (await world.images.find("default", fingerprint)).format == "squashfs"


async def test_headers_of_uploads(world: Any, make_image: Any) -> None:
    fingerprint = await world.add(make_image(), public="true", aliases="alias=a/b&alias=c", profiles="profile=default")
    image = await world.get(f"/1.0/images/{fingerprint}")
    assert (image["public"], [alias["name"] for alias in image["aliases"]]) == (True, ["a/b", "c"])
    answer = await world.client.post("/1.0/images", data=b"x", headers={"X-LXD-aliases": "alias=c"})
    assert (answer.status, (await answer.json())["error"]) == (409, "Alias 'c' already exists")
    ended = await world.upload(make_image(serial="2"), profiles="profile=absent")
    assert ended["err"] == "Profile 'absent' doesn't exist"
    none = await world.add(make_image(serial="3"), profiles="")
    assert (await world.get(f"/1.0/images/{none}"))["profiles"] == []
    assert world.files() == sorted([fingerprint, none])


async def test_bad_images_leave_nothing(world: Any, make_tar: Any, make_image: Any) -> None:
    good = make_tar({"metadata.yaml": "architecture: x86_64\ncreation_date: 1\n", "rootfs": None})
    for data in (
        b"not an image",
        b"",
        make_tar({"rootfs": None}),
        make_tar({"metadata.yaml": "[", "rootfs": None}),
        make_tar({"metadata.yaml": "architecture: x86_64\ncreation_date: now\n"}),
        make_tar({"metadata.yaml": 'architecture: x86_64\ncreation_date: 1\nproperties: {"a\\nb": c}\n', "rootfs": None}),
        good[:20],
        b"QFI\xfb" + bytes(600),
    ):
        assert (await world.upload(data))["status_code"] == 400, data[:40]
    ended = await world.upload(good, fingerprint="ab" * 32)
    assert "fingerprints don't match" in ended["err"]
    assert (world.files(), await world.get("/1.0/images")) == ([], [])


async def test_bad_multipart_is_refused(world: Any, make_tar: Any) -> None:
    meta = make_tar({"metadata.yaml": "architecture: x86_64\ncreation_date: 1\n"})
    form = FormData()
    form.add_field("metadata", meta, filename="m", content_type="application/octet-stream")
    three = split_form(meta, meta)
    three.add_field("more", meta, filename="m", content_type="application/octet-stream")
    for data, status in (
        (form, 400),
        (three, 400),
        (split_form(meta, meta, second="../rootfs"), 400),
        (split_form(meta, meta, second="rootfs.img"), 501),
    ):
        answer = await world.client.post("/1.0/images", data=data)
        assert answer.status == status, await answer.text()
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        answer = await world.client.post("/1.0/images", data=b"--y\r\n\r\nz", headers={"Content-Type": content_type})
        assert answer.status == 400, await answer.text()
    assert world.files() == []


async def test_budget_and_full_disk(world: Any, make_image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "MAX_BYTES", 100)
    answer = await world.client.post("/1.0/images", data=make_image())
    assert answer.status == 413
    monkeypatch.setattr(receive, "MAX_BYTES", 1 << 30)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intake.Intake, "_write", full)
    answer = await world.client.post("/1.0/images", data=make_image())
    assert (answer.status, "No space left" in await answer.text()) == (500, True)
    assert world.files() == []


async def test_cut_off_uploads_leave_nothing(world: Any) -> None:
    host, port = world.client.host, world.client.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST /1.0/images HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
    await writer.drain()
    await world.until(1)
    writer.close()
    await world.until(0)
    await writer.wait_closed()
    assert reader.at_eof() or await reader.read() == b""


async def test_silent_uploads_end(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "IDLE_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection(world.client.host, world.client.port)
    writer.write(b"POST /1.0/images HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
    async with asyncio.timeout(30):
        assert b" 500 " in await reader.readline()
    writer.close()
    assert world.files() == []


async def test_repair_after_a_kill(world: Any, make_image: Any) -> None:
    kept = await world.add(make_image())
    lost = "cd" * 32
    folder = world.paths.images
    (folder / ".upload-abc" / "tree" / "rootfs").mkdir(parents=True)
    (folder / ".upload-file").write_text("x")
    (folder / lost).write_text("x")
    (folder / f"{lost}.rootfs").write_text("x")
    (folder / "README").write_text("not ours")
    assert len(await world.images.repair()) == 4
    assert world.files() == sorted([kept, "README"])
    assert await world.images.repair() == []


async def test_same_image_twice(world: Any, make_image: Any) -> None:
    data = make_image()
    fingerprint = await world.add(data)
    assert (await world.upload(data))["err"] == "Image with same fingerprint already exists"
    assert world.files() == [fingerprint]
    both = await asyncio.gather(*(world.upload(make_image(serial="2")) for _ in range(4)))
    assert sorted(ended["err"] for ended in both) == ["", *["Image with same fingerprint already exists"] * 3]


async def test_a_failed_row_takes_the_files_along(world: Any, make_image: Any) -> None:
    ended = await world.upload(make_image(), profiles="profile=absent")
    assert ended["err"]
    assert world.files() == []


async def test_same_bytes_cut_in_two_are_no_other_image(world: Any, make_tar: Any) -> None:
    await world.projects.create("p1", "", {}, caller=world.caller)
    meta, rootfs = make_tar({"metadata.yaml": "architecture: x86_64\ncreation_date: 1\n"}), make_tar({"etc": None})
    split = await world.upload(split_form(meta, rootfs))
    assert split["err"] == ""
    assert "another format" in (await world.upload(meta + rootfs, project="p1"))["err"]


async def test_publish(world: Any) -> None:
    source = {"type": "instance", "name": "c1"}
    ended = await world.ended(await world.call("POST", "/1.0/images", {"source": source, "aliases": [{"name": "pub"}]}))
    assert (ended["err"], ended["resources"]) == ("", {"instances": ["/1.0/instances/c1"]})
    image = await world.get(f"/1.0/images/{ended['metadata']['fingerprint']}")
    assert (image["properties"], image["aliases"]) == (
        {"os": "Tiny", "release": "one"},
        [{"name": "pub", "description": ""}],
    )
    for algorithm, suffix in (("zstd", ".tar.zst"), ("none", ".tar"), ("squashfs", ".squashfs")):
        body = {
            "source": {"type": "snapshot", "name": "c1/snap0"},
            "properties": {"k": algorithm},
            "compression_algorithm": algorithm,
            "expires_at": "2030-01-01T00:00:00.123456789+01:00",
        }
        ended = await world.ended(await world.call("POST", "/1.0/images", body))
        assert ended["err"] == ""
        fingerprint = ended["metadata"]["fingerprint"]
        image = await world.get(f"/1.0/images/{fingerprint}")
        assert (image["properties"], image["expires_at"]) == ({"k": algorithm}, "2029-12-31T23:00:00Z")
        answer = await world.client.head(f"/1.0/images/{fingerprint}/export")
        assert answer.headers["Content-Disposition"].endswith(f"{fingerprint}{suffix}")
    bad = await world.call("POST", "/1.0/images", {"source": source, "compression_algorithm": "sh -c id"})
    assert bad.status == 400


@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox")
async def test_build(world: Any) -> None:
    order = {"type": "build", "distribution": "busybox", "packages": None}
    ended = await world.ended(await world.call("POST", "/1.0/images", {"source": order, "aliases": [{"name": "bb"}]}))
    assert (ended["err"], ended["description"]) == ("", "Building image")
    image = await world.get("/1.0/images?recursion=1&filter=properties.os eq busybox")
    assert [each["fingerprint"] for each in image] == [ended["metadata"]["fingerprint"]]
    assert world.files() == [ended["metadata"]["fingerprint"]]
    up = {"distribution": "debian", "release": "../.."}
    for wrong in ({"distribution": "beos"}, up, {"variant": "x"}, {"variant": "cloud"}):
        assert (await world.call("POST", "/1.0/images", {"source": order | wrong})).status == 400


async def test_only_administrators_choose_packages(world: Any, restricted: Any) -> None:
    await world.projects.create("p1", "", {}, caller=world.caller)
    world.caller = restricted
    order = {"type": "build", "distribution": "debian", "release": "12", "packages": ["apparmor"]}
    assert (await world.call("POST", "/1.0/images?project=p1", {"source": order})).status == 403


async def test_a_cancelled_build_leaves_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleeper(how: object, tree: Path, output: Path, **_: object) -> None:
        (tree / "rootfs").mkdir()
        await process.run(["sleep", "60"])

    monkeypatch.setattr(build, "build", sleeper)
    answer = await world.call("POST", "/1.0/images", {"source": {"type": "build", "distribution": "busybox"}})
    operation = world.operations.find((await answer.json())["metadata"]["id"])
    await world.until(1)
    world.operations.cancel(operation)
    assert await operation.wait(10)
    assert (operation.status.value, world.files()) == ("Cancelled", [])


async def test_failed_build_is_a_failed_operation(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: object, **__: object) -> None:
        raise HostError("mmdebstrap failed")

    monkeypatch.setattr(build, "build", failing)
    answer = await world.call("POST", "/1.0/images", {"source": {"type": "build", "distribution": "debian", "release": "12"}})
    assert (await world.ended(answer))["err"] == "mmdebstrap failed"
    assert world.files() == []


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ({}, 400),
        (None, 400),
        ({"type": ""}, 400),
        ({"type": "image"}, 400),
        ({"type": "image", "alias": "x", "server": "http://127.0.0.1:1"}, 400),
        ({"type": "image", "alias": "x", "mode": "push"}, 404),
        ({"type": "url", "url": "http://127.0.0.1:1/"}, 400),
        ({"type": "virtual-machine", "name": "x"}, 501),
        ({"type": "instance", "name": "../x"}, 400),
        ({"type": "snapshot", "name": "c1"}, 400),
        ({"type": "image", "alias": "absent"}, 404),
    ],
)
async def test_sources_that_cannot_be(world: Any, source: Any, status: int) -> None:
    assert (await world.call("POST", "/1.0/images", {"source": source})).status == status
    assert world.files() == []
