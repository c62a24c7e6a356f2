"""pylxd, LXD's Python client, against the whole daemon. It blocks, so it runs in a thread beside the daemon's loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pylxd
import pytest
from pylxd.exceptions import LXDAPIException, NotFound

Run = Callable[[Callable[[pylxd.Client], Any]], Any]


BOTH_WAYS = pytest.mark.parametrize("way", ["unix", "https"])


@pytest.fixture
def way() -> str:
    """How a server is reached, where a test does not say."""
    return "https"


@pytest.fixture
async def run(way: str, app: Any, make_certificate: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls a function with a client, in a thread: by the unix socket, or by HTTPS with a certificate that is trusted."""
    options: dict[str, Any] = {"endpoint": "http+unix://" + quote(str(app.paths.socket), safe="")}
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)  # requests goes by them rather than by what it is told
    if way == "https":
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = f"127.0.0.1:{sock.getsockname()[1]}"
        await app.do("PATCH", "/1.0", {"config": {"core.https_address": address}})
        identity = make_certificate()
        await app.do("POST", "/1.0/certificates", {"certificate": identity.base64, "name": "pylxd"})
        pinned = str(app.paths.server_certificate[0])
        options = {"endpoint": f"https://{address}", "verify": pinned, "cert": (str(identity.certificate), str(identity.key))}

    async def call(function: Callable[[pylxd.Client], Any], **more: Any) -> Any:
        return await asyncio.to_thread(lambda: function(pylxd.Client(**options, **more)))

    return call


@BOTH_WAYS
async def test_the_server(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        assert client.trusted
        assert client.has_api_extension("instances")
        assert client.host_info["environment"]["server"] == "lxd"
        assert client.resources["cpu"]["total"] >= 1

    await run(use)


@BOTH_WAYS
async def test_an_instances_life(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        config = {"name": "c1", "source": {"type": "none"}, "config": {"user.a": "b"}}
        created = client.instances.create(config, wait=True)
        assert (created.name, created.status, created.config["user.a"]) == ("c1", "Stopped", "b")
        assert [each.name for each in client.instances.all()] == ["c1"]
        created.start(wait=True)
        assert created.status == "Running"
        assert created.state().pid > 0
        created.freeze(wait=True)
        assert client.instances.get("c1").status == "Frozen"
        created.unfreeze(wait=True)
        created.restart(wait=True)
        created.stop(wait=True, force=True)
        assert client.instances.get("c1").status == "Stopped"
        created.config["user.a"] = "c"
        created.save(wait=True)
        assert client.instances.get("c1").config["user.a"] == "c"
        created.rename("c2", wait=True)
        assert client.instances.exists("c2") and not client.instances.exists("c1")
        client.instances.get("c2").delete(wait=True)
        assert client.instances.all() == []
        with pytest.raises(NotFound):
            client.instances.get("c2")

    await run(use)


async def test_containers_are_the_same(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        client.containers.create({"name": "c1", "source": {"type": "none"}}, wait=True)
        assert [each.name for each in client.containers.all()] == ["c1"]

    await run(use)


async def test_snapshots(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        instance = client.instances.create({"name": "c1", "source": {"type": "none"}}, wait=True)
        snapshot = instance.snapshots.create("s1", wait=True)
        assert snapshot.name == "s1"
        assert [each.name for each in instance.snapshots.all()] == ["s1"]
        instance.restore_snapshot("s1", wait=True)
        snapshot.rename("s2", wait=True)
        instance.snapshots.get("s2").delete(wait=True)
        assert instance.snapshots.all() == []

    await run(use)


@BOTH_WAYS
async def test_execution(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        instance = client.instances.create({"name": "c1", "source": {"type": "none"}}, wait=True)
        instance.start(wait=True)
        result = instance.execute(["echo", "hello"])
        assert (result.exit_code, result.stdout, result.stderr) == (0, "hello\n", "")

    await run(use)


async def test_profiles(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        profile = client.profiles.create("p1", config={"limits.cpu": "1"}, devices={})
        assert [each.name for each in client.profiles.all()] == ["default", "p1"]
        profile.config["limits.cpu"] = "2"
        profile.save()
        assert client.profiles.get("p1").config == {"limits.cpu": "2"}
        profile.rename("p2")
        assert client.profiles.exists("p2")
        client.profiles.get("p2").delete()
        with pytest.raises(LXDAPIException):
            client.profiles.get("p2")

    await run(use)


async def test_networks(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        config = {"ipv4.address": "10.7.7.1/24", "ipv6.address": "none"}
        network = client.networks.create("atolltest0", description="d", config=config)
        assert (network.managed, network.type, network.description) == (True, "bridge", "d")
        network.config["ipv4.nat"] = "true"
        network.save()
        assert client.networks.get("atolltest0").config["ipv4.nat"] == "true"
        assert "atolltest0" in [each.name for each in client.networks.all()]
        network.rename("atolltest1")
        client.networks.get("atolltest1").delete()
        assert not client.networks.exists("atolltest1")

    await run(use)


async def test_storage_pools_and_volumes(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        pool = client.storage_pools.create({"name": "p1", "driver": "dir", "config": {}})
        assert {each.name for each in client.storage_pools.all()} == {"pool", "p1"}
        assert pool.resources.get().space["total"] > 0
        volume = pool.volumes.create({"name": "v1", "type": "custom"}, wait=True)
        assert volume.type == "custom"
        volume.config["user.a"] = "b"
        volume.save()
        assert pool.volumes.get("custom", "v1").config["user.a"] == "b"
        volume.rename({"name": "v2", "pool": "p1"})
        volume = pool.volumes.get("custom", "v2")
        snapshot = volume.snapshots.create("s1", wait=True)
        assert snapshot.name == "s1" and len(volume.snapshots.all()) == 1
        snapshot.delete(wait=True)
        volume.delete()
        pool.delete()
        assert not client.storage_pools.exists("p1")

    await run(use)


async def test_projects(app: Any, run: Any) -> None:
    def manage(client: pylxd.Client) -> None:
        project = client.projects.create("p1", description="d", config={"features.profiles": "false"})
        assert (project.name, project.description) == ("p1", "d")
        project.description = "e"
        project.save()
        assert client.projects.get("p1").description == "e"

    def use(client: pylxd.Client) -> None:
        client.instances.create({"name": "c1", "source": {"type": "none"}}, wait=True)
        client.instances.get("c1").delete(wait=True)
        assert client.instances.all() == []

    await run(manage)
    await run(use, project="p1")
    await run(lambda client: client.projects.get("p1").delete())
    assert await app.get("/1.0/projects") == ["/1.0/projects/default"]


async def test_operations(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        answer = client.api.instances.post(json={"name": "c1", "source": {"type": "none"}})
        client.operations.wait_for_operation(answer.json()["operation"])
        operation = client.operations.get(answer.json()["operation"])
        assert operation.status_code == 200

    await run(use)


async def test_errors(run: Any) -> None:
    def use(client: pylxd.Client) -> None:
        with pytest.raises(LXDAPIException, match=r"no\.such"):
            client.instances.create({"name": "c1", "source": {"type": "none"}, "config": {"no.such": "1"}}, wait=True)
        with pytest.raises(LXDAPIException, match="running"):
            instance = client.instances.create({"name": "c1", "source": {"type": "none"}}, wait=True)
            instance.start(wait=True)
            instance.delete(wait=True)

    await run(use)


@BOTH_WAYS
async def test_events(app: Any, run: Any) -> None:
    heard: list[Any] = []

    def listen(client: pylxd.Client) -> None:
        events = client.events(event_types={pylxd.EventType.Lifecycle})

        def received(message: Any) -> None:
            heard.append(bytes(message.data))
            events.close()

        events.received_message = received
        events.connect()
        started.set()
        events.run()

    started = threading.Event()
    listening = asyncio.create_task(run(listen))
    assert await asyncio.to_thread(started.wait, 30)
    await app.create("c1")
    await asyncio.wait_for(listening, 30)
    assert b"instance-created" in heard[0]


async def test_certificates(run: Any, make_certificate: Any) -> None:
    identity = make_certificate(name="from the subject")

    def use(client: pylxd.Client) -> None:
        before = len(client.certificates.all())
        made = client.certificates.create("", identity.certificate.read_bytes(), name="box", restricted=True)
        assert (made.fingerprint, made.name, made.type, made.restricted) == (identity.fingerprint, "box", "client", True)
        assert len(client.certificates.all()) == before + 1
        made.delete()
        with pytest.raises(NotFound):
            client.certificates.get(identity.fingerprint)

    await run(use)
