"""The reference page of the API, made from its OpenAPI description.

curl --unix-socket …/unix.socket http://atoll/openapi.json | python -m atoll.api.reference > docs/reference/api.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

_HEAD = """\
# REST API

This page is generated from `GET /openapi.json`, which every daemon serves: the full description, with the types of bodies and
answers. {about}

Answers come in LXD's envelope: `sync` with the object in `metadata`, `async` with an operation, `error` with a text and a code.
Who may call a path: `public` everybody, `trusted` clients with a trusted certificate, `project` those that may use the project,
`admin` those without restrictions, `local` whoever may open the unix socket.
"""


def page(description: Mapping[str, Any]) -> str:
    """The page as Markdown, a section for each tag."""
    sections = [_HEAD.format(about=description["info"]["description"])]
    for tag in description["tags"]:
        rows = "\n".join(_rows(description, tag["name"]))
        sections.append(
            f"## {tag['name']}\n\n| | Path | | Access | Body | Answer |\n| :-- | :-- | :-- | :-- | :-- | :-- |\n{rows}\n"
        )
    return "\n".join(sections)


def _rows(description: Mapping[str, Any], tag: str) -> Iterator[str]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                cells = (
                    method.upper(),
                    f"`{path}`",
                    operation["summary"],
                    operation["x-atoll-access"],
                    _body(operation),
                    _answer(operation),
                )
                yield f"| {' | '.join(cells)} |"


def _body(operation: Mapping[str, Any]) -> str:
    return _name(operation["requestBody"]["content"]["application/json"]["schema"]) if "requestBody" in operation else ""


def _answer(operation: Mapping[str, Any]) -> str:
    status, response = next(iter(operation["responses"].items()))
    if status == "202":
        return "operation"
    if status == "101":
        return "websocket"
    if status == "201":
        return "URL"
    schema = response["content"].get("application/json", {}).get("schema")
    if schema is None:
        return "file"
    metadata = schema["allOf"][1]["properties"]["metadata"] if "allOf" in schema else {}
    return _name(metadata["anyOf"][1] if "anyOf" in metadata else metadata)


def _name(schema: Mapping[str, Any]) -> str:
    if schema.get("type") == "array":
        return f"list of {_name(schema['items'])}"
    name: str = schema["$ref"].rpartition("/")[2] if "$ref" in schema else schema.get("type", "")
    return name


if __name__ == "__main__":
    sys.stdout.write(page(json.load(sys.stdin)))
