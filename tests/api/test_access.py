"""Who may do what: every route for every kind of caller, and that nothing of other projects shows to who is restricted to one.

`data/access.txt` says of each route whose it is. A new route has to get a line there.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.caller import Caller, Protocol

from .conftest import tiny_image

TABLE = Path(__file__).parent / "data/access.txt"
FILLED = {
    "projects/{name}": "projects/blue",
    "{type}": "custom",
    "{pool}": "pool",
    "{fingerprint}": "a" * 64,
    "{id}": "00000000-0000-0000-0000-000000000000",
}
CANARY = "canary"

STRANGER = Caller(Protocol.TLS, username="0" * 64, address="203.0.113.7")
ADMIN = Caller(Protocol.TLS, username="1" * 64, address="203.0.113.7", trusted=True)
BLUE = Caller(Protocol.TLS, username="2" * 64, address="203.0.113.7", trusted=True, restricted=True, projects=frozenset({"blue"}))
NOWHERE = Caller(Protocol.TLS, username="3" * 64, trusted=True, restricted=True)
METRICS = Caller(Protocol.TLS, username="4" * 64, trusted=True, certificate_type="metrics")

REFUSED = {
    "a stranger": (STRANGER, "", {"trusted", "figures", "project", "own", "admin", "local"}),
    "an administrator by TLS": (ADMIN, "", {"local"}),
    "of blue, in blue": (BLUE, "blue", {"admin", "local"}),
    "of blue, in default": (BLUE, "default", {"figures", "project", "admin", "local"}),
    "of blue, not saying where": (BLUE, "", {"project", "admin", "local"}),
    "of no project": (NOWHERE, "", {"project", "own", "admin", "local"}),
    "for metrics": (METRICS, "", {"project", "own", "admin", "local"}),
}
"""(who, in which project, the classes of routes that are refused)"""


def table() -> dict[tuple[str, str], str]:
    """Class by (method, path)."""
    lines = (line.split() for line in TABLE.read_text().splitlines() if not line.startswith("#"))
    return {(method, path): kind for kind, method, path in lines}


def served(app: Any) -> Iterator[tuple[str, str]]:
    for route in app.application.router.routes():
        path = route.resource.canonical
        if route.method != "HEAD" and not path.startswith(("/1.0/containers", "/1.0/virtual-machines")):
            yield route.method, path


def filled(path: str, project: str = "") -> str:
    """A path with names of things that are not there."""
    for part, name in FILLED.items():
        path = path.replace(part, name)
    return re.sub(r"\{\w+\}", "x", path) + (f"?project={project}" if project else "")


async def test_every_route_is_somebodys(app: Any) -> None:
    assert sorted(served(app)) == sorted(table()), "give each new route a line in data/access.txt"


async def test_every_route_for_every_caller(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "blue", "config": {}})
    wrong = []
    for who, (app.caller, project, refused) in REFUSED.items():
        for (method, path), kind in table().items():
            async with app.session.request(method, filled(path, project), json=[]) as answer:  # no route takes a list
                body = await answer.read()
            expected = kind in refused
            if (answer.status == 403) != expected and not (kind == "stranger" and answer.status in (403, 404)):
                wrong.append((who, kind, method, path, answer.status, body))
            assert not expected or json.loads(body)["metadata"] is None
    assert not wrong, "\n".join(map(str, wrong))


@pytest.fixture
async def world(app: Any, make_certificate: Any) -> Any:
    """Everything there is of the project default is called after the canary; the project blue has a machine of its own."""
    await app.do("POST", "/1.0/projects", {"name": "blue", "config": {"features.storage.volumes": "true"}})
    await app.do("POST", "/1.0/projects", {"name": f"{CANARY}-project", "config": {}})
    await app.do(
        "POST", "/1.0/networks", {"name": "net0", "type": "bridge", "config": {"ipv4.address": "none", "ipv6.address": "none"}}
    )
    nic = {"eth0": {"type": "nic", "network": "net0"}}
    await app.do("POST", "/1.0/profiles", {"name": f"{CANARY}-profile", "config": {"user.x": CANARY}})
    await app.create(f"{CANARY}-c2", devices=nic)
    await app.create(f"{CANARY}-c1", profiles=["default", f"{CANARY}-profile"], config={"user.x": CANARY})
    await app.do("POST", f"/1.0/instances/{CANARY}-c1/snapshots", {"name": f"{CANARY}-s1"})
    await app.set_state(f"{CANARY}-c1", "start")
    await app.do("POST", "/1.0/storage-pools/pool/volumes/custom", {"name": f"{CANARY}-v1", "description": CANARY})
    octets = {"Content-Type": "application/octet-stream"}
    async with app.session.post("/1.0/images", data=tiny_image(CANARY), headers=octets) as answer:
        ended = await app.ended(json.loads(await answer.read()))
    app.fingerprint = ended["metadata"]["fingerprint"]
    await app.do("POST", "/1.0/images/aliases", {"name": f"{CANARY}-image", "target": app.fingerprint})
    await app.do("POST", "/1.0/certificates", {"certificate": make_certificate().base64, "name": f"{CANARY}-client"})
    _, token = await app.call("POST", "/1.0/certificates", {"token": True, "name": f"{CANARY}-token"})
    app.token = token["operation"]
    root = {"root": {"type": "disk", "pool": "pool", "path": "/"}}
    await app.do("PUT", "/1.0/profiles/default?project=blue", {"devices": root})
    await app.create("mine", query="?project=blue")
    return app


def looks(app: Any, queries: Sequence[str]) -> Iterator[str]:
    """GETs of all things that can be listed or that are there, at all depths."""
    instance, volumes = f"/1.0/instances/{CANARY}-c1", "/1.0/storage-pools/pool/volumes"
    parts = ("", "/state", "/snapshots", f"/snapshots/{CANARY}-s1", "/logs", "/backups", "/metadata", "/console", "/sftp")
    names = [
        "/1.0", "/1.0/certificates", "/1.0/images", "/1.0/images/aliases", f"/1.0/images/aliases/{CANARY}-image",
        f"/1.0/images/{app.fingerprint}", f"/1.0/images/{app.fingerprint}/export", "/1.0/networks", "/1.0/networks/net0",
        "/1.0/networks/net0/leases", "/1.0/networks/net0/state", "/1.0/operations", app.token, f"{app.token}/wait?timeout=0",
        "/1.0/profiles", "/1.0/profiles/default", f"/1.0/profiles/{CANARY}-profile", "/1.0/projects", "/1.0/projects/default",
        f"/1.0/projects/{CANARY}-project", f"/1.0/projects/{CANARY}-project/state", "/1.0/resources", "/1.0/storage-pools",
        "/1.0/storage-pools/pool", "/1.0/storage-pools/pool/resources", volumes, f"{volumes}/custom", "/1.0/metrics",
        f"{volumes}/custom/{CANARY}-v1", f"{volumes}/container/{CANARY}-c1", "/1.0/warnings", "/1.0/cluster",
        "/1.0/cluster/members", "/1.0/instances", f"{instance}/metadata/templates", f"{instance}/files?path=/",
        *(f"{instance}{part}" for part in parts),
    ]  # fmt: skip
    for name in names:
        for query in queries:
            for recursion in ("", "recursion=2"):
                asked = "&".join(part for part in (query, recursion) if part)
                yield f"{name}{'&' if '?' in name else '?'}{asked}"


async def test_nothing_of_other_projects_shows(world: Any) -> None:
    few = ("", "project=default", "all-projects=true")
    for caller, queries in (
        (BLUE, (*few, "project=blue", f"project={CANARY}-project", "project=none")),
        (NOWHERE, few),
        (STRANGER, few),
    ):
        world.caller = caller
        for url in looks(world, queries):
            async with world.session.get(url) as answer:
                text = await answer.text()
            told = text.replace(f"{CANARY}-project", "") if f"project={CANARY}" in url else text  # what was asked may be repeated
            assert CANARY not in told, (url, answer.status)
            assert answer.status < 500, url
            assert world.fingerprint not in text or world.fingerprint in url
    world.caller = BLUE
    assert await world.get("/1.0/instances?project=blue") == ["/1.0/instances/mine?project=blue"]
    assert await world.get("/1.0/instances?all-projects=true") == ["/1.0/instances/mine?project=blue"]
    assert await world.get("/1.0/projects") == ["/1.0/projects/blue"]


async def test_what_is_missing_and_what_is_others_answer_the_same(world: Any) -> None:
    world.caller = BLUE
    for there, missing in (
        ("/1.0/projects/default", "/1.0/projects/nothing"),
        (f"/1.0/images/{world.fingerprint}?project=blue", f"/1.0/images/{'0' * 64}?project=blue"),
        (f"/1.0/images/{world.fingerprint}", f"/1.0/images/{'0' * 64}"),
        (f"/1.0/images?project={CANARY}-project", "/1.0/images?project=nothing"),
        (f"/1.0/instances?project={CANARY}-project", "/1.0/instances?project=nothing"),
        (f"/1.0/instances/{CANARY}-c1?project=blue", "/1.0/instances/nothing?project=blue"),
        (world.token, f"/1.0/operations/{FILLED['{id}']}"),
    ):
        (status, content), other = await world.call("GET", there), await world.call("GET", missing)
        assert (status, content) == other and not content["metadata"], there


async def test_events_are_of_the_own_projects(world: Any) -> None:
    world.caller = BLUE
    heard = [await world.events(query) for query in ("?project=blue", "?all-projects=true")]
    world.caller = None
    await world.set_state(f"{CANARY}-c1", "stop", force=True)
    await world.do("PATCH", "/1.0", {"config": {"user.x": CANARY}})
    await world.do("DELETE", f"/1.0/images/{world.fingerprint}")
    await world.do("PATCH", "/1.0/instances/mine?project=blue", {"config": {"user.x": "the last"}})
    for socket in heard:
        while True:
            message = (await asyncio.wait_for(socket.receive(), 30)).data
            assert CANARY not in message
            assert json.loads(message)["project"] == "blue"
            if "instance-updated" in message:
                break


FOREIGN = {"project": "default"}
VOLUME_COPY = {"type": "copy", "pool": "pool", "name": f"{CANARY}-v1", **FOREIGN}
MINE, VOLUMES = "/1.0/instances?project=blue", "/1.0/storage-pools/pool/volumes/custom"
ATTEMPTS: dict[str, tuple[str, str, Any]] = {
    "copy": ("POST", MINE, {"name": "n", "source": {"type": "copy", "source": f"{CANARY}-c1", **FOREIGN}}),
    "copy a snapshot": ("POST", MINE, {"name": "n", "source": {"type": "copy", "source": f"{CANARY}-c1/{CANARY}-s1", **FOREIGN}}),
    "copy by no type": ("POST", MINE, {"name": "n", "source": {"type": "", "source": f"{CANARY}-c1", **FOREIGN}}),
    "use an image": ("POST", MINE, {"name": "n", "source": {"type": "image", "alias": f"{CANARY}-image", **FOREIGN}}),
    "move out": ("POST", "/1.0/instances/mine?project=blue", {"name": "mine", **FOREIGN}),
    "publish": ("POST", "/1.0/images?project=blue", {"source": {"type": "instance", "name": f"{CANARY}-c1", **FOREIGN}}),
    "copy an image": ("POST", "/1.0/images?project=blue", {"source": {"type": "image", "alias": f"{CANARY}-image", **FOREIGN}}),
    "copy a volume": ("POST", f"{VOLUMES}?project=blue", {"name": "n", "source": VOLUME_COPY}),
    "delete": ("DELETE", f"/1.0/instances/{CANARY}-c1?project=blue", None),
    "delete a profile": ("DELETE", f"/1.0/profiles/{CANARY}-profile?project=blue", None),
    "delete a volume": ("DELETE", f"{VOLUMES}/{CANARY}-v1?project=blue", None),
    "delete an alias": ("DELETE", f"/1.0/images/aliases/{CANARY}-image?project=blue", None),
    "change the own project": ("PATCH", "/1.0/projects/blue", {"config": {"restricted": "false"}}),
    "stop": ("PUT", f"/1.0/instances/{CANARY}-c1/state?project=blue", {"action": "stop", "force": True}),
    "stop all": ("PUT", "/1.0/instances", {"state": {"action": "stop", "force": True}}),
}  # fmt: skip


async def test_nothing_of_other_projects_is_reached(world: Any) -> None:
    before = await world.get("/1.0/instances?all-projects=true&recursion=1")
    for what, (method, path, body) in ATTEMPTS.items():
        world.caller = BLUE
        status, text = await world.refused(method, path, body)
        assert status in (400, 403, 404), (what, text)
        world.caller = None
        assert await world.get("/1.0/instances?all-projects=true&recursion=1") == before, what
    assert f"/1.0/profiles/{CANARY}-profile" in await world.get("/1.0/profiles")
    assert await world.get(VOLUMES) == [f"{VOLUMES}/{CANARY}-v1"]
    assert await world.get("/1.0/images/aliases") == [f"/1.0/images/aliases/{CANARY}-image"]
