"""Rows of images, aliases and certificates, which are found by the beginning of a fingerprint."""

from __future__ import annotations

import dataclasses

import pytest

from atoll.db import certificates, images, profiles, projects
from atoll.db.engine import Database, Transaction
from atoll.db.images import NewImage
from atoll.domain.entities import ImageAlias
from atoll.domain.errors import BadRequest, Conflict, NotFound

A, B = "aa" + "0" * 62, "ab" + "0" * 62
NEW = NewImage(
    project="default",
    fingerprint=A,
    type="container",
    filename="x.tar",
    size=1 << 40,
    public=True,
    architecture="x86_64",
    creation_date=1,
    expiry_date=2,
    upload_date=3,
    auto_update=False,
    format="split",
    properties={"os": "debian", "empty": ""},
)


async def new_image(tx: Transaction, **changes: object) -> int:
    return await images.create(tx, dataclasses.replace(NEW, **changes))  # type: ignore[arg-type]


async def test_an_image_comes_back_as_it_was_given(database: Database) -> None:
    async with database.write() as tx:
        number = await new_image(tx)
        await images.create_alias(tx, "default", "debian/12", "text", number)
        await profiles.create(tx, "default", "web", "", {}, {})
        await images.set_profiles(tx, number, "default", ("web", "default"))
        found = await images.find(tx, "default", A, profiles_of="default")
        assert await images.find_all(tx, "default", profiles_of="default") == [found]
        assert await images.find_all(tx) == [dataclasses.replace(found, profiles=())]
    for field in dataclasses.fields(NEW):
        assert getattr(found, field.name) == getattr(NEW, field.name), field.name
    assert (found.aliases, found.profiles) == ((ImageAlias("debian/12", "text", A, "container"),), ("default", "web"))
    assert (found.last_use_date, found.source) == (0, None)


async def test_an_image_is_found_by_its_beginning(database: Database) -> None:
    async with database.write() as tx:
        await new_image(tx)
        await new_image(tx, fingerprint=B)
        assert (await images.find(tx, "default", "ab")).fingerprint == B
        with pytest.raises(BadRequest, match="More than one"):
            await images.find(tx, "default", "a")
        for text in ("b", "%", "a_", A + "0"):
            with pytest.raises(NotFound):
                await images.find(tx, "default", text)
        with pytest.raises(NotFound):
            await images.find(tx, "absent", A)


async def test_an_image_is_changed_and_deleted(database: Database) -> None:
    async with database.write() as tx:
        number = await new_image(tx)
        await images.update(tx, number, public=False, auto_update=True, expiry_date=9, properties={"a": "b"})
        await images.touch(tx, number, 77)
        found = await images.find(tx, "default", A)
        assert (found.public, found.auto_update, found.expiry_date, found.last_use_date) == (False, True, 9, 77)
        assert found.properties == {"a": "b"}
        with pytest.raises(BadRequest):
            await images.set_profiles(tx, number, "default", ("absent",))
        await images.create_alias(tx, "default", "x", "", number)
        await images.delete(tx, number)
        assert await images.aliases(tx, "default") == []
        assert await images.find_all(tx) == []


async def test_one_fingerprint_in_several_projects(database: Database) -> None:
    async with database.write() as tx:
        await projects.create(tx, "p", "", {})
        for project in ("default", "p"):
            await new_image(tx, project=project)
        with pytest.raises(Conflict):
            await new_image(tx)
        assert sorted(await images.projects_with(tx, A)) == ["default", "p"]
        assert await images.projects_with(tx, A[:10]) == []
        assert await images.fingerprints(tx) == {A}


async def test_aliases(database: Database) -> None:
    async with database.write() as tx:
        first, second = await new_image(tx), await new_image(tx, fingerprint=B)
        await images.create_alias(tx, "default", "b", "", first)
        await images.create_alias(tx, "default", "a", "one", first)
        for taken in (images.create_alias(tx, "default", "a", "", second), images.rename_alias(tx, "default", "b", "a")):
            with pytest.raises(Conflict):
                await taken
        await images.update_alias(tx, "default", "a", description="two", image_id=second)
        await images.rename_alias(tx, "default", "a", "c/d")
        assert await images.find_alias(tx, "default", "c/d") == ImageAlias("c/d", "two", B, "container")
        assert [each.name for each in await images.aliases(tx, "default")] == ["b", "c/d"]
        await images.delete_alias(tx, "default", "c/d")
        with pytest.raises(NotFound):
            await images.find_alias(tx, "default", "c/d")


async def test_certificates(database: Database) -> None:
    async with database.write() as tx:
        await projects.create(tx, "p", "", {})
        one = {"type": "client", "name": "n", "pem": "PEM", "restricted": True}
        number = await certificates.create(tx, fingerprint=A, **one, projects=("p", "default"))  # type: ignore[arg-type]
        await certificates.create(tx, fingerprint=B, **one, projects=())  # type: ignore[arg-type]
        found = await certificates.find(tx, "aa")
        assert (found.id, found.fingerprint, found.type, found.name, found.certificate) == (number, A, "client", "n", "PEM")
        assert (found.restricted, found.projects) == (True, ("default", "p"))
        assert [each.fingerprint for each in await certificates.find_all(tx)] == [A, B]
        with pytest.raises(BadRequest, match="More than one"):
            await certificates.find(tx, "a")
        with pytest.raises(NotFound):
            await certificates.find(tx, "c")
        with pytest.raises(Conflict):
            await certificates.create(tx, fingerprint=A, **one, projects=())  # type: ignore[arg-type]
        with pytest.raises(NotFound, match="absent"):
            await certificates.update(tx, number, type="client", name="m", restricted=True, projects=("absent",))
        await certificates.update(tx, number, type="metrics", name="m", restricted=False, projects=())
        changed = await certificates.find(tx, A)
        assert changed == dataclasses.replace(found, type="metrics", name="m", restricted=False, projects=())
        await certificates.delete(tx, number)
        assert [each.fingerprint for each in await certificates.find_all(tx)] == [B]
