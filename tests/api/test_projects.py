"""Projects: what is shared, what is apart, and who sees what."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.domain.caller import NOBODY, Caller, Protocol

ROOT = {"root": {"type": "disk", "pool": "pool", "path": "/"}}


@pytest.fixture
async def projects(app: Any) -> Any:
    """Projects p1 and p2, each with an instance of the same name."""
    for name in ("p1", "p2"):
        await app.do("POST", "/1.0/projects", {"name": name})
        await app.do("PUT", f"/1.0/profiles/default?project={name}", {"devices": ROOT})
        await app.create("c1", query=f"?project={name}", config={"user.owner": name})
    return app


@pytest.fixture
def restricted() -> Caller:
    return Caller(Protocol.TLS, username="r", trusted=True, restricted=True, projects=frozenset({"p1"}))


async def test_life(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p1", "description": "d"})
    found = await app.get("/1.0/projects/p1")
    assert (found["name"], found["description"], found["config"]["features.profiles"]) == ("p1", "d", "true")
    assert found["used_by"] == ["/1.0/profiles/default?project=p1"]
    assert await app.get("/1.0/projects") == ["/1.0/projects/default", "/1.0/projects/p1"]
    await app.do("PATCH", "/1.0/projects/p1", {"config": {"user.owner": "me"}})
    assert (await app.get("/1.0/projects/p1"))["config"]["user.owner"] == "me"
    await app.do("POST", "/1.0/projects/p1", {"name": "p2"})
    await app.do("DELETE", "/1.0/projects/p2")
    assert await app.get("/1.0/projects") == ["/1.0/projects/default"]


async def test_what_is_refused(app: Any) -> None:
    await app.do("POST", "/1.0/projects", {"name": "p1", "config": {"features.profiles": "false"}})
    await app.create("c1", query="?project=p1")
    assert (await app.refused("DELETE", "/1.0/projects/p1"))[0] == 400
    assert (await app.refused("POST", "/1.0/projects/p1", {"name": "p2"}))[0] == 400
    assert (await app.refused("DELETE", "/1.0/projects/default"))[0] == 403
    assert (await app.refused("POST", "/1.0/projects/default", {"name": "p2"}))[0] == 403
    assert (await app.refused("POST", "/1.0/projects", {"name": "p1"}))[0] in (400, 409)
    assert (await app.refused("PATCH", "/1.0/projects/p1", {"config": {"features.profiles": "true"}}))[0] == 400
    assert (await app.refused("PATCH", "/1.0/projects/p1", {"config": {"no.such": "true"}}))[0] == 400
    for unenforced in ({"restricted": "true"}, {"limits.instances": "5"}):
        assert (await app.refused("PATCH", "/1.0/projects/p1", {"config": unenforced}))[0] == 501
        assert (await app.refused("POST", "/1.0/projects", {"name": "p9", "config": unenforced}))[0] == 501
    status, _ = await app.refused("POST", "/1.0/instances?project=absent", {"name": "x", "source": {"type": "none"}})
    assert status in (400, 404)


async def test_a_project_that_is_not_there_is_named_before_what_it_has_not(app: Any) -> None:
    for path in ("/1.0/images/tiny", "/1.0/images/aliases/tiny", "/1.0/profiles/default"):
        assert await app.refused("GET", f"{path}?project=nosuch") == (404, "Project not found")


async def test_the_same_name_in_two_projects(projects: Any) -> None:
    assert (await projects.get("/1.0/instances/c1?project=p1"))["config"]["user.owner"] == "p1"
    assert (await projects.get("/1.0/instances/c1?project=p2"))["config"]["user.owner"] == "p2"
    assert await projects.get("/1.0/instances") == []
    everything = await projects.get("/1.0/instances?all-projects=true")
    assert everything == ["/1.0/instances/c1?project=p1", "/1.0/instances/c1?project=p2"]
    full = await projects.get("/1.0/instances?all-projects=true&recursion=2")
    assert [each["project"] for each in full] == ["p1", "p2"]
    assert (await projects.refused("GET", "/1.0/instances?all-projects=true&project=p1"))[0] == 400
    await projects.do("DELETE", "/1.0/instances/c1?project=p1")
    assert (await projects.get("/1.0/instances/c1?project=p2"))["config"]["user.owner"] == "p2"


async def test_a_restricted_client_sees_only_its_projects(projects: Any, restricted: Caller) -> None:
    projects.caller = restricted
    assert await projects.get("/1.0/projects") == ["/1.0/projects/p1"]
    assert await projects.get("/1.0/instances?all-projects=true") == ["/1.0/instances/c1?project=p1"]
    assert [each["project"] for each in await projects.get("/1.0/instances?all-projects=true&recursion=2")] == ["p1"]
    assert await projects.get("/1.0/instances?project=p1")
    volumes = await projects.get("/1.0/storage-pools/pool/volumes?all-projects=true&recursion=1")
    assert {each["project"] for each in volumes} == {"p1"}
    pool = await projects.get("/1.0/storage-pools/pool")
    assert "source" not in pool["config"]


FOREIGN = [
    ("GET", "/1.0/instances?project=p2", None),
    ("GET", "/1.0/instances", None),
    ("GET", "/1.0/instances/c1?project=p2", None),
    ("PUT", "/1.0/instances/c1?project=p2", {"description": "x"}),
    ("PATCH", "/1.0/instances/c1?project=p2", {"description": "x"}),
    ("POST", "/1.0/instances/c1?project=p2", {"name": "x"}),
    ("DELETE", "/1.0/instances/c1?project=p2", None),
    ("PUT", "/1.0/instances/c1/state?project=p2", {"action": "start"}),
    ("POST", "/1.0/instances/c1/exec?project=p2", {"command": ["true"]}),
    ("POST", "/1.0/instances/c1/snapshots?project=p2", {"name": "s"}),
    ("GET", "/1.0/instances/c1/logs?project=p2", None),
    ("POST", "/1.0/instances?project=p2", {"name": "x", "source": {"type": "none"}}),
    ("POST", "/1.0/instances?project=p1", {"name": "x", "source": {"type": "copy", "source": "c1", "project": "p2"}}),
    ("GET", "/1.0/profiles?project=p2", None),
    ("POST", "/1.0/profiles?project=p2", {"name": "x"}),
    ("GET", "/1.0/networks?project=p2", None),
    ("GET", "/1.0/storage-pools/pool/volumes?project=p2", None),
    ("GET", "/1.0/projects/p2", None),
    ("GET", "/1.0/projects/p2/state", None),
    ("DELETE", "/1.0/projects/p1", None),
    ("PATCH", "/1.0/projects/p1", {"config": {"restricted": "false"}}),
    ("POST", "/1.0/projects", {"name": "p3"}),
    ("POST", "/1.0/storage-pools", {"name": "x", "driver": "dir"}),
    ("PATCH", "/1.0/storage-pools/pool", {"description": "x"}),
    ("DELETE", "/1.0/storage-pools/pool", None),
    ("PATCH", "/1.0", {"config": {"core.https_address": ":1"}}),
    ("GET", "/1.0/warnings", None),
    ("GET", "/1.0/events?project=p2", None),
    ("GET", "/1.0/events?project=p1&type=logging", None),
    ("GET", "/internal/ready", None),
    ("POST", "/internal/sql", {"database": "global", "query": "SELECT 1"}),
    ("PUT", "/internal/shutdown", None),
]


@pytest.mark.parametrize(("method", "path", "body"), FOREIGN, ids=lambda value: str(value)[:60])
async def test_a_restricted_client_touches_nothing_else(
    projects: Any, restricted: Caller, method: str, path: str, body: Any
) -> None:
    before = await projects.get("/1.0/instances?all-projects=true&recursion=1")
    projects.caller = restricted
    status, _ = await projects.refused(method, path, body)
    assert status in (403, 404)
    projects.caller = None
    assert await projects.get("/1.0/instances?all-projects=true&recursion=1") == before


async def test_a_stranger_gets_nothing(projects: Any) -> None:
    """Of all that is served, only what is public answers, and that shows nothing."""
    document = await (await projects.session.get("/openapi.json")).json()
    projects.caller = NOBODY
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["x-atoll-access"] == "public":
                continue
            url = path.replace("{", "").replace("}", "")
            assert (await projects.refused(method.upper(), url))[0] == 403, (method, path)
    assert (await projects.get("/1.0"))["auth"] == "untrusted"
    assert await projects.get("/1.0/images") == []


async def test_operations_of_other_projects_are_hidden(projects: Any, restricted: Caller) -> None:
    status, content = await projects.call("PUT", "/1.0/instances/c1/state?project=p2", {"action": "start"})
    assert status == 202
    await projects.ended(content)
    projects.caller = restricted
    for method, path in (("GET", ""), ("GET", "/wait"), ("DELETE", "")):
        assert (await projects.refused(method, content["operation"] + path))[0] == 404
    listed = await projects.get("/1.0/operations?all-projects=true")
    assert content["operation"] not in [url for urls in listed.values() for url in urls]


async def test_users_in_other_projects_are_hidden(projects: Any, restricted: Caller) -> None:
    await projects.create("c0")
    used = (await projects.get("/1.0/storage-pools/pool"))["used_by"]
    assert {"/1.0/instances/c0", "/1.0/instances/c1?project=p1", "/1.0/instances/c1?project=p2"} <= set(used)
    projects.caller = restricted
    own = (await projects.get("/1.0/storage-pools/pool"))["used_by"]
    assert own and all(url.endswith("?project=p1") for url in own)
    [listed] = await projects.get("/1.0/storage-pools?recursion=1")
    assert listed["used_by"] == own


async def test_volumes_of_one_name_are_used_apart(projects: Any) -> None:
    custom = "/1.0/storage-pools/pool/volumes/custom"
    for project in ("p1", "p2"):
        await projects.do("POST", f"{custom}?project={project}", {"name": "v1"})
    disk = {"type": "disk", "pool": "pool", "source": "v1", "path": "/data"}
    await projects.do("PATCH", "/1.0/instances/c1?project=p1", {"devices": {"data": disk}})
    assert (await projects.get(f"{custom}/v1?project=p1"))["used_by"] == ["/1.0/instances/c1?project=p1"]
    assert (await projects.get(f"{custom}/v1?project=p2"))["used_by"] == []
    listed = await projects.get(f"{custom}?all-projects=true&recursion=1")
    assert [each["used_by"] for each in listed] == [["/1.0/instances/c1?project=p1"], []]
    await projects.do("DELETE", f"{custom}/v1?project=p2")
    assert (await projects.refused("DELETE", f"{custom}/v1?project=p1"))[0] == 400
