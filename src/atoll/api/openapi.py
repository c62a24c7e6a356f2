"""The OpenAPI 3.1 description of the API, generated from the routes and their wire types."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from atoll.api.route import Access, Route
from atoll.version import COMPAT_VERSION

_PARAMETER = re.compile(r"\{(\w+)(?::[^{}]*)?\}")
_REF = "#/components/schemas/"
_JSON, _BYTES = "application/json", "application/octet-stream"

_ACROSS_PROJECTS = frozenset(
    {
        "/1.0/events",
        "/1.0/instances",
        "/1.0/operations",
        "/1.0/storage-pools/{pool}/volumes",
        "/1.0/storage-pools/{pool}/volumes/{type}",
    }
)
"""Paths whose GET takes `all-projects`."""

_RECURSIVE = frozenset({"/1.0/certificates", "/1.0/instances/{name}", "/1.0/operations"})
"""Paths whose GET takes `recursion`, besides the lists of objects."""

_WEBSOCKETS = frozenset({"/1.0/events", "/1.0/operations/{id}/websocket"})
_WITHOUT_ENVELOPE = frozenset({"/openapi.json"})

_ACCESS = {
    Access.PUBLIC: "Open to everybody; who is not trusted is shown less.",
    Access.TRUSTED: "For trusted clients; a restricted one sees what belongs to its projects.",
    Access.PROJECT: "For trusted clients that may use the project.",
    Access.ADMIN: "For unrestricted clients.",
    Access.LOCAL: "On the unix socket only.",
}

_QUERIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "project": ("The project to look in or to change", {"type": "string", "default": "default"}),
    "all-projects": ("List what is in all projects; excludes `project`", {"type": "boolean", "default": False}),
    "recursion": ("0: URLs; 1: objects; 2: objects with their state", {"type": "integer", "enum": [0, 1, 2], "default": 0}),
    "filter": (
        "Only objects for which this holds, such as `status eq Running and config.image.os eq Debian`",
        {"type": "string"},
    ),
}

_WORDS: Mapping[str, Any] = {"type": "string"}
_NUMBER: Mapping[str, Any] = {"type": "integer"}


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """The whole document. Paths are as clients write them, without the patterns that the router has in them."""
    listed = sorted(routes, key=lambda route: (plain(route.path), route.method))
    types = [kind for route in listed for kind in (route.body, route.result) if _has_schema(kind)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
    by_type = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        paths.setdefault(plain(route.path), {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Atoll",
            "version": "1.0",
            "summary": "The REST API of the container manager Atoll",
            "description": f"Compatible with LXD {COMPAT_VERSION}. Everything below /1.0/instances is also below /1.0/containers"
            " and /1.0/virtual-machines, limited to that type.",
        },
        "paths": paths,
        "components": {
            "schemas": {**_envelopes(), **components},
            "responses": {"Error": _json_response("The request failed", {"$ref": f"{_REF}ErrorResponse"})},
            "parameters": {name: _query_parameter(name) for name in _QUERIES},
            "securitySchemes": {
                "tls": {"type": "mutualTLS", "description": "A client certificate that the server trusts (HTTPS)"},
                "socket": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Host",
                    "description": "The unix socket: whoever may open it is root's equal; no header is looked at",
                },
            },
        },
        "tags": [{"name": name} for name in sorted({tag_of(route) for route in listed})],
    }


def plain(path: str) -> str:
    """A route's path without the router's patterns: `/1.0/images/aliases/{name:.+}` is `…/{name}`."""
    return _PARAMETER.sub(r"{\1}", path)


def tag_of(route: Route) -> str:
    """What a route is filed under: its own word, else the first part of its path."""
    parts = route.path.removeprefix("/1.0").strip("/").split("/")
    return route.tag or (parts[0] if parts[0] and route.path.startswith(("/1.0", "/internal")) else "server")


def _has_schema(kind: Any) -> bool:
    return kind is not None and kind is not bytes


# --- one route ---------------------------------------------------------------------------------------------------------


def _operation(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any]:
    path = plain(route.path)
    described: dict[str, Any] = {
        "operationId": f"{_identifier(path)}_{route.method.lower()}",
        "summary": route.summary,
        "description": _ACCESS[route.access],
        "tags": [tag_of(route)],
        "parameters": [*_path_parameters(path), *({"$ref": f"#/components/parameters/{name}"} for name in _queries(route))],
        "responses": {**_responses(route, schemas), "default": {"$ref": "#/components/responses/Error"}},
        "security": _security(route.access),
        "x-atoll-access": route.access.value,
    }
    if route.body is not None:
        described["requestBody"] = {"content": {_JSON: {"schema": schemas[str(route.body)]}}}
    if route.extension:
        described["x-api-extension"] = route.extension
    return described


def _identifier(path: str) -> str:
    words = re.findall(r"[a-zA-Z0-9]+", path.removeprefix("/1.0"))
    return "_".join(words) or ("api" if path == "/" else "server")


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": _WORDS} for name in _PARAMETER.findall(path)]


def _queries(route: Route) -> Sequence[str]:
    names = ["project"] if route.access is Access.PROJECT or tag_of(route) == "images" else []
    if route.method != "GET":
        return names
    if plain(route.path) in _ACROSS_PROJECTS:
        names.append("all-projects")
    if is_object_list(route):
        names += ["recursion", "filter"]
    elif plain(route.path) in _RECURSIVE:
        names.append("recursion")
    return names


def is_object_list(route: Route) -> bool:
    """Whether its GET lists objects: as URLs, or with recursion as they are."""
    arguments = typing.get_args(route.result)
    return typing.get_origin(route.result) is list and isinstance(arguments[0], type) and issubclass(arguments[0], msgspec.Struct)


def _security(access: Access) -> list[dict[str, list[str]]]:
    socket: dict[str, list[str]] = {"socket": []}
    if access is Access.LOCAL:
        return [socket]
    known: list[dict[str, list[str]]] = [{"tls": []}, socket]
    anybody: dict[str, list[str]] = {}
    return [anybody, *known] if access is Access.PUBLIC else known


def _responses(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any]:
    if route.is_async:
        return {"202": _json_response("An operation does it", {"$ref": f"{_REF}AsyncResponse"})}
    if plain(route.path) in _WEBSOCKETS:
        return {"101": {"description": "A websocket"}}
    if route.result is bytes:
        return {"200": {"description": "The file", "content": {_BYTES: {}}}}
    if plain(route.path) in _WITHOUT_ENVELOPE:
        return {"200": _json_response("The document itself, in no envelope", schemas[str(route.result)])}
    if route.method == "POST" and route.access is not Access.LOCAL:
        location = {"Location": {"description": "URL of the new object", "schema": _WORDS}}
        return {"201": {**_json_response("Created", {"$ref": f"{_REF}SyncResponse"}), "headers": location}}
    return {"200": _json_response("Done", _sync_schema(route, schemas))}


def _sync_schema(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any]:
    envelope = {"$ref": f"{_REF}SyncResponse"}
    if route.result is None:
        return envelope
    metadata = schemas[str(route.result)]
    if is_object_list(route):
        metadata = {"anyOf": [{"type": "array", "items": _WORDS}, metadata]}
    return {"allOf": [envelope, {"type": "object", "properties": {"metadata": metadata}}]}


def _json_response(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _query_parameter(name: str) -> dict[str, Any]:
    description, schema = _QUERIES[name]
    return {"name": name, "in": "query", "description": description, "schema": schema}


# --- the envelope ------------------------------------------------------------------------------------------------------


def _envelopes() -> dict[str, Any]:
    return {
        "SyncResponse": _envelope("sync", "What was asked for is in `metadata`", {}),
        "AsyncResponse": _envelope("async", "An operation was started; `operation` is its URL", {"$ref": f"{_REF}Operation"}),
        "ErrorResponse": _envelope("error", "`error` says what is wrong, `error_code` is the HTTP status", {"type": "null"}),
        "Operation": _operation_schema(),
    }


def _envelope(kind: str, description: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    properties = {
        "type": {"const": kind},
        "status": _WORDS,
        "status_code": _NUMBER,
        "operation": _WORDS,
        "error_code": _NUMBER,
        "error": _WORDS,
        "metadata": metadata,
    }
    return {"type": "object", "description": description, "properties": properties, "required": list(properties)}


def _operation_schema() -> dict[str, Any]:
    time = {"type": "string", "format": "date-time"}
    urls = {"type": "object", "additionalProperties": {"type": "array", "items": _WORDS}}
    properties = {
        "id": {"type": "string", "format": "uuid"},
        "class": {"enum": ["task", "websocket", "token"]},
        "description": _WORDS,
        "created_at": time,
        "updated_at": time,
        "status": _WORDS,
        "status_code": _NUMBER,
        "resources": urls,
        "metadata": {"type": ["object", "null"]},
        "may_cancel": {"type": "boolean"},
        "err": _WORDS,
        "location": _WORDS,
    }
    return {"type": "object", "description": "Work in the background", "properties": properties, "required": list(properties)}
