"""Archives that are sent to be imported, made entry by entry: also such as no program would make."""

from __future__ import annotations

import copy
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from atoll.domain import yaml_text

OCTETS = {"Content-Type": "application/octet-stream"}
SHIFT = json.dumps([{"Isuid": True, "Isgid": True, "Hostid": 100_000, "Nsid": 0, "Maprange": 65_536}])
"""The map of ids of an unprivileged instance, as LXD notes it."""

Entry = tuple[tarfile.TarInfo, bytes]


def info(
    name: str, size: int = 0, *, kind: bytes = tarfile.REGTYPE, ids: int = 0, link: str = "", mode: int = 0o755
) -> tarfile.TarInfo:
    """What an archive says of an entry; `ids` are those of its owner and group."""
    made = tarfile.TarInfo(name)
    made.size, made.type, made.uid, made.gid, made.mode, made.linkname = size, kind, ids, ids, mode, link
    return made


def backup(index: Any, entries: Iterable[Entry], *, mode: Literal["w", "w:gz"] = "w") -> bytes:
    """A backup with that index (data, or its text; None for none) and those entries behind it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        if index is not None:
            text = index if isinstance(index, bytes) else yaml_text.dump(index)
            tar.addfile(info("backup/index.yaml", len(text)), io.BytesIO(text))
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def with_value(index: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of an index that has another value at a path: "config|snapshots|0|name"."""
    tree = copy.deepcopy(dict(index))
    parent: Any = tree
    *above, last = [int(part) if part.isdecimal() else part for part in path.split("|")]
    for key in above:
        parent = parent[key]
    parent[last] = value
    return tree


async def send(app: Any, url: str, data: bytes, headers: Mapping[str, str] | None, *, kind: str) -> tuple[int, Any]:
    """(status, operation as it ended or error's text) of an import; `kind` is how its operation is described."""
    async with app.session.post(url, data=data, headers={**OCTETS, **(headers or {})}) as answer:
        content = json.loads(await answer.read())
    if answer.status != 202:
        return answer.status, content["error"]
    assert content["metadata"]["description"] == kind
    ended = await app.ended(content)
    return (400 if ended["err"] else 200), ended["err"] or ended
