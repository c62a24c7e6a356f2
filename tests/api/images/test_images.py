"""Looking at, changing, sharing and deleting images; aliases; who sees what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atoll.db import profiles as profile_rows
from atoll.db import storage as storage_rows
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.errors import AtollError, TooLarge
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.host.archive_tar import Budget
from atoll.services import budgets


async def test_lists_and_filters(world: Any, make_image: Any) -> None:
    first = await world.add(make_image())
    second = await world.add(make_image(serial="2"), properties="os=Other")
    assert await world.get("/1.0/images") == sorted([f"/1.0/images/{first}", f"/1.0/images/{second}"])
    listed = await world.get("/1.0/images?recursion=1&filter=properties.os eq other")
    assert [image["fingerprint"] for image in listed] == [second]
    assert await world.get("/1.0/images?filter=properties.os eq Tiny") == [f"/1.0/images/{first}"]
    assert (await world.client.get("/1.0/images?filter=os")).status == 400


async def test_find_by_prefix(world: Any, make_image: Any) -> None:
    fingerprint = await world.add(make_image())
    for prefix in (fingerprint, fingerprint[:12], fingerprint[:12].upper()):
        assert (await world.get(f"/1.0/images/{prefix}"))["fingerprint"] == fingerprint
    absent = await world.client.get(f"/1.0/images/{'0' * 64}")
    assert (absent.status, (await absent.json())["error"]) == (404, "Image not found")


async def test_put_patch_and_etag(world: Any, make_image: Any) -> None:
    url = f"/1.0/images/{await world.add(make_image())}"
    world.events()
    tag = (await world.client.get(url)).headers["ETag"]
    put = {"public": True, "properties": {"a": "b"}, "expires_at": "3000-01-01T00:00:00-00:00", "profiles": ["default"], "new": 1}
    assert (await world.call("PUT", url, put, headers={"If-Match": tag})).status == 200
    assert (await world.call("PUT", url, put, headers={"If-Match": tag})).status == 412
    image = await world.get(url)
    assert (image["public"], image["properties"], image["expires_at"]) == (True, {"a": "b"}, "3000-01-01T00:00:00Z")
    assert (await world.call("PATCH", url, {"properties": {"c": "d"}, "auto_update": True})).status == 200
    image = await world.get(url)
    assert (image["public"], image["auto_update"], image["properties"]) == (True, True, {"a": "b", "c": "d"})
    assert image["profiles"] == ["default"]
    assert (await world.call("PATCH", url, {"properties": {"c": ""}})).status == 200
    assert (await world.get(url))["properties"] == {"a": "b"}
    assert (await world.call("PUT", url, {"properties": {"e": "f"}})).status == 200
    assert (await world.get(url))["profiles"] == ["default"]  # as with LXD, which pylxd relies on
    assert (await world.call("PUT", url, {"properties": None, "profiles": []})).status == 200
    image = await world.get(url)
    assert (image["public"], image["properties"], image["profiles"]) == (False, {}, [])
    assert (await world.call("PUT", url, {"profiles": ["absent"]})).status == 400
    assert (await world.call("PATCH", url, {"expires_at": "soon"})).status == 400
    assert (await world.call("PATCH", url, {"properties": {"a\nb": "c"}})).status == 400
    assert world.events() == [("image-updated", url)] * 5


async def test_aliases(world: Any, make_image: Any) -> None:
    first, second = await world.add(make_image()), await world.add(make_image(serial="2"))
    world.events()
    base = "/1.0/images/aliases"
    answer = await world.call("POST", base, {"name": "tiny/one", "target": first[:12], "description": "d", "type": "container"})
    assert (answer.status, answer.headers["Location"]) == (201, f"{base}/tiny%2Fone")
    assert (await world.call("POST", base, {"name": "tiny/one", "target": first})).status == 409
    for wrong in ({"name": "x"}, {"target": first}):
        assert (await world.call("POST", base, wrong)).status == 400
    for absent in ("%", "0" * 64):
        assert (await world.call("POST", base, {"name": "x", "target": absent})).status == 404
    entry = {"description": "d", "target": first, "name": "tiny/one", "type": "container"}
    assert await world.get(base) == [f"{base}/tiny%2Fone"]
    assert await world.get(f"{base}?recursion=1") == [entry]
    url = f"{base}/tiny%2Fone"
    assert await world.get(url) == await world.get(f"{base}/tiny/one") == entry
    tag = (await world.client.get(url)).headers["ETag"]
    assert (await world.call("PUT", url, {"target": second, "description": None}, headers={"If-Match": tag})).status == 200
    assert (await world.call("PUT", url, {"target": second}, headers={"If-Match": tag})).status == 412
    assert (await world.call("PATCH", url, {"description": "e"})).status == 200
    assert await world.get(url) == {**entry, "target": second, "description": "e"}
    assert (await world.call("PUT", url, {"description": "e"})).status == 400
    assert (await world.call("POST", base, {"name": "taken", "target": first})).status == 201
    assert (await world.call("POST", url, {"name": "taken"})).status == 409
    answer = await world.call("POST", url, {"name": "export"})
    assert (answer.status, answer.headers["Location"]) == (201, f"{base}/export")
    assert (await world.get(f"{base}/export"))["target"] == second
    assert (await world.call("DELETE", f"{base}/export")).status == 200
    assert (await world.client.get(f"{base}/export")).status == 404
    assert (await world.call("DELETE", f"{base}/export")).status == 404
    assert world.events() == [
        ("image-alias-created", f"{base}/tiny%2Fone"),
        ("image-alias-updated", f"{base}/tiny%2Fone"),
        ("image-alias-updated", f"{base}/tiny%2Fone"),
        ("image-alias-created", f"{base}/taken"),
        ("image-alias-renamed", f"{base}/export"),
        ("image-alias-deleted", f"{base}/export"),
    ]


async def test_resolve(world: Any, make_image: Any) -> None:
    old = await world.add(make_image())
    later = make_image(metadata="architecture: x86_64\ncreation_date: 1800000000\nproperties: {os: Tiny}\n")
    new = await world.add(later, aliases="alias=a")
    resolve = world.images.resolve
    assert (await resolve("default", alias="a")).fingerprint == new
    assert (await resolve("default", fingerprint=old[:10])).fingerprint == old
    assert (await resolve("default", properties={"os": "Tiny"})).fingerprint == new
    assert (await resolve("default", properties={"release": "one"})).fingerprint == old
    for wanted, text in (
        ({"alias": "absent"}, "Image not found"),
        ({"fingerprint": "absent"}, "Image not found"),
        ({"properties": {"os": "absent"}}, "No matching image could be found"),
        ({}, "Must specify one of alias, fingerprint or properties for init from image"),
    ):
        with pytest.raises(AtollError, match=text):
            await resolve("default", **wanted)
    image = await resolve("default", alias="a")
    async with world.database.write() as tx:
        await world.images.touch(tx, image)
    assert (await world.get(f"/1.0/images/{new}"))["last_used_at"] > "2020"


async def test_projects_share_files(world: Any, make_image: Any) -> None:
    await world.projects.create("p1", "", {}, caller=DAEMON)
    await world.projects.create("borrower", "", {"features.images": "false"}, caller=DAEMON)
    data = make_image()
    fingerprint = await world.add(data, aliases="alias=a")
    url = f"/1.0/images/{fingerprint}"
    assert await world.get("/1.0/images?project=borrower") == [url]
    assert await world.get("/1.0/images?project=p1") == []
    assert (await world.upload(data, project="p1"))["err"] == ""
    assert await world.get("/1.0/images?project=p1") == [url]
    assert (await world.get(f"{url}?project=p1"))["aliases"] == []
    assert world.files() == [fingerprint]
    async with world.database.write() as tx:
        await storage_rows.create_pool(tx, "pool", "sim", "", {})
    await world.storage.start()
    image = await world.images.find("default", fingerprint)
    volume = await world.images.unpack(image, "pool")
    driver = world.storage.driver("pool")
    assert (driver.data(volume) / "rootfs/serial").read_text() == "1"
    assert (await world.ended(await world.call("DELETE", url)))["err"] == ""
    assert (world.files(), list(driver.sizes)) == ([fingerprint], [volume])
    assert (await world.client.get(url)).status == 404
    ended = await world.ended(await world.call("DELETE", f"{url}?project=p1"))
    assert (ended["err"], ended["description"]) == ("", "Deleting image")
    assert (world.files(), list(driver.sizes)) == ([], [])
    assert VolumeId(VolumeKind.IMAGE, "default", fingerprint) == volume
    assert [event for event in world.events() if event[0] == "image-deleted"] == [
        ("image-deleted", url),
        ("image-deleted", f"{url}?project=p1"),
    ]


async def test_copy_between_projects(world: Any, make_image: Any, restricted: Caller) -> None:
    await world.projects.create("p1", "", {}, caller=DAEMON)
    private = await world.add(make_image(), aliases="alias=private")
    public = await world.add(make_image(serial="2"), public="1", aliases="alias=public")
    source = {"type": "image", "project": "default"}
    body = {"source": source | {"alias": "private"}, "aliases": [{"name": "mine"}], "properties": {"k": "v"}}
    world.caller = restricted
    for wanted in ({"alias": "private"}, {"fingerprint": private}, {"fingerprint": private[:5]}, {"alias": "absent"}):
        answer = await world.call("POST", "/1.0/images?project=p1", {"source": source | wanted})
        assert (answer.status, (await answer.json())["error"]) == (404, "Image not found")
    for wanted in ({"alias": "public"},):
        ended = await world.ended(await world.call("POST", "/1.0/images?project=p1", {"source": source | wanted}))
        assert ended["metadata"]["fingerprint"] == public
    world.caller = DAEMON
    ended = await world.ended(await world.call("POST", "/1.0/images?project=p1", body))
    assert ended["metadata"]["fingerprint"] == private
    copy = await world.get(f"/1.0/images/{private}?project=p1")
    assert (copy["public"], copy["properties"]["k"], copy["aliases"][0]["name"]) == (False, "v", "mine")
    again = await world.ended(await world.call("POST", "/1.0/images?project=p1", {"source": source | {"alias": "private"}}))
    assert (again["err"], again["metadata"]["fingerprint"]) == ("", private), "it is there, as was asked for"
    assert (await world.get(f"/1.0/images/{private}?project=p1"))["properties"]["k"] == "v"


async def test_strangers_see_what_is_public(world: Any, make_image: Any, stranger: Caller) -> None:
    public = await world.add(make_image(), public="true", aliases="alias=open")
    private = await world.add(make_image(serial="2"), aliases="alias=closed")
    world.caller = stranger
    for recursion, key in ((0, lambda each: each), (1, lambda each: f"/1.0/images/{each['fingerprint']}")):
        listed = await world.get(f"/1.0/images?recursion={recursion}")
        assert [key(each) for each in listed] == [f"/1.0/images/{public}"]
    assert await world.get("/1.0/images/aliases") == ["/1.0/images/aliases/open"]
    assert (await world.get("/1.0/images/aliases/open"))["target"] == public
    assert (await world.get(f"/1.0/images/{public[:8]}"))["public"] is True
    assert (await world.client.get(f"/1.0/images/{public}/export")).status == 200
    probes = {}
    for name in (private, private[:6], "0" * 64, "a", "%25", f"{private}/export", f"{'0' * 64}/export"):
        answer = await world.client.get(f"/1.0/images/{name}")
        probes[name] = (answer.status, (await answer.json())["error"])
    assert probes.pop("a") in ((404, "Image not found"), (200, ""))
    assert set(probes.values()) == {(404, "Image not found")}
    probes = {}
    for path in ("images/aliases/closed", "images/aliases/absent", "images/aliases/open?project=absent"):
        answer = await world.client.get(f"/1.0/{path}")
        probes[path] = (answer.status, await answer.text())
    assert len(set(probes.values())) == 1
    assert await world.get("/1.0/images?project=absent") == []
    assert (await world.client.get(f"/1.0/images/{public}?project=absent")).status == 404
    for method, path in (
        ("POST", "/1.0/images"),
        ("PUT", f"/1.0/images/{public}"),
        ("DELETE", f"/1.0/images/{public}"),
        ("POST", f"/1.0/images/{public}/secret"),
        ("POST", f"/1.0/images/{public}/export"),
        ("POST", "/1.0/images/aliases"),
        ("DELETE", "/1.0/images/aliases/open"),
    ):
        assert (await world.call(method, path, {})).status == 403, (method, path)


async def test_who_borrows_images_may_not_change_them(world: Any, make_image: Any, restricted: Caller) -> None:
    await world.projects.create("borrower", "", {"features.images": "false"}, caller=DAEMON)
    fingerprint = await world.add(make_image(), aliases="alias=a")
    world.caller = restricted
    url = f"/1.0/images/{fingerprint}?project=borrower"
    assert (await world.get(url))["fingerprint"] == fingerprint
    for method, path, body in (
        ("PUT", url, {"public": True}),
        ("PATCH", url, {"public": True}),
        ("DELETE", url, None),
        ("DELETE", "/1.0/images/aliases/a?project=borrower", None),
        ("PUT", "/1.0/images/aliases/a?project=borrower", {"target": fingerprint}),
        ("POST", "/1.0/images/aliases?project=borrower", {"name": "b", "target": fingerprint}),
        ("POST", "/1.0/images?project=borrower", {"source": {"type": "build", "distribution": "busybox"}}),
    ):
        assert (await world.call(method, path, body)).status == 403, (method, path)
    assert (await world.client.post("/1.0/images?project=borrower", data=b"x")).status == 403
    assert await world.get("/1.0/images") == []
    assert (await world.client.get(f"/1.0/images/{fingerprint}")).status == 404


async def test_a_borrower_has_its_own_profiles_of_an_image(world: Any, make_image: Any) -> None:
    early = f"/1.0/images/{await world.add(make_image())}"
    await world.projects.create("borrower", "", {"features.images": "false"}, caller=DAEMON)
    await world.projects.create("alike", "", {"features.images": "false", "features.profiles": "false"}, caller=DAEMON)
    async with world.database.write() as tx:
        for project, name in (("borrower", "own"), ("default", "ours")):
            await profile_rows.create(tx, project, name, "", {}, {})
    late = f"/1.0/images/{await world.add(make_image(serial='2'), profiles='profile=ours')}"

    async def profiles(url: str) -> list[list[str]]:
        found = [(await world.get(f"{url}?project={project}"))["profiles"] for project in ("default", "alike", "borrower")]
        rows = await world.get("/1.0/images?project=borrower&recursion=1")
        assert found[2] in [row["profiles"] for row in rows if url.endswith(row["fingerprint"])]
        return found

    assert await profiles(early) == [["default"], ["default"], ["default"]]
    assert await profiles(late) == [["ours"], ["ours"], ["default"]]
    for body, status in (({"profiles": ["own"]}, 200), ({"profiles": ["ours"]}, 400)):
        assert (await world.call("PUT", f"{early}?project=borrower", body)).status == status
    assert await profiles(early) == [["default"], ["default"], ["own"]]
    assert (await world.images.resolve("borrower", fingerprint=early.rpartition("/")[2])).profiles == ("own",)
    assert (await world.call("PUT", early, {"profiles": []})).status == 200
    assert await profiles(early) == [[], [], ["own"]]
    assert (await world.call("PUT", f"{early}?project=borrower", {})).status == 200
    assert (await profiles(early))[2] == ["default"]


async def test_profiles_of_images_follow_the_features_of_a_project(world: Any, make_image: Any) -> None:
    fingerprint = await world.add(make_image())
    for images, profiles in (("true", "true"), ("false", "true"), ("false", "false"), ("false", "true"), ("true", "true")):
        config = {"features.images": images, "features.profiles": profiles}
        if "p" in {project.name for project in await world.projects.find_all()}:
            await world.projects.update("p", "", config, caller=DAEMON)
        else:
            await world.projects.create("p", "", config, caller=DAEMON)
        if images == "false":
            assert (await world.get(f"/1.0/images/{fingerprint}?project=p"))["profiles"] == ["default"]
    async with world.database.read() as tx:
        assert await tx.query("SELECT COUNT(*) FROM images_profiles") == [(1,)]


async def test_secret_opens_one_download(world: Any, make_image: Any, stranger: Caller) -> None:
    data = make_image()
    fingerprint = await world.add(data)
    url = f"/1.0/images/{fingerprint}"
    world.events()
    answer = await world.call("POST", f"{url}/secret")
    content = (await answer.json())["metadata"]
    secret = content["metadata"]["secret"]
    assert (answer.status, content["class"], content["resources"]) == (202, "token", {"images": [url]})
    assert secret not in str(world.operations.find(content["id"]).wire())
    assert world.events() == [("image-secret-created", url)]
    world.caller = stranger
    assert (await world.get(f"{url}?secret={secret}"))["fingerprint"] == fingerprint
    assert (await world.client.get(f"{url}?secret={secret[:-1]}x")).status == 404
    assert (await world.client.get(f"/1.0/images/{fingerprint[:12]}?secret={secret}")).status == 404
    assert (await world.client.head(f"{url}/export?secret={secret}")).status == 200
    answers = await asyncio.gather(*(world.client.get(f"{url}/export?secret={secret}") for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 404, 404, 404]
    assert data in [await answer.read() for answer in answers]
    assert (await world.client.get(f"{url}/export?secret={secret}")).status == 404
    assert (await world.client.get(f"{url}?secret=")).status == 404


async def test_refresh_push_and_lost_files(world: Any, make_image: Any) -> None:
    url = f"/1.0/images/{await world.add(make_image())}"
    ended = await world.ended(await world.call("POST", f"{url}/refresh"))
    assert (ended["status"], ended["err"]) == ("Failure", "Image source not found")
    assert (await world.call("POST", f"{url}/export", {"target": "https://127.0.0.1:1"})).status == 400
    for path in world.paths.images.iterdir():
        path.unlink()
    answer = await world.client.get(f"{url}/export")
    assert (answer.status, "not on this server" in await answer.text()) == (404, True)
    assert (await world.ended(await world.call("DELETE", url)))["err"] == ""


async def test_a_newer_version_is_unpacked_where_the_old_one_was(world: Any, make_image: Any) -> None:
    old, new = await world.add(make_image(), aliases="alias=a"), await world.add(make_image(serial="2"))
    async with world.database.write() as tx:
        for pool in ("used", "unused"):
            await storage_rows.create_pool(tx, pool, "sim", "", {})
    await world.storage.start()
    image, newer = await world.images.find("default", old), await world.images.find("default", new)
    await world.images.unpack(image, "used")
    await world.images.supersede("default", image, newer, is_new=True, caller=DAEMON)
    assert (await world.get("/1.0/images/aliases/a"))["target"] == new
    assert list(world.storage.driver("used").sizes) == [VolumeId(VolumeKind.IMAGE, "default", new)]
    assert list(world.storage.driver("unused").sizes) == []


@pytest.mark.parametrize("is_new", [True, False])  # False: the server was killed after it had fetched the newer one
async def test_what_was_said_of_an_image_meanwhile_is_said_of_the_newer_one(world: Any, make_image: Any, is_new: bool) -> None:
    old, new = await world.add(make_image()), await world.add(make_image(serial="2"))
    image, newer = await world.images.find("default", old), await world.images.find("default", new)
    async with world.database.write() as tx:
        await world.images.touch(tx, image)
    used = (await world.get(f"/1.0/images/{old}"))["last_used_at"]
    assert (await world.call("PUT", f"/1.0/images/{old}", {"public": True, "profiles": []})).status == 200
    assert (await world.call("POST", "/1.0/images/aliases", {"name": "late", "target": old})).status == 201
    await world.images.supersede("default", image, newer, is_new=is_new, caller=DAEMON)
    found = await world.get(f"/1.0/images/{new}")
    assert (found["public"], found["profiles"], found["last_used_at"]) == (True, [], used)
    assert [alias["name"] for alias in found["aliases"]] == ["late"]


async def test_what_was_said_of_a_newer_image_that_was_here_stays(world: Any, make_image: Any) -> None:
    old, new = await world.add(make_image(), aliases="alias=a"), await world.add(make_image(serial="2"), aliases="alias=b")
    assert (await world.call("PUT", f"/1.0/images/{old}", {"public": True})).status == 200
    image, newer = await world.images.find("default", old), await world.images.find("default", new)
    await world.images.supersede("default", image, newer, is_new=False, caller=DAEMON)
    found = await world.get(f"/1.0/images/{new}")
    assert (found["public"], [alias["name"] for alias in found["aliases"]]) == (False, ["a", "b"])


@pytest.mark.parametrize("is_new", [True, False])
async def test_who_deletes_an_image_wants_no_newer_one(world: Any, make_image: Any, is_new: bool) -> None:
    old, new = await world.add(make_image()), await world.add(make_image(serial="2"))
    image, newer = await world.images.find("default", old), await world.images.find("default", new)
    await world.images.delete("default", image, caller=DAEMON)
    with pytest.raises(AtollError, match="not found"):
        await world.images.supersede("default", image, newer, is_new=is_new, caller=DAEMON)
    assert world.files() == ([] if is_new else [new])


async def test_an_image_unpacks_to_no_more_than_the_pool_has_room_for(
    world: Any, make_tar: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = "architecture: x86_64\ncreation_date: 1700000000\n"
    bomb = make_tar({"metadata.yaml": metadata, "rootfs": None, "rootfs/zeros": bytes(4 << 20)})
    assert len(bomb) < 16384
    fingerprint = await world.add(bomb)
    async with world.database.write() as tx:
        await storage_rows.create_pool(tx, "pool", "sim", "", {})
    await world.storage.start()
    image = await world.images.find("default", fingerprint)

    async def small(driver: Any) -> Budget:
        return Budget(bytes=1 << 20)

    monkeypatch.setattr(budgets, "of_pool", small)
    with pytest.raises(TooLarge):
        await world.images.unpack(image, "pool")
    assert await world.images.unpacked.pools_with(fingerprint) == []
    monkeypatch.undo()
    await world.images.unpack(image, "pool")
    assert await world.images.unpacked.pools_with(fingerprint) == ["pool"]
