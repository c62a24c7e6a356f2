"""The guest API over its socket. This process plays a guest's: the `sim` driver is told whose it is."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from atoll.api.guest import door
from atoll.drivers.instance.contract import MachineId
from atoll.services.guest import events as guest_events

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the guest's root has to be this process's user")

C1 = "/1.0/instances/c1"
ROOT_IS_ROOT = {"security.privileged": "true"}


class Guest:
    """Requests of c1's root."""

    def __init__(self, app: Any) -> None:
        self.app = app
        connector = aiohttp.UnixConnector(str(app.paths.devlxd_socket))
        self.session = aiohttp.ClientSession("http://lxd", connector=connector)

    async def start(self, name: str = "c1", **config: str) -> None:
        """An instance, in which this process is from now on."""
        await self.app.create(name, config={**ROOT_IS_ROOT, **config})
        await self.app.set_state(name, "start")
        self.app.daemon.driver.inhabit(MachineId("default", name), os.getpid())

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """(status, content type, text)"""
        async with self.session.request(method, path) as answer:
            return answer.status, answer.content_type, await answer.text()

    async def get(self, path: str) -> Any:
        """What a GET that has to succeed says."""
        status, kind, text = await self.ask(path)
        assert (status, kind) == (200, "application/json")
        return json.loads(text)

    async def change(self, **config: str) -> None:
        """Set keys from outside."""
        await self.app.do("PATCH", C1, {"config": config})


@pytest.fixture
async def guest(app: Any) -> AsyncIterator[Guest]:
    made = Guest(app)
    yield made
    await made.session.close()


async def test_what_it_knows_of_itself(guest: Guest) -> None:
    await guest.start(**{"user.a": "x", "cloud-init.user-data": "#!/bin/sh", "limits.processes": "100", "user.é/ö": "é"})
    assert await guest.get("/") == ["/1.0"]
    assert await guest.get("/1.0") == {"api_version": "1.0"}
    urls = await guest.get("/1.0/config")
    assert urls == ["/1.0/config/cloud-init.user-data", "/1.0/config/user.a", "/1.0/config/user.%C3%A9%2F%C3%B6"]
    assert await guest.ask("/1.0/config/user.a") == (200, "application/octet-stream", "x")
    for url in urls:
        assert (await guest.ask(url))[0] == 200
    assert await guest.get("/1.0/devices") == {"root": {"type": "disk", "pool": "pool", "path": "/"}}


async def test_what_is_not_for_it(guest: Guest) -> None:
    await guest.start(**{"limits.processes": "100"})
    assert (await guest.ask("/1.0/config/limits.processes"))[0] == 403
    assert (await guest.ask("/1.0/config/volatile.uuid"))[0] == 403
    assert await guest.ask("/1.0/config/user.none") == (404, "text/plain", "Not found\n")
    assert (await guest.ask("/1.0/instances"))[0] == 404
    assert (await guest.ask("/1.0", method="PATCH"))[0] == 405


async def test_a_nic_is_shown_with_the_address_it_has(guest: Guest) -> None:
    nic = {"type": "nic", "nictype": "p2p", "name": "eth0"}
    await guest.app.create("c1", config=ROOT_IS_ROOT, devices={"eth0": nic})
    await guest.app.do("PATCH", C1, {"config": {"volatile.eth0.hwaddr": "00:16:3e:00:00:01"}})
    await guest.app.set_state("c1", "start")
    guest.app.daemon.driver.inhabit(MachineId("default", "c1"), os.getpid())
    assert (await guest.get("/1.0/devices"))["eth0"] == {**nic, "hwaddr": "00:16:3e:00:00:01"}


async def test_meta_data(guest: Guest) -> None:
    await guest.start(**{"user.meta-data": "public-keys: k\n"})
    id = (await guest.app.get(C1))["config"]["volatile.cloud-init.instance-id"]
    expected = f"#cloud-config\ninstance-id: {id}\nlocal-hostname: c1\npublic-keys: k\n"
    assert await guest.ask("/1.0/meta-data") == (200, "application/octet-stream", expected)


async def test_strangers_and_users_are_refused(guest: Guest) -> None:
    assert (await guest.ask("/"))[0] == 403
    await guest.app.create("c1")  # whose root is another user than this process's
    await guest.app.set_state("c1", "start")
    guest.app.daemon.driver.inhabit(MachineId("default", "c1"), os.getpid())
    assert (await guest.ask("/"))[0] == 403, "who connected as a stranger stays one"
    other = Guest(guest.app)
    assert await other.ask("/") == (401, "text/plain", "Access denied for non-root user\n")
    await other.session.close()


async def test_a_machine_s_first_processes_are_waited_for(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its init may connect before the driver has seen it run."""
    looked = asyncio.Event()

    def of_a_machine(_: int) -> int:
        looked.set()
        return 7  # not this daemon's own

    monkeypatch.setattr(door.peer, "pid_namespace", of_a_machine)
    monkeypatch.setattr(door, "_LOOKS", 150)
    await guest.app.create("c1", config=ROOT_IS_ROOT)
    await guest.app.set_state("c1", "start")
    asking = asyncio.create_task(guest.ask("/"))
    await looked.wait()
    guest.app.daemon.driver.inhabit(MachineId("default", "c1"), os.getpid())
    assert (await asking)[0] == 200


async def test_it_hears_of_its_changes(guest: Guest) -> None:
    await guest.start(**{"user.a": "1"})
    await guest.app.create("c2", config={"user.a": "1"})
    async with guest.session.ws_connect("/1.0/events") as all_, guest.session.ws_connect("/1.0/events?type=device") as devices:
        await guest.app.do("PATCH", "/1.0/instances/c2", {"config": {"user.a": "2"}})
        await guest.change(**{"user.a": "2", "limits.processes": "50"})
        disk = {"type": "disk", "source": "/usr", "path": "/mnt"}
        root = {"root": {"type": "disk", "pool": "pool", "path": "/"}}
        await guest.app.do("PATCH", C1, {"devices": {"d": disk}})
        config = (await guest.app.get(C1))["config"]
        await guest.app.do("PUT", C1, {"config": config, "profiles": ["default"], "devices": {}})
        told = [json.loads((await all_.receive(30)).data) for _ in range(3)]
        assert [set(event) for event in told] == [{"timestamp", "type", "metadata"}] * 3
        assert [(event["type"], event["metadata"]) for event in told] == [
            ("config", {"key": "user.a", "old_value": "1", "value": "2"}),
            ("device", {"name": "d", "action": "added", "config": disk}),
            ("device", {"name": "d", "action": "removed", "config": disk}),
        ]
        await guest.app.do("PUT", "/1.0/profiles/default", {"config": {"user.p": "new"}, "devices": root})
        assert json.loads((await all_.receive(30)).data)["metadata"]["key"] == "user.p"
        assert [json.loads((await devices.receive(30)).data)["metadata"]["action"] for _ in range(2)] == ["added", "removed"]
    assert (await guest.ask("/1.0/events?type=nonsense"))[0] == 400


async def test_events_without_a_websocket(guest: Guest, until: Any) -> None:
    await guest.start()
    async with guest.session.get("/1.0/events?type=config") as answer:
        await guest.change(**{"user.a": "1"})
        assert json.loads(await answer.content.readline())["metadata"]["key"] == "user.a"
    await until(lambda: not guest.app.daemon.guests._listeners)  # who went away is not listened for


async def test_who_does_not_read_is_dropped(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_events, "QUEUE", 2)
    await guest.start()
    await guest.app.create("c2", config=ROOT_IS_ROOT)
    events = guest.app.daemon.guests
    listener = events.listen(MachineId("default", "c1"), frozenset(guest_events.GuestEventType))
    await guest.change(**{f"user.{number}": "x" for number in range(4)})
    assert not events._listeners
    assert (await listener.next()) is not None
    assert (await listener.next()) is None


async def test_it_can_be_taken_away_while_it_runs(guest: Guest) -> None:
    await guest.start()
    mounts = guest.app.daemon.driver._machines[MachineId("default", "c1")].mounts
    assert mounts["dev/lxd"].source == str(guest.app.paths.devlxd)
    async with guest.session.ws_connect("/1.0/events") as events:
        await guest.change(**{"security.devlxd": "false"})
        assert "dev/lxd" not in mounts
        assert (await events.receive(30)).type is aiohttp.WSMsgType.CLOSE
    assert (await guest.ask("/"))[0] == 403
    await guest.change(**{"security.devlxd": ""})
    assert "dev/lxd" in mounts
    assert (await guest.ask("/"))[0] == 200


async def test_without_it_from_the_start(guest: Guest) -> None:
    await guest.start(**{"security.devlxd": "false"})
    assert "dev/lxd" not in guest.app.daemon.driver._machines[MachineId("default", "c1")].mounts
    assert (await guest.ask("/"))[0] == 403


@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox")
async def test_images(guest: Guest) -> None:
    order = {"type": "build", "distribution": "busybox"}
    ended = await guest.app.do("POST", "/1.0/images", {"source": order})
    url = f"/1.0/images/{ended['metadata']['fingerprint']}"
    await guest.start()
    assert (await guest.ask(f"{url}/export"))[0] == 403
    await guest.change(**{"security.devlxd.images": "true"})
    assert (await guest.ask(f"{url}/export"))[0] == 404, "a private image is not there"
    await guest.app.do("PATCH", url, {"public": True})
    async with guest.session.get(f"{url}/export") as answer:
        assert answer.status == 200
        assert len(await answer.read()) == (await guest.app.get(url))["size"]


async def test_one_guest_cannot_take_all_connections(guest: Guest, monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    monkeypatch.setattr(door, "MOST_OF_ONE", 3)
    await guest.start()
    path = str(guest.app.paths.devlxd_socket)
    links = [await asyncio.open_unix_connection(path) for _ in range(5)]
    answers = [await _first_line(*link) for link in links]
    assert sorted(answers) == [b""] * 2 + [b"HTTP/1.1 200 OK\r\n"] * 3
    for _, writer in links:
        writer.close()

    async def is_let_in_again() -> bool:
        reader, writer = await asyncio.open_unix_connection(path)
        line = await _first_line(reader, writer)
        writer.close()
        return line == b"HTTP/1.1 200 OK\r\n"

    await until(is_let_in_again)


async def _first_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: lxd\r\n\r\n")
        return await asyncio.wait_for(reader.readline(), 30)
    except ConnectionError:
        return b""


async def test_the_socket_is_there_again_after_a_restart(guest: Guest) -> None:
    await guest.start()
    assert await guest.get("/") == ["/1.0"]
    assert (guest.app.paths.devlxd_socket.stat().st_mode & 0o777, guest.app.paths.devlxd.stat().st_mode & 0o777) == (0o666, 0o755)
    await guest.app.restart()
    assert await guest.get("/") == ["/1.0"]


async def test_a_new_id_for_cloud_init_when_it_has_something_to_do(app: Any) -> None:
    async def id(name: str) -> str:
        found: str = (await app.get(f"/1.0/instances/{name}"))["config"]["volatile.cloud-init.instance-id"]
        return found

    await app.do("POST", "/1.0/networks", {"name": "net0", "type": "bridge"})
    await app.create("c1", devices={"eth0": {"type": "nic", "network": "net0", "name": "eth0"}})
    seen = [await id("c1")]
    await app.do("POST", C1, {"name": "c2"})
    seen.append(await id("c2"))
    await app.do("POST", "/1.0/instances", {"name": "c1", "source": {"type": "copy", "source": "c2"}})
    seen.append(await id("c1"))
    await app.do("PATCH", C1, {"config": {"cloud-init.user-data": "blah"}})
    seen.append(await id("c1"))
    nic = {"type": "nic", "network": "net0", "name": "eth0"}
    await app.do("PATCH", C1, {"config": {"user.other": "x"}, "devices": {"eth0": {**nic, "user.foo": "bar"}}})
    assert await id("c1") == seen[-1]
    await app.do("PATCH", C1, {"devices": {"eth0": {**nic, "name": "foo"}}})
    seen.append(await id("c1"))
    profile = await app.get("/1.0/profiles/default")
    await app.do("PUT", "/1.0/profiles/default", {**profile, "config": {"user.vendor-data": "#cloud-config"}})
    seen.append(await id("c1"))
    assert len(set(seen)) == len(seen)
