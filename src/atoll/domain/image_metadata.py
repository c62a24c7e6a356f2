"""metadata.yaml of an image: its type, its strict reading and its writing.

    architecture: x86_64
    creation_date: 1424284563
    expiry_date: 1500000000
    properties: {os: Debian, release: bookworm}
    templates:
      /etc/hostname: {when: [create, copy], template: hostname.tpl, create_only: false, properties: {foo: bar}}

The text comes from strangers. It is at most 1 MiB, at most 16 levels deep and has at most 8 aliases; each node has exactly
the type shown, and a wrong one is a BadRequest that names it. Unknown keys are passed over, as LXD does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from atoll.domain import architectures, clock, plain_yaml
from atoll.domain.errors import BadRequest
from atoll.domain.plain_yaml import Limits

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_NODES = 20_000
MAX_ALIASES = 8


class Trigger(StrEnum):
    """When a template is rendered."""

    CREATE = "create"
    COPY = "copy"
    RENAME = "rename"
    START = "start"


@dataclass(frozen=True, slots=True)
class Template:
    """A file of the instance that is rendered from `templates/<template>`."""

    when: tuple[Trigger, ...]
    template: str
    create_only: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """What metadata.yaml says. Dates are seconds since the epoch, 0 for none; `templates` is keyed by absolute path."""

    architecture: str
    creation_date: int
    expiry_date: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)


def parse(data: bytes) -> ImageMetadata:
    """The metadata of that YAML text. BadRequest, naming the node, for anything that is not as it should be."""
    return of_tree(_mapping("metadata.yaml", load_yaml(data)))


def of_tree(tree: Mapping[str, Any]) -> ImageMetadata:
    """The same of plain data, such as that of a JSON object."""
    for required in ("architecture", "creation_date"):
        if required not in tree:
            raise BadRequest(f"metadata.yaml: {required} is missing")
    return ImageMetadata(
        architecture=architectures.canonical(_name("architecture", tree["architecture"])),
        creation_date=_date("creation_date", tree["creation_date"]),
        expiry_date=_date("expiry_date", tree.get("expiry_date", 0)),
        properties=_strings("properties", tree.get("properties", {})),
        templates=_templates(tree.get("templates", {})),
    )


def dump(metadata: ImageMetadata) -> bytes:
    """The YAML text of it, the same for equal metadata; `parse` reads it back."""
    import yaml  # 21 ms that a daemon without image work never pays

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(tree(metadata), Dumper=dumper, sort_keys=True, allow_unicode=True, default_flow_style=False)
    return str(text).encode()


def tree(metadata: ImageMetadata) -> dict[str, Any]:
    """It as plain data, from which `of_tree` makes it again."""
    found: dict[str, Any] = {"architecture": metadata.architecture, "creation_date": metadata.creation_date}
    if metadata.expiry_date:
        found["expiry_date"] = metadata.expiry_date
    found["properties"] = dict(metadata.properties)
    found["templates"] = {path: _template_tree(template) for path, template in metadata.templates.items()}
    return found


def _template_tree(template: Template) -> dict[str, Any]:
    return {
        "when": [trigger.value for trigger in template.when],
        "create_only": template.create_only,
        "template": template.template,
        "properties": dict(template.properties),
    }


def load_yaml(data: bytes) -> object:
    """Plain data of a YAML text within the limits above; BadRequest for a text that is not YAML or exceeds them."""
    limits = Limits(nodes=MAX_NODES, depth=MAX_DEPTH, aliases=MAX_ALIASES, bytes=MAX_BYTES)
    return plain_yaml.load(data, what="metadata.yaml", limits=limits, typed=True)


def _wrong(node: str, wanted: str, value: object) -> BadRequest:
    found = "nothing" if value is None else f"a {type(value).__name__}"
    return BadRequest(f"metadata.yaml: {node} must be {wanted}, not {found}")


def _mapping(node: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(node, "a mapping", value)
    for key in value:
        if not isinstance(key, str):
            raise _wrong(f"a key of {node}", "a string", key)
    return value


def _string(node: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(node, "a string", value)
    if "\0" in value:
        raise BadRequest(f"metadata.yaml: {node} contains a NUL character")
    return value


def _name(node: str, value: object) -> str:
    text = _string(node, value)
    if not text or not text.isprintable():
        raise BadRequest(f"metadata.yaml: {node} must be a non-empty line of text")
    return text


def _strings(node: str, value: object) -> dict[str, str]:
    return {key: _property(f"{node}.{key[:80]}", item) for key, item in _mapping(node, value).items()}


def _property(node: str, value: object) -> str:
    """A property's text. Image makers leave numbers unquoted (`serial: 20240101`): those keep their spelling."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return _string(node, value)


def _date(node: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(node, "a number of seconds", value)
    if not 0 <= value <= clock.LATEST:
        raise BadRequest(f"metadata.yaml: {node} is out of range")
    return value


def _templates(value: object) -> dict[str, Template]:
    return {_target(path): _template(f"templates.{path[:80]}", entry) for path, entry in _mapping("templates", value).items()}


def _target(path: str) -> str:
    """A template's path in the instance: absolute, without `..`."""
    if not path.startswith("/") or ".." in path.split("/") or not path.isprintable() or len(path) > 4096:
        raise BadRequest(f"metadata.yaml: templates: {path[:80]!r} is not an absolute path")
    return path


def _template(node: str, value: object) -> Template:
    tree = _mapping(node, value)
    create_only = tree.get("create_only", False)
    if not isinstance(create_only, bool):
        raise _wrong(f"{node}.create_only", "true or false", create_only)
    if "template" not in tree:
        raise BadRequest(f"metadata.yaml: {node}.template is missing")
    return Template(
        when=_triggers(f"{node}.when", tree.get("when")),
        template=template_file(f"{node}.template", tree["template"]),
        create_only=create_only,
        properties=_strings(f"{node}.properties", tree.get("properties", {})),
    )


def _triggers(node: str, value: object) -> tuple[Trigger, ...]:
    if not isinstance(value, list):
        raise _wrong(node, "a list", value)
    known = {trigger.value for trigger in Trigger}
    named = [_string(f"an entry of {node}", item) for item in value]
    # A word that names no trigger is one that never happens here: LXD takes such images, and so do we.
    return tuple(Trigger(word) for word in named if word in known)


def template_file(node: str, value: object) -> str:
    """The name of a file in `templates/`: one path segment."""
    name = _name(node, value)
    if "/" in name or name in (".", "..") or len(name) > 255:
        raise BadRequest(f"metadata.yaml: {node}: {name[:80]!r} is not the name of a file in templates/")
    return name
