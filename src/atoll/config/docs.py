"""Writes the reference of all config keys: `python -m atoll.config.docs OUTDIR`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from atoll.config import catalog
from atoll.config.table import Key

_NOTICE = "<!-- Made by `python -m atoll.config.docs docs/reference/config`; change the rows in src/atoll/config. -->"

# Page → title, introduction, and which entities it shows.
_PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "server": (
        "Server configuration",
        "Keys of the server and of cluster members. `local` keys are set on each cluster member.",
        ("server", "cluster"),
    ),
    "instance": (
        "Instance options",
        "Keys of instances and profiles. The restriction column names the `restricted.*` rule over a key.",
        ("instance",),
    ),
    "project": ("Project configuration", "Keys of projects.", ("project",)),
    "storage": (
        "Storage pools and volumes",
        "Keys of storage pools (`pool-conf`) and of the volumes in them (`volume-conf`), by driver.",
        ("storage-",),
    ),
    "network": ("Networks", "Keys of managed networks by type, and of what belongs to them.", ("network-",)),
    "devices": ("Devices", "Keys of devices by type.", ("device-",)),
}


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    return {f"{name}.md": _page(title, intro, wanted) for name, (title, intro, wanted) in _PAGES.items()}


def write(folder: Path) -> None:
    """Write all pages into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _page(title: str, intro: str, wanted: tuple[str, ...]) -> str:
    blocks = [f"# {title}", _NOTICE, intro]
    for entity, groups in catalog.entities().items():
        if entity in wanted or any(name.endswith("-") and entity.startswith(name) for name in wanted):
            blocks += _entity(entity, groups)
    return "\n\n".join(blocks) + "\n"


def _entity(entity: str, groups: catalog.Groups) -> Iterable[str]:
    yield f"## {entity}"
    for group, keys in groups.items():
        if len(groups) > 1:
            yield f"### {group}"
        yield _table(entity, keys)


def _table(entity: str, keys: tuple[Key, ...]) -> str:
    columns = ["Key", "Type", "Default"]
    columns += {"server": ["Scope"], "cluster": [], "project": []}.get(entity, ["Live", "Condition"])
    columns += ["Restriction"] if entity == "instance" else []
    columns += ["Description", "Since"]
    lines = [" | ".join(columns), " | ".join(":--" for _ in columns)]
    lines += [" | ".join(_cell(key, column) for column in columns) for key in keys]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(key: Key, column: str) -> str:
    match column:
        case "Key":
            text = f"`{key.name}`"
        case "Type":
            text = " ".join(f"`{choice}`" for choice in key.type.choices) if _is_closed(key) else key.type.name
        case "Default":
            text = catalog.default_of(key) or "-"
        case "Scope":
            text = key.scope.value
        case "Live":
            text = "yes" if key.live else "no"
        case "Condition":
            text = key.condition or "-"
        case "Restriction":
            text = key.guard.value
        case "Description":
            text = key.doc
        case _:
            text = "-" if key.since == "1.0" else f"`{key.since}`"
    return text.replace("|", "\\|")


def _is_closed(key: Key) -> bool:
    return key.type.name == "string" and bool(key.type.choices)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m atoll.config.docs OUTDIR")
    write(Path(sys.argv[1]))
