"""Copies, refreshed copies and moves of instances on one host."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.caller import Caller, Protocol
from atoll.domain.errors import HostError
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.host import folders

C1, C2 = "/1.0/instances/c1", "/1.0/instances/c2"
OTHER = {"type": "disk", "path": "/", "pool": "other"}
COPY = {"type": "copy", "source": "c1"}


def volume(name: str, project: str = "default") -> VolumeId:
    return VolumeId(VolumeKind.INSTANCE, project, name)


def volumes(app: Any, pool: str = "pool") -> set[str]:
    """Instances' volumes of a pool, as PROJECT/NAME or PROJECT/NAME/SNAPSHOT."""
    found = app.daemon.storage.driver(pool).sizes
    return {
        "/".join(filter(None, (each.project, each.name, each.snapshot))) for each in found if each.kind is VolumeKind.INSTANCE
    }


def folders_of(app: Any, name: str) -> list[Path]:
    """What an instance has outside of the pools."""
    paths = app.daemon.paths
    return [path for path in (paths.containers / name, paths.logs(name), paths.run(name)) if os.path.lexists(path)]


@pytest.fixture
async def source(app: Any) -> Any:
    """A second pool and project, and c1 with two snapshots, each of another configuration."""
    await app.do("POST", "/1.0/storage-pools", {"name": "other", "driver": "dir"})
    await app.do("POST", "/1.0/projects", {"name": "web", "config": {"features.images": "false", "features.profiles": "false"}})
    await app.create("c1", config={"user.a": "0"}, description="d")
    await app.do("POST", f"{C1}/snapshots", {"name": "s0", "expires_at": "2100-01-02T03:04:05Z"})
    await app.do("PATCH", C1, {"config": {"user.a": "1"}, "devices": {"none": {"type": "none"}}})
    await app.do("PATCH", "/1.0/storage-pools/pool/volumes/container/c1", {"config": {"user.v": "1"}, "description": "volume"})
    await app.do("POST", f"{C1}/snapshots", {"name": "s1"})
    return app


async def snapshots(app: Any, path: str) -> list[Any]:
    found: list[Any] = await app.get(f"{path.partition('?')[0]}/snapshots?recursion=1&{path.partition('?')[2]}")
    return found


# --- copies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [{}, {"root": OTHER}], ids=["within a pool", "to another pool"])
async def test_a_copy_has_all_that_its_source_has(source: Any, devices: dict[str, Any]) -> None:
    before = await source.get(C1)
    await source.do("POST", "/1.0/instances", {"name": "c2", "source": COPY, "devices": devices})
    pool = "other" if devices else "pool"
    assert {"default/c2", "default/c2/s0", "default/c2/s1"} <= volumes(source, pool)
    copy, original = await snapshots(source, C2), await snapshots(source, C1)
    same = ("name", "created_at", "expires_at", "profiles", "architecture", "ephemeral")
    assert [{key: each[key] for key in same} for each in copy] == [{key: each[key] for key in same} for each in original]
    assert [each["config"] for each in copy] == [{"user.a": "0"}, {"user.a": "1"}]
    assert copy[1]["devices"] == {"none": {"type": "none"}, **devices}
    made = await source.get(C2)
    assert (made["config"]["user.a"], made["devices"]) == ("1", {"none": {"type": "none"}, **devices})
    assert made["config"]["volatile.uuid"] != before["config"]["volatile.uuid"]
    assert made["config"]["volatile.apply_template"] == "copy"
    records = f"/1.0/storage-pools/{pool}/volumes/container/c2"
    assert (await source.get(records))["config"] == {"user.v": "1"}
    assert (await source.get(f"{records}/snapshots/s0"))["config"] == {}
    assert (await source.get(f"{records}/snapshots/s1"))["config"] == {"user.v": "1"}
    await source.do("DELETE", C2)
    assert not any(name.startswith("default/c2") for name in volumes(source, pool))


async def test_a_copy_whose_folders_cannot_all_be_made_leaves_none(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make = folders._make_instance

    def fail(*args: Any) -> None:
        make(*args)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folders, "_make_instance", fail)
    answer = await source.call("POST", "/1.0/instances", {"name": "c2", "source": COPY})
    assert (await source.ended(answer[1]))["status"] == "Failure"
    assert not folders_of(source, "c2")
    await _consistent(source)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/1.0/instances", {"name": "c2", "source": COPY, "devices": {"root": OTHER}}),
        (C1, {"name": "c1", "migration": True, "pool": "other"}),
    ],
    ids=["copy", "move"],
)
async def test_what_an_undo_cannot_delete_goes_at_the_next_start(
    source: Any, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise HostError("No space left on device")

    driver = source.daemon.storage.driver("other")
    create = driver.create

    async def create_in_vain(*args: Any, **kwargs: Any) -> None:
        await create(*args, **kwargs)
        await fail()

    with monkeypatch.context() as patched:
        patched.setattr(driver, "create", create_in_vain)
        patched.setattr(driver, "delete", fail)
        answer = await source.call("POST", path, body)
        assert (await source.ended(answer[1]))["status"] == "Failure"
    assert volumes(source, "other")
    for part in (source.daemon.instances.mover, source.daemon.instances.creator):
        await part.repair()
    assert not volumes(source, "other")
    assert await source.get("/1.0/instances") == [C1]
    await _consistent(source)


async def test_a_restore_leaves_a_copy_in_its_pool_and_itself(source: Any) -> None:
    await source.do("POST", "/1.0/instances", {"name": "c2", "source": COPY, "devices": {"root": OTHER}})
    mac = {"volatile.eth0.hwaddr": "00:16:3e:00:00:01"}
    await source.do("PATCH", C2, {"config": mac})
    before = (await source.get(C2))["config"]
    await source.do("PUT", C2, {"restore": "s0"})
    after = await source.get(C2)
    assert after["expanded_devices"]["root"]["pool"] == "other"
    for key in ("volatile.eth0.hwaddr", "volatile.uuid", "volatile.cloud-init.instance-id"):
        assert after["config"][key] == before[key]


async def test_what_the_request_says_goes_first(source: Any) -> None:
    asked = {"config": {"user.a": "9"}, "devices": {"root": OTHER}, "profiles": [], "ephemeral": True}
    await source.do("POST", "/1.0/instances", {"name": "c2", "source": {**COPY, "instance_only": True}, **asked})
    made = await source.get(C2)
    assert (made["config"]["user.a"], made["profiles"], made["ephemeral"]) == ("9", [], True)
    assert await snapshots(source, C2) == []


async def test_volatile_keys_of_a_request_are_kept_as_a_moving_client_needs(source: Any) -> None:
    given = {"volatile.apply_template": "create", "volatile.eth0.hwaddr": "00:16:3e:00:00:01"}
    await source.do("POST", "/1.0/instances", {"name": "c2", "source": COPY, "config": given})
    config = (await source.get(C2))["config"]
    assert {key: config[key] for key in given} == given


async def test_a_copy_of_one_snapshot_has_none(source: Any) -> None:
    await source.do("POST", "/1.0/instances", {"name": "c2", "source": {**COPY, "source": "c1/s0"}})
    assert (await source.get(C2))["config"]["user.a"] == "0"
    assert await snapshots(source, C2) == []
    await source.do("POST", "/1.0/instances", {"name": "c3", "source": {**COPY, "source": "c1/s1"}, "devices": {"root": OTHER}})
    assert volumes(source, "other") == {"default/c3"}


async def test_a_running_instance_is_copied(source: Any) -> None:
    await source.set_state("c1", "start")
    for name, devices in (("c2", {}), ("c3", {"root": OTHER})):
        await source.do("POST", "/1.0/instances", {"name": name, "source": COPY, "devices": devices})
    assert [each["name"] for each in await snapshots(source, C1)] == ["s0", "s1"]
    assert volumes(source, "other") == {"default/c3", "default/c3/s0", "default/c3/s1"}
    assert volumes(source) == {f"default/{name}{end}" for name in ("c1", "c2") for end in ("", "/s0", "/s1")}


async def test_into_another_project(source: Any) -> None:
    await source.do("POST", "/1.0/instances?project=web", {"name": "c1", "source": {**COPY, "project": "default"}})
    assert {"web/c1", "web/c1/s0", "web/c1/s1"} <= volumes(source)
    assert (await source.get(f"{C1}?project=web"))["project"] == "web"


REFUSED_COPIES: list[tuple[dict[str, Any], int, str]] = [
    ({"name": "c1", "source": COPY}, 409, "already exists"),
    ({"name": "c2", "source": {**COPY, "source": "c1/gone"}}, 404, "not found"),
    ({"name": "c2", "source": {**COPY, "source": ""}}, 400, "must specify a source instance"),
    ({"name": "c2", "source": COPY, "profiles": ["gone"]}, 404, "doesn't exist"),
    ({"name": "c2", "source": COPY, "devices": {"root": {**OTHER, "pool": "gone"}}}, 400, "gone"),
    ({"name": "c1", "source": {**COPY, "refresh": True}}, 400, "itself"),
]


async def test_refusals(source: Any) -> None:
    before = volumes(source)
    for body, status, text in REFUSED_COPIES:
        found, said = await source.refused("POST", "/1.0/instances", body)
        assert (found, text in said) == (status, True), said
        assert volumes(source) == before
    assert await source.get("/1.0/instances") == [C1]


async def test_a_member_needs_a_cluster(source: Any) -> None:
    for path, body in (("/1.0/instances", {"name": "c2", "source": COPY}), (C1, {"name": "c1", "migration": True})):
        status, said = await source.refused("POST", f"{path}?target=two", body)
        assert (status, said) == (400, "Target only allowed when clustered")


# --- refreshing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [{}, {"root": OTHER}], ids=["within a pool", "from another pool"])
async def test_a_refresh_makes_the_snapshots_the_same_and_keeps_the_configuration(source: Any, devices: dict[str, Any]) -> None:
    refresh = {"name": "c2", "source": {**COPY, "refresh": True}}
    await source.do("POST", "/1.0/instances", {**refresh, "devices": devices, "config": {"volatile.uuid": "0" * 8}})
    made = await source.get(C2)
    assert made["config"]["volatile.uuid"] != "0" * 8
    await source.do("PATCH", C2, {"config": {"user.a": "own"}})
    await source.do("POST", f"{C2}/snapshots", {"name": "own"})
    await source.do("DELETE", f"{C1}/snapshots/s1")
    for name in ("s1", "s2"):
        await source.do("POST", f"{C1}/snapshots", {"name": name})
    await source.do("POST", "/1.0/instances", {**refresh, "source": {**refresh["source"], "instance_only": True}})
    assert [each["name"] for each in await snapshots(source, C2)] == ["s0", "s1", "own"]
    await source.do("POST", "/1.0/instances", refresh)
    copy, original = await snapshots(source, C2), await snapshots(source, C1)
    assert [(each["name"], each["created_at"]) for each in copy] == [(each["name"], each["created_at"]) for each in original]
    pool = "other" if devices else "pool"
    assert {name for name in volumes(source, pool) if "/c2" in name} == {f"default/c2{end}" for end in ("", "/s0", "/s1", "/s2")}
    after = await source.get(C2)
    assert (after["config"]["user.a"], after["config"]["volatile.apply_template"]) == ("own", "copy")


async def test_a_client_that_sends_the_source_s_addresses_after_a_refresh_changes_none(source: Any) -> None:
    mac, own = {"volatile.eth0.hwaddr": "00:16:3e:00:00:01"}, {"volatile.eth0.hwaddr": "00:16:3e:00:00:02"}
    await source.do("PATCH", C1, {"config": mac})
    await source.do("POST", "/1.0/instances", {"name": "c2", "source": COPY})
    await source.do("PUT", C2, await source.get(C1))
    assert "volatile.eth0.hwaddr" not in (await source.get(C2))["config"]
    await source.do("PATCH", C2, {"config": own})
    await source.do("PUT", C2, await source.get(C1))
    assert own.items() <= (await source.get(C2))["config"].items()


async def test_a_running_copy_is_not_refreshed(source: Any) -> None:
    await source.do("POST", "/1.0/instances", {"name": "c2", "source": COPY})
    await source.set_state("c2", "start")
    status, said = await source.refused("POST", "/1.0/instances", {"name": "c2", "source": {**COPY, "refresh": True}})
    assert (status, said) == (400, "Cannot refresh a running instance")


# --- moves ---------------------------------------------------------------------------------------------------------------


async def test_a_move_to_another_pool_is_of_the_same_instance(source: Any) -> None:
    await source.do("POST", f"{C1}/backups", {"name": "b0"})
    before = await source.get(C1)
    await source.do("POST", C1, {"name": "c2", "migration": True, "pool": "other"})
    after = await source.get(C2)
    assert after == {**before, "name": "c2"} | {key: after[key] for key in ("devices", "expanded_devices")}
    assert after["devices"]["root"] == OTHER
    assert volumes(source) == set()
    assert volumes(source, "other") == {"default/c2", "default/c2/s0", "default/c2/s1"}
    assert [each["devices"]["root"]["pool"] for each in await snapshots(source, C2)] == ["other", "other"]
    assert await source.get(f"{C2}/backups") == [f"{C2}/backups/b0"]
    assert (await source.get("/1.0/storage-pools/other/volumes/container/c2"))["config"] == {"user.v": "1"}
    await source.set_state("c2", "start")


@pytest.mark.parametrize("pool", ["", "other"])
async def test_a_move_can_leave_the_snapshots_behind(source: Any, pool: str) -> None:
    body = {"name": "c1", "migration": True, "pool": pool, "project": "web", "instance_only": True}
    await source.do("POST", C1, body)
    assert volumes(source) | volumes(source, "other") == {"web/c1"}
    assert await snapshots(source, f"{C1}?project=web") == []


async def test_a_move_to_another_project_and_back(source: Any) -> None:
    await source.do("POST", C1, {"name": "c1", "migration": True, "project": "web"})
    assert await source.get("/1.0/instances") == []
    assert volumes(source) == {"web/c1", "web/c1/s0", "web/c1/s1"}
    await source.do("POST", f"{C1}?project=web", {"name": "c2", "migration": True, "project": "default", "pool": "other"})
    assert volumes(source, "other") == {"default/c2", "default/c2/s0", "default/c2/s1"}


async def test_moving_nowhere_is_nothing(source: Any) -> None:
    before = await source.get(C1)
    await source.do("POST", C1, {"name": "c1", "migration": True, "pool": "pool"})
    after = await source.get(C1)
    assert after["config"] == before["config"]


REFUSED_MOVES: list[tuple[dict[str, Any], int, str]] = [
    ({"pool": "gone"}, 404, "Storage pool not found"),
    ({"project": "gone"}, 404, "not found"),
    ({"name": "taken", "pool": "other"}, 409, "already in use"),
    ({"name": "a_b", "pool": "other"}, 400, "Invalid instance name"),
    ({"project": "own"}, 404, "doesn't exist"),
]


async def test_moves_that_are_refused(source: Any) -> None:
    await source.create("taken")
    await source.do("POST", "/1.0/projects", {"name": "own"})
    await source.do("POST", "/1.0/profiles", {"name": "extra"})
    await source.do("PATCH", C1, {"profiles": ["default", "extra"]})
    for body, status, text in REFUSED_MOVES:
        found, said = await source.refused("POST", C1, {"name": "c1", "migration": True, **body})
        assert (found, text in said) == (status, True), said
        assert "default/c1" in volumes(source)


async def test_a_running_instance_stays(source: Any) -> None:
    await source.set_state("c1", "start")
    status, said = await source.refused("POST", C1, {"name": "c1", "migration": True, "pool": "other"})
    assert (status, said) == (400, "Instance must be stopped to be moved")


async def test_both_projects_have_to_be_allowed(source: Any) -> None:
    source.caller = Caller(Protocol.TLS, username="r", trusted=True, restricted=True, projects=frozenset({"web"}))
    for method, path, body in (
        ("POST", "/1.0/instances?project=web", {"name": "c2", "source": {**COPY, "project": "default"}}),
        ("POST", f"{C1}?project=default", {"name": "c1", "migration": True, "project": "web"}),
    ):
        status, _ = await source.refused(method, path, body)
        assert status == 403
    await source.do("POST", "/1.0/instances?project=web", {"name": "c2", "source": {"type": "none"}})
    status, _ = await source.refused("POST", f"{C2}?project=web", {"name": "c2", "migration": True, "project": "default"})
    assert status == 403


# --- kills ---------------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The daemon is dead: nothing that it does has an effect any more."""


class Death:
    """Comes at the `at`th change of database or pool, and stays."""

    def __init__(self) -> None:
        self.at = 0
        self.count = 0

    def step(self) -> None:
        if self.at:
            self.count += 1
            if self.count >= self.at:
                raise Killed

    @property
    def happened(self) -> bool:
        return 0 < self.at <= self.count


@pytest.fixture
def death(source: Any, monkeypatch: pytest.MonkeyPatch) -> Death:
    death = Death()
    database = source.daemon.global_db
    real_write, real_revert = database.write, Reverter._revert

    @asynccontextmanager
    async def write() -> AsyncIterator[Any]:
        death.step()
        async with real_write() as tx:
            yield tx

    def counted(real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            death.step()
            return await real(*args, **kwargs)

        return call

    async def revert(self: Reverter) -> None:
        if not death.happened:
            await real_revert(self)

    monkeypatch.setattr(database, "write", write)
    monkeypatch.setattr(Reverter, "_revert", revert)
    for pool in ("pool", "other"):
        driver = source.daemon.storage.driver(pool)
        for name in ("create", "clone", "delete", "rename", "snapshot"):
            monkeypatch.setattr(driver, name, counted(getattr(driver, name)))
    return death


async def _run(app: Any, death: Death, at: int, path: str, body: dict[str, Any]) -> bool:
    """Whether it was killed on the way; then the repairs of the next start are made."""
    death.at, death.count = at, 0
    status, content = await app.call("POST", path, body)
    if status == 202:
        await app.ended(content)
    killed, death.at = death.happened, 0
    parts = app.daemon.instances
    for part in (parts.updater, parts.mover, parts.refresher, parts.creator, parts.snapshots):
        await part.repair()
    return killed


async def _consistent(app: Any) -> None:
    """What is in the pools is what the database has."""
    expected: dict[str, set[str]] = {"pool": set(), "other": set()}
    for found in await app.get("/1.0/instances?all-projects=true&recursion=2"):
        own = expected[found["expanded_devices"]["root"]["pool"]]
        place = f"{found['project']}/{found['name']}"
        own.add(place)
        own.update(f"{place}/{each['name']}" for each in found["snapshots"] or ())
        assert found["status"] == "Stopped"
    assert {pool: volumes(app, pool) for pool in expected} == expected


KILLED = {
    "copy": ("/1.0/instances", {"name": "c2", "source": COPY}),
    "copy to another pool": ("/1.0/instances", {"name": "c2", "source": COPY, "devices": {"root": OTHER}}),
    "move to another pool": (C1, {"name": "c2", "migration": True, "pool": "other"}),
    "move to another pool alone": (C1, {"name": "c1", "migration": True, "pool": "other", "instance_only": True}),
    "move to another project": (C1, {"name": "c1", "migration": True, "project": "web", "instance_only": True}),
}


@pytest.mark.parametrize("what", KILLED)
async def test_killed_at_each_step(source: Any, death: Death, what: str) -> None:
    path, body = KILLED[what]
    for at in range(1, 60):
        killed = await _run(source, death, at, path, body)
        await _consistent(source)
        listed = await source.get("/1.0/instances?all-projects=true")
        if not killed:
            assert at > 3
            return
        if path == C1 and listed != [C1]:  # it had come through to where the rest is made good: that is as well
            assert len(listed) == 1
            return
        assert C1 in listed
    raise AssertionError("it never ends")


async def test_a_refresh_killed_at_each_step_can_be_made_again(source: Any, death: Death) -> None:
    body = {"name": "c2", "source": {**COPY, "refresh": True}}
    for at in range(1, 60):
        await source.do("POST", "/1.0/instances", {"name": "c2", "source": COPY})
        await source.do("DELETE", f"{C2}/snapshots/s0")
        await source.do("POST", f"{C2}/snapshots", {"name": "own"})
        killed = await _run(source, death, at, "/1.0/instances", body)
        await _consistent(source)
        await source.do("POST", "/1.0/instances", body)
        assert [each["name"] for each in await snapshots(source, C2)] == ["s0", "s1"]
        await source.do("DELETE", C2)
        if not killed:
            return
    raise AssertionError("it never ends")


# --- renaming ------------------------------------------------------------------------------------------------------------


async def _rename(app: Any) -> None:
    answer = await app.call("POST", C1, {"name": "c2"})
    assert (await app.ended(answer[1]))["status"] == "Failure"


async def test_a_rename_killed_before_its_folders_follow_is_finished(
    source: Any, death: Death, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any) -> None:
        death.at = death.count = 1
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(folders, "rename_instance_folders", die)
        await _rename(source)
    death.at = 0
    assert await source.daemon.instances.updater.repair() == ["finished renaming instance c1 to c2"]
    assert len(folders_of(source, "c2")) == 3 and not folders_of(source, "c1")
    await _consistent(source)


async def test_a_rename_whose_folders_cannot_follow_is_undone(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make = folders._make_instance

    def fail(paths: Any, key: str, data: Path) -> None:
        make(paths, key, data)
        if key == "c2":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folders, "_make_instance", fail)
    await _rename(source)
    assert await source.get("/1.0/instances") == [C1]
    assert len(folders_of(source, "c1")) == 3 and not folders_of(source, "c2")
    await _consistent(source)
