"""The preseed: the document that says how a server is configured, its shape, and its text.

config: {KEY: TEXT}
networks:      [{config, description, name, type, project}]
storage_pools: [{config, description, name, driver}]
profiles:      [{config, description, devices: {NAME: {KEY: TEXT}}, name}]
projects:      [{config, description, name}]
cluster: null
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.cli import yaml_in, yaml_out
from atoll.cli.errors import CommandError

Preseed = dict[str, Any]

FIELDS: dict[str, tuple[str, ...]] = {
    "networks": ("config", "description", "name", "type", "project"),
    "storage_pools": ("config", "description", "name", "driver"),
    "profiles": ("config", "description", "devices", "name"),
    "projects": ("config", "description", "name"),
}
READ_ONLY = {"networks": ("managed", "status", "locations", "used_by"), "storage_pools": ("status", "locations", "used_by")}
"""Fields that a document written by hand from `atoll … show` carries; they are accepted and left out."""

MAPS = ("config", "devices")
PASSWORD = "core.trust_password"


def empty() -> Preseed:
    """A preseed that changes nothing, its sections in the order they are written in."""
    return {"config": {}, **{section: [] for section in FIELDS}, "cluster": None}


def parse(text: str) -> Preseed:
    """Read a document; CommandError, naming the field, for what it must not contain. Empty sections may be left out."""
    try:
        document = yaml_in.mapping(text)
    except CommandError as error:
        raise CommandError(f"Failed to parse the preseed: {error}") from error
    unknown = [name for name in document if name not in empty()]
    if unknown:
        raise CommandError(f"Failed to parse the preseed: field {unknown[0]} not found in the preseed")
    if _asks_for_cluster(document.get("cluster")):
        raise CommandError("Failed to configure cluster: clustering is not available in this release")
    preseed = empty()
    preseed["config"] = _texts(document.get("config"), "config")
    if preseed["config"].get(PASSWORD) == "true":
        del preseed["config"][PASSWORD]  # what a dump shows in its place: there is one. It must not become one
    for section in FIELDS:
        preseed[section] = [_entry(section, row) for row in _rows(document.get(section), section)]
    return preseed


def _asks_for_cluster(cluster: object) -> bool:
    return bool(cluster) and not (isinstance(cluster, Mapping) and not any(cluster.values()))


def _rows(value: object, section: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise CommandError(f"Failed to parse the preseed: {section} is not a list")
    return value


def _entry(section: str, row: object) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise CommandError(f"Failed to parse the preseed: an entry of {section} is not a mapping")
    unknown = [name for name in row if name not in FIELDS[section] and name not in READ_ONLY.get(section, ())]
    if unknown:
        raise CommandError(f"Failed to parse the preseed: field {unknown[0]} not found in {section}")
    entry: dict[str, Any] = {}
    for field in FIELDS[section]:
        value = row.get(field)
        entry[field] = _map(value, f"{section} {field}", nested=field == "devices") if field in MAPS else _text(value)
    return entry


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _map(value: object, where: str, *, nested: bool) -> dict[str, Any]:
    if not nested or value is None:
        return _texts(value, where)
    if not isinstance(value, Mapping):
        raise CommandError(f"Failed to parse the preseed: {where} is not a mapping")
    return {str(name): _texts(device, f"{where} {name}") for name, device in value.items()}


def _texts(value: object, where: str) -> dict[str, str]:
    """A mapping of texts. A scalar is the text it was written as."""
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise CommandError(f"Failed to parse the preseed: {where} is not a mapping")
    bad = [key for key, item in value.items() if isinstance(item, dict | list)]
    if bad:
        raise CommandError(f"Failed to parse the preseed: {where} {bad[0]} is not a text")
    return {str(key): str(item) for key, item in value.items()}


def render(preseed: Mapping[str, Any]) -> str:
    """The text of a preseed, sections and fields in their order, configuration keys sorted."""
    document = {"config": _ordered(preseed["config"])}
    for section, fields in FIELDS.items():
        document[section] = [{field: _ordered(row[field]) for field in fields if field in row} for row in preseed[section]]
    if "cluster" in preseed:
        document["cluster"] = preseed["cluster"]
    return yaml_out.dump(document)


def _ordered(value: Any) -> Any:
    return {key: _ordered(value[key]) for key in sorted(value)} if isinstance(value, dict) else value
