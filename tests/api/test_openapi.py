"""The description of the API says what is served, all of it, and agrees with LXD's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll.api import reference
from atoll.domain.caller import NOBODY

METHODS = {"get", "put", "post", "patch", "delete"}
DATA = Path(__file__).parent / "data"
REFERENCE = Path(__file__).parents[2] / "docs/reference/api.md"
ALIASES = ("/1.0/containers", "/1.0/virtual-machines")


@pytest.fixture
async def document(bare: Any) -> dict[str, Any]:
    async with bare.session.get("/openapi.json") as answer:
        assert answer.content_type == "application/json"
        described: dict[str, Any] = await answer.json()
        return described


def routes_of(file: str) -> set[tuple[str, str]]:
    """(method, path) of a data file, with all parameters as `{}`."""
    lines = (DATA / file).read_text().splitlines()
    return {(method, bare_path(path)) for method, path in (line.split() for line in lines if line and line[0] != "#")}


def bare_path(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(node: Any) -> Iterator[str]:
    """All `$ref` of a document."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and "$ref" in node:
        yield node["$ref"]
    for child in children:
        yield from references(child)


def test_it_is_a_well_formed_openapi_document(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= document["info"].keys()
    identifiers = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(identifiers)) == len(identifiers)
    tags = {tag["name"] for tag in document["tags"]}
    for path, method, operation in operations(document):
        assert path.startswith("/") and method in METHODS
        assert set(operation["tags"]) <= tags
        in_path = {each["name"] for each in operation["parameters"] if each.get("in") == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path)), path
        assert operation["responses"] and all("description" in r or "$ref" in r for r in operation["responses"].values())
        assert {name for entry in operation["security"] for name in entry} <= document["components"]["securitySchemes"].keys()


def test_all_references_lead_somewhere(document: dict[str, Any]) -> None:
    for reference_ in set(references(document)):
        node: Any = document
        for part in reference_.removeprefix("#/").split("/"):
            node = node[part]


def test_it_says_what_is_served_and_nothing_else(document: dict[str, Any], bare: Any) -> None:
    served = {(route.method, route.resource.canonical) for route in bare.application.router.routes()}
    expected = {(method, path) for method, path in served if method != "HEAD" and not path.startswith(ALIASES)}
    assert {(method.upper(), path) for path, method, _ in operations(document)} == expected


def test_every_route_of_lxd_is_served_or_known_not_to_be(document: dict[str, Any]) -> None:
    described = {(method.upper(), bare_path(path)) for path, method, _ in operations(document)}
    lxd, gap = routes_of("lxd-5.0.2-routes.txt"), routes_of("not-served.txt")
    assert gap <= lxd
    assert sorted(lxd - described) == sorted(gap), "tests/api/data/not-served.txt lists what is missing, no more and no less"


def test_what_changes_things_is_never_public(document: dict[str, Any]) -> None:
    """But for who adds a certificate by a secret, or sends an image by one."""
    open_ = {
        (method, path)
        for path, method, operation in operations(document)
        if method != "get" and operation["x-atoll-access"] == "public"
    }
    assert open_ == {("post", "/1.0/certificates"), ("post", "/1.0/images")}


def test_lists_take_a_filter_and_operations_are_announced(document: dict[str, Any]) -> None:
    listed = document["paths"]["/1.0/instances"]["get"]
    names = [each["$ref"].rpartition("/")[2] for each in listed["parameters"]]
    assert names == ["project", "all-projects", "recursion", "filter"]
    assert list(document["paths"]["/1.0/instances"]["post"]["responses"]) == ["202", "default"]
    body = document["paths"]["/1.0/instances"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/InstancesPost"}
    assert "base-image" in document["components"]["schemas"]["InstanceSource"]["properties"]


def test_the_committed_reference_is_up_to_date(document: dict[str, Any]) -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference.page(document), f"see {reference.__name__}"


async def test_a_stranger_may_read_it(bare: Any) -> None:
    bare.caller = NOBODY
    async with bare.session.get("/openapi.json") as answer:
        assert answer.status == 200
