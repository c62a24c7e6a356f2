"""Rows of instances, their snapshots, profiles and projects."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from atoll.db import instances, profiles, projects
from atoll.db.engine import Database, Transaction
from atoll.db.instances import NewInstance
from atoll.domain.entities import Instance
from atoll.domain.errors import Conflict, NotFound

NEW = NewInstance(
    project="default",
    name="c1",
    type="container",
    architecture="x86_64",
    ephemeral=True,
    description="first",
    created_at="2026-01-01T00:00:00Z",
    config={"limits.cpu": "2", "user.empty": "", "user.text": "a\n'b\""},
    devices={"root": {"type": "disk", "path": "/", "pool": "p"}, "none": {}},
    profiles=("web", "default"),
    profile_project="default",
    phase="creating",
)

BELONGING = (
    "instances_config",
    "instances_devices",
    "instances_devices_config",
    "instances_profiles",
    "instances_snapshots",
    "instances_snapshots_config",
    "instances_snapshots_devices",
    "instances_snapshots_devices_config",
)


async def new_instance(tx: Transaction, **changes: object) -> int:
    return await instances.create(tx, dataclasses.replace(NEW, **changes))  # type: ignore[arg-type]


async def test_an_instance_comes_back_as_it_was_given(database: Database) -> None:
    async with database.write() as tx:
        await profiles.create(tx, "default", "web", "", {}, {})
        number = await new_instance(tx)
    async with database.read() as tx:
        found = await instances.find(tx, "default", "c1")
    assert found == (await listed(database))[0]
    assert (found.id, found.name, found.type, found.architecture, found.phase) == (
        number,
        "c1",
        "container",
        "x86_64",
        "creating",
    )
    assert (found.ephemeral, found.stateful, found.member, found.last_used_at) == (True, False, "none", "")
    assert found.config == {"limits.cpu": "2", "user.text": "a\n'b\""}  # what is empty is not kept
    assert found.devices == NEW.devices
    assert found.profiles == ("web", "default")  # in the order of application


async def listed(database: Database, project: str | None = None) -> list[Instance]:
    async with database.read() as tx:
        return await instances.find_all(tx, project)


async def test_an_instance_is_changed(database: Database) -> None:
    async with database.write() as tx:
        number = await new_instance(tx, profiles=("default",))
        await instances.update(
            tx,
            number,
            description="changed",
            architecture="i686",
            ephemeral=False,
            config={"user.b": "2"},
            devices={"eth0": {"type": "nic"}},
            profile_project="default",
            profiles=(),
        )
        await instances.patch_config(tx, number, {"user.b": "", "user.c": "3", "user.absent": ""})
        await instances.set_phase(tx, number, "")
        await instances.touch(tx, number, "2026-02-02T00:00:00Z")
        await instances.rename(tx, number, "c2")
    (found,) = await listed(database)
    assert (found.name, found.description, found.architecture, found.ephemeral) == ("c2", "changed", "i686", False)
    assert (found.phase, found.last_used_at, found.profiles) == ("", "2026-02-02T00:00:00Z", ())
    assert (found.config, found.devices) == ({"user.c": "3"}, {"eth0": {"type": "nic"}})


async def test_instances_of_projects(database: Database) -> None:
    async with database.write() as tx:
        await projects.create(tx, "other", "", {})
        for project, name in (("other", "c1"), ("default", "b"), ("default", "a")):
            await new_instance(tx, project=project, name=name, profiles=())
        with pytest.raises(Conflict):
            await new_instance(tx, name="a", profiles=())
        assert await instances.names(tx) == [("default", "a"), ("default", "b"), ("other", "c1")]
        assert await instances.names(tx, "other") == [("other", "c1")]
        assert await instances.names(tx, "absent") == []
    assert [each.name for each in await listed(database, "default")] == ["a", "b"]
    assert [(each.project, each.name) for each in await listed(database)] == [("default", "a"), ("default", "b"), ("other", "c1")]


async def test_what_is_not_there(database: Database) -> None:
    async with database.write() as tx:
        with pytest.raises(NotFound, match="'absent'"):
            await new_instance(tx, profiles=("absent",))
        for missing in (
            instances.find(tx, "default", "absent"),
            instances.find_snapshot(tx, 1, "absent"),
            profiles.find(tx, "default", "absent"),
            projects.find(tx, "absent"),
        ):
            with pytest.raises(NotFound):
                await missing


async def test_a_snapshot_keeps_the_record_of_its_moment(database: Database) -> None:
    async with database.write() as tx:
        await profiles.create(tx, "default", "web", "", {}, {})
        number = await new_instance(tx)
        record = await instances.find(tx, "default", "c1")
        dates: dict[str, Any] = {"created_at": "2026-01-02T00:00:00Z", "expires_at": ""}
        snapshot = await instances.create_snapshot(tx, record, "s1", **dates, phase="creating", stateful=True)
        await instances.create_snapshot(tx, record, "s0", created_at="2026-01-01T00:00:00Z", expires_at="x", phase="")
        with pytest.raises(Conflict):
            await instances.create_snapshot(tx, record, "s1", **dates, phase="")
        await instances.update(
            tx, number, description="", architecture="", ephemeral=False, config={}, devices={}, profile_project="", profiles=()
        )
        found = await instances.find_snapshot(tx, number, "s1")
        assert (found.id, found.instance_id, found.stateful, found.phase) == (snapshot, number, True, "creating")
        for field in ("architecture", "ephemeral", "description", "config", "devices", "profiles", "last_used_at"):
            assert getattr(found, field) == getattr(record, field)
        assert [each.name for each in await instances.snapshots_of(tx, number)] == ["s0", "s1"]
        assert {key: len(value) for key, value in (await instances.snapshots_in(tx)).items()} == {number: 2}
        assert {key: len(value) for key, value in (await instances.snapshots_in(tx, "default")).items()} == {number: 2}
        assert await instances.snapshots_in(tx, "absent") == {}
        await instances.update_snapshot(tx, snapshot, expires_at="2027-01-01T00:00:00Z")
        await instances.set_snapshot_phase(tx, snapshot, "")
        await instances.rename_snapshot(tx, snapshot, "s2")
        changed = await instances.find_snapshot(tx, number, "s2")
        assert changed == dataclasses.replace(found, name="s2", phase="", expires_at="2027-01-01T00:00:00Z")
        await instances.delete_snapshot(tx, snapshot)
        assert len(await instances.snapshots_of(tx, number)) == 1


async def test_what_belongs_to_an_instance_goes_with_it(database: Database) -> None:
    async with database.write() as tx:
        number = await new_instance(tx, profiles=("default",))
        record = await instances.find(tx, "default", "c1")
        await instances.create_snapshot(tx, record, "s1", created_at="", expires_at="", phase="")
        await instances.delete(tx, number)
        for table in BELONGING:
            assert await tx.one(f"SELECT COUNT(*) FROM {table}") == (0,), table


async def test_profiles(database: Database) -> None:
    async with database.write() as tx:
        number = await profiles.create(tx, "default", "web", "of servers", {"a": "1"}, {"eth0": {"type": "nic"}})
        found = await profiles.find(tx, "default", "web")
        assert (found.id, found.description, found.config, found.devices) == (
            number, "of servers", {"a": "1"}, {"eth0": {"type": "nic"}},
        )  # fmt: skip
        with pytest.raises(Conflict):
            await profiles.create(tx, "default", "web", "", {}, {})
        await profiles.update(tx, number, "", {"b": "2"}, {})
        await profiles.rename(tx, number, "www")
        assert [(each.name, each.config) for each in await profiles.find_all(tx)] == [("default", {}), ("www", {"b": "2"})]
        assert await profiles.find_all(tx, "absent") == []
        await new_instance(tx, profiles=("www",))
        assert await profiles.users(tx) == await profiles.users(tx, [number, 99]) == {number: [("default", "c1")]}
        assert await profiles.users(tx, [99]) == {}
        with pytest.raises(Conflict):
            await profiles.delete(tx, number)
        await instances.delete(tx, (await instances.find(tx, "default", "c1")).id)
        await profiles.delete(tx, number)
        assert [each.name for each in await profiles.find_all(tx, "default")] == ["default"]


async def test_projects(database: Database) -> None:
    async with database.write() as tx:
        number = await projects.create(tx, "p", "text", {"features.images": "true"})
        found = await projects.find(tx, "p")
        assert (found.id, found.name, found.description, found.config) == (number, "p", "text", {"features.images": "true"})
        await projects.update(tx, number, "other", {})
        await projects.rename(tx, number, "q")
        with pytest.raises(Conflict):
            await projects.rename(tx, number, "default")
        assert [(each.name, each.description) for each in await projects.find_all(tx)][1] == ("q", "other")
        await profiles.create(tx, "q", "default", "", {}, {})
        await new_instance(tx, project="q", profiles=())
        assert await projects.users(tx, number) == [("instances", "c1", ""), ("profiles", "default", "")]
        with pytest.raises(Conflict):
            await projects.delete(tx, number)
        await instances.delete(tx, (await instances.find(tx, "q", "c1")).id)
        await projects.delete(tx, number)
        assert [each.name for each in await projects.find_all(tx)] == ["default"]


async def test_a_list_takes_a_fixed_number_of_statements(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    queries = Transaction.queries

    async def counted(self: Transaction, *statements: tuple[object, ...]) -> list[list[tuple[object, ...]]]:
        asked.append(len(statements))
        return await queries(self, *statements)

    async with database.write() as tx:
        for number in range(20):
            await new_instance(tx, name=f"c{number}", profiles=("default",))
    monkeypatch.setattr(Transaction, "queries", counted)
    assert len(await listed(database)) == 20
    assert asked == [4]
