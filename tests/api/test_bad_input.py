"""Bad input of every kind, on every route: a clear 4xx, never a 5xx, and nothing is left of it."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from atoll.domain.caller import NOBODY, Caller, Protocol

NAMES = [
    "..",
    ".",
    "a/b",
    "../../etc/passwd",
    "a\0b",
    "a\nb",
    "\x1b[31m",
    "-rf",
    " ",
    "a b",
    "a" * 300,
    "\u202eabc",
    "%2e%2e",
    "💣",
    "\ud800",
    "a'; DROP TABLE instances; --",
    "*",
]
BY_BODY = [
    ("POST", "/1.0/instances", {"source": {"type": "none"}}),
    ("POST", "/1.0/instances/c1", {}),
    ("POST", "/1.0/networks", {}),
    ("POST", "/1.0/networks/atolltest0", {}),
    ("PUT", "/1.0/instances/c1", {"restore": None}),
]
MAY_BE_ODD = [
    ("POST", "/1.0/instances/c1/snapshots/s1", {}),
    ("POST", "/1.0/projects/p1", {}),
    ("POST", "/1.0/instances/c1/snapshots", {}),
    ("POST", "/1.0/profiles", {}),
    ("POST", "/1.0/profiles/other", {}),
    ("POST", "/1.0/projects", {}),
    ("POST", "/1.0/storage-pools", {"driver": "dir"}),
    ("POST", "/1.0/storage-pools/pool/volumes/custom", {}),
    ("POST", "/1.0/storage-pools/pool/volumes/custom/v1", {}),
    ("POST", "/1.0/storage-pools/pool/volumes/custom/v1/snapshots", {}),
]
"""Where some of the names are good ones, such as `a b` for a profile."""

NEVER_GOOD = ("..", ".", "a/b", "../../etc/passwd", "a\0b", "a\nb", "\x1b[31m", "-rf", "a" * 300)


@pytest.fixture
async def full(app: Any) -> Any:
    """One of everything."""
    await app.create("c1")
    await app.do("POST", "/1.0/instances/c1/snapshots", {"name": "s1"})
    await app.do("POST", "/1.0/projects", {"name": "p1"})
    await app.do("POST", "/1.0/profiles", {"name": "other"})
    await app.do("POST", "/1.0/networks", {"name": "atolltest0", "config": {"ipv4.address": "10.7.7.1/24"}})
    await app.do("POST", "/1.0/storage-pools/pool/volumes/custom", {"name": "v1"})
    await app.do("POST", "/1.0/storage-pools/pool/volumes/custom/v1/snapshots", {"name": "s1"})
    return app


LISTS = ("instances", "projects", "profiles", "networks", "storage-pools", "storage-pools/pool/volumes", "images", "certificates")


async def everything(app: Any) -> Any:
    """All that there is."""
    found = {kind: await app.get(f"/1.0/{kind}?recursion=1") for kind in LISTS}
    found["snapshots"] = await app.get("/1.0/instances/c1/snapshots")
    found["volume snapshots"] = await app.get("/1.0/storage-pools/pool/volumes/custom/v1/snapshots")
    found["networks"] = [network for network in found["networks"] if network["managed"]]
    found["files"] = sorted(str(path) for path in app.paths.root.rglob("*") if "/database/" not in str(path))
    return found


def body_with(name: str, body: dict[str, Any]) -> bytes:
    field = "restore" if "restore" in body else "name"
    return json.dumps({**body, field: name}).encode()


async def send(app: Any, method: str, path: str, data: bytes) -> tuple[int, str]:
    status, content = await app.call(method, path, data=data, headers={"Content-Type": "application/json"})
    if status == 202:
        ended = await app.ended(content)
        return (200, "") if ended["status"] == "Success" else (400, ended["err"])
    return status, content["error"]


@pytest.mark.parametrize(("method", "path", "body"), BY_BODY, ids=lambda value: str(value)[:50])
async def test_bad_names_in_bodies(full: Any, method: str, path: str, body: dict[str, Any]) -> None:
    before = await everything(full)
    for name in NAMES:
        status, text = await send(full, method, path, body_with(name, body))
        assert 400 <= status < 500 and text, (name, status, text)
    assert await everything(full) == before


@pytest.mark.parametrize(("method", "path", "body"), MAY_BE_ODD, ids=lambda value: str(value)[:50])
async def test_names_that_can_never_be(full: Any, method: str, path: str, body: dict[str, Any]) -> None:
    before = await everything(full)
    for name in NEVER_GOOD:
        status, text = await send(full, method, path, body_with(name, body))
        assert 400 <= status < 500 and text, (name, status, text)
    assert await everything(full) == before
    for name in NAMES:
        status, _ = await send(full, method, path, body_with(name, body))
        assert status < 500, name


async def test_bad_names_in_paths(full: Any) -> None:
    """Every parameter of every path, by every method."""
    document = await (await full.session.get("/openapi.json")).json()
    good = {"name": "c1", "snapshot": "s1", "pool": "pool", "type": "custom", "volume": "v1"}
    before = await everything(full)
    for path, methods in document["paths"].items():
        parameters = [each["name"] for each in methods[next(iter(methods))]["parameters"] if each.get("in") == "path"]
        if "websocket" in path or path.endswith("/wait"):
            continue
        for parameter, name in itertools.product(parameters, NAMES):
            if name in (".", ".."):
                continue  # clients and servers take these out of a path before anybody sees them
            values = {**dict.fromkeys(parameters, "x"), **good, parameter: name.encode(errors="surrogatepass")}
            url = path
            for each, value in values.items():
                url = url.replace(f"{{{each}}}", quote(value, safe=""))
            for method in methods:
                await checked(full, method, url)
    assert await everything(full) == before


async def checked(app: Any, method: str, url: str) -> None:
    status, content = await app.call(method.upper(), URL(url, encoded=True), {} if method in ("put", "post", "patch") else None)
    if status == 202:
        await app.ended(content)
        return
    assert 400 <= status < 500 or status == 501 or (status == 200 and method == "get"), (method, url, content)


WRONG_TYPES: list[Any] = [
    [],
    "text",
    1,
    True,
    {"name": 1},
    {"name": []},
    {"config": []},
    {"config": {"a": 1}},
    {"devices": {"d": "x"}},
]


async def test_wrong_json_types(full: Any) -> None:
    """Bodies that are not what the route's type says."""
    document = await (await full.session.get("/openapi.json")).json()
    before = await everything(full)
    values = {"name": "c1", "snapshot": "s1", "pool": "pool", "type": "custom", "volume": "v1"}
    for path, methods in document["paths"].items():
        url = path
        for name, value in values.items():
            url = url.replace(f"{{{name}}}", value)
        for method, operation in methods.items():
            if "requestBody" not in operation:
                continue
            for body in (b"[]", b'"text"', b"1", b"{", b"\xff\xfe", b"nul", b'{"name":', b"{}{}"):
                status, text = await send(full, method.upper(), url, body)
                assert 400 <= status < 500, (method, url, body, status, text)
    assert await everything(full) == before


@pytest.mark.parametrize("body", WRONG_TYPES, ids=str)
@pytest.mark.parametrize("path", ["instances", "profiles", "projects", "networks", "storage-pools", "storage-pools/pool/volumes"])
async def test_wrong_types_of_fields(app: Any, path: str, body: Any) -> None:
    if isinstance(body, dict) and "devices" in body and path not in ("instances", "profiles"):
        pytest.skip("no devices there")
    status, _ = await app.refused("POST", f"/1.0/{path}", body)
    assert status == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/1.0/instances", {"source": {"type": "none"}, "config": {"no.such": "1"}}),
        ("/1.0/instances", {"source": {"type": "none"}, "config": {"limits.cpu": "many"}}),
        ("/1.0/instances", {"source": {"type": "none"}, "config": {"limits.memory": "1 furlong"}}),
        ("/1.0/instances", {"source": {"type": "none"}, "config": {"user.x": "a\0b"}}),
        ("/1.0/instances", {"source": {"type": "none"}, "config": {"raw.lxc": "lxc.hook.start=/bin/sh\0"}}),
        ("/1.0/instances", {"source": {"type": "none"}, "devices": {"d": {"type": "disk"}}}),
        ("/1.0/instances", {"source": {"type": "none"}, "devices": {"d": {"type": "nic", "no": "1"}}}),
        ("/1.0/instances", {"source": {"type": "none"}, "devices": {"../d": {"type": "none"}}}),
        ("/1.0/instances", {"source": {"type": "none"}, "devices": {"root": {"type": "disk", "path": "/", "pool": "no"}}}),
        ("/1.0/instances", {"source": {"type": "none"}, "profiles": ["absent"]}),
        ("/1.0/instances", {"source": {"type": "none"}, "profiles": ["default", "default"]}),
        ("/1.0/instances", {"source": {"type": "none"}, "profiles": []}),
        ("/1.0/instances", {"source": {"type": "none"}, "instance_type": "huge"}),
        ("/1.0/instances", {"source": {"type": "none"}, "type": "virtual-machine"}),
        ("/1.0/instances", {"source": {"type": "none"}, "type": "nonsense"}),
        ("/1.0/instances", {"source": {"type": "none"}, "architecture": "nonsense"}),
        ("/1.0/instances", {"source": {"type": "nonsense"}}),
        ("/1.0/instances", {"source": {}}),
        ("/1.0/instances", {}),
        ("/1.0/instances", {"source": {"type": "image", "alias": "absent"}}),
        ("/1.0/instances", {"source": {"type": "image", "fingerprint": "zz"}}),
        ("/1.0/instances", {"source": {"type": "image"}}),
        ("/1.0/projects", {"name": "p", "config": {"features.profiles": "perhaps"}}),
        ("/1.0/projects", {"name": "p", "config": {"limits.instances": "-5"}}),
    ],
    ids=str,
)
async def test_bad_content(app: Any, path: str, body: dict[str, Any]) -> None:
    status, text = await app.refused("POST", path, {"name": "c1", **body})
    assert status in (400, 404, 501) and text
    assert await app.get("/1.0/instances") == []
    assert await app.get("/1.0/storage-pools/pool/volumes") == []
    assert await app.get("/1.0/projects") == ["/1.0/projects/default"]


async def test_bodies_have_a_size(app: Any) -> None:
    """Sent at once, or in pieces whose sum nobody told. Who may do everything may send more."""

    async def pieces(size: int) -> Any:
        for _ in range(0, size, 1 << 20):
            yield b" " * (1 << 20)

    long = json.dumps({"config": {f"user.{number}": "x" * 1_000_000 for number in range(3)}}).encode()
    assert (await send(app, "PATCH", "/1.0/profiles/default", long))[0] == 200
    for app.caller, limit in (
        (None, 16 << 20),
        (Caller(Protocol.TLS, trusted=True, restricted=True), 1 << 20),
        (NOBODY, 1 << 20),
    ):
        assert (await send(app, "POST", "/1.0/certificates", b" " * (limit + 1)))[0] == 413
        assert (await app.call("POST", "/1.0/certificates", data=pieces(limit + 1)))[0] == 413


async def test_brackets_in_texts_nest_nothing(app: Any) -> None:
    text = '[{"' * 100 + "\\"
    await app.do("PATCH", "/1.0/profiles/default", {"description": text})
    assert (await app.get("/1.0/profiles/default"))["description"] == text


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'["\\\\",'])
async def test_bodies_have_a_depth(app: Any, opening: bytes) -> None:
    assert (await send(app, "POST", "/1.0/instances", opening * 50_000))[0] == 400


@pytest.mark.parametrize(
    "query",
    ["recursion=x", "recursion=" + "9" * 5000, "filter=status", "filter=status+xx+y", "filter=("],
)
async def test_bad_queries(app: Any, query: str) -> None:
    await app.create("c1")
    status, _ = await app.refused("GET", f"/1.0/instances?{query}")
    assert status == 400


@pytest.mark.parametrize(
    "body",
    [{}, {"action": "dance"}, {"action": "start", "timeout": "soon"}, {"action": "start", "force": "yes"}, {"action": None}],
    ids=str,
)
async def test_bad_states(app: Any, body: dict[str, Any]) -> None:
    await app.create("c1")
    assert (await app.refused("PUT", "/1.0/instances/c1/state", body))[0] == 400
    assert (await app.refused("PUT", "/1.0/instances", {"state": body}))[0] == 400


@pytest.mark.parametrize("key", ["volatile.uuid", "volatile.idmap.base"])
async def test_keys_that_are_the_daemons(app: Any, key: str) -> None:
    """Clients send them along, with what another instance has there: they stay as they are."""
    await app.create("c1")
    before = (await app.get("/1.0/instances/c1"))["config"][key]
    await app.do("PATCH", "/1.0/instances/c1", {"config": {key: "5"}})
    assert (await app.get("/1.0/instances/c1"))["config"][key] == before


async def test_what_is_not_there(app: Any) -> None:
    assert (await app.refused("GET", "/1.0/nonsense"))[0] == 404
    assert (await app.refused("GET", "/2.0"))[0] == 404
    assert (await app.refused("DELETE", "/1.0"))[0] == 501
    assert (await app.refused("POST", "/1.0/instances/absent/exec", {"command": ["true"]}))[0] == 404
    assert (await app.refused("GET", "/1.0/instances/absent/logs/lxc.log"))[0] == 404


async def test_null_is_nothing(app: Any) -> None:
    """As clients written for LXD send it, for any field."""
    body = {"name": "c1", "description": None, "ephemeral": None, "config": {"user.a": "b", "user.c": None}, "devices": None}
    await app.do("POST", "/1.0/instances", {**body, "source": {"type": "none", "alias": None}, "profiles": None})
    config = (await app.get("/1.0/instances/c1"))["config"]
    assert config["user.a"] == "b" and not config.get("user.c")
    await app.do("PATCH", "/1.0/instances/c1", {"description": None, "config": {"user.a": None}})
    assert "user.a" not in (await app.get("/1.0/instances/c1"))["config"]
    assert (await app.refused("POST", "/1.0/profiles", {"name": None}))[0] == 400
    assert (await app.refused("POST", "/1.0/profiles", None))[0] == 400
