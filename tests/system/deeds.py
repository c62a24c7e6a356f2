"""What is done with storage while `faults` makes it go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Upload:
    """A body that is a file, by its name in the folder of what was prepared; `headers` without their X-LXD-."""

    file: str
    headers: dict[str, str]


Request = tuple[str, str, dict[str, Any] | Upload | None]
"""Method, path and body."""


@dataclass(frozen=True)
class Deed:
    """What is done, and what has to be done before it. Subjects are the instances `x`, `y`, the volumes `v`, `w`, and images. The
    instance `origin` and the volume `data`, each with the snapshots s0 and s1, and the image `tiny` must not change."""

    request: Request
    before: tuple[Request, ...] = ()


def _instance(source: dict[str, Any], **rest: Any) -> Request:
    return ("POST", "/1.0/instances", {"name": "x", "source": source, **rest})


def _volume(pool: str = "default", **rest: Any) -> Request:
    return ("POST", f"/1.0/storage-pools/{pool}/volumes/custom", {"name": "v", **rest})


def _import(path: str, file: str, **headers: str) -> Request:
    return ("POST", path, Upload(file, headers))


_X, _V = "/1.0/instances/x", "/1.0/storage-pools/default/volumes/custom/v"
_INSTANCES, _VOLUMES = "/1.0/instances", "/1.0/storage-pools/default/volumes/custom"
_ORIGIN = {"type": "copy", "source": "origin"}
_DATA = {"type": "copy", "pool": "default", "name": "data"}
_COPY, _COPY_V = _instance(_ORIGIN), _volume(source=_DATA)
_DISK = _volume(content_type="block", config={"size": "1GiB"})
_FRESH = _import("/1.0/images", "image.tar.gz", properties="kind=fresh")
_START = ("PUT", f"{_X}/state", {"action": "start"})
_IN_OTHER = {"root": {"type": "disk", "path": "/", "pool": "other"}}
_MORE = {"more": {"type": "disk", "path": "/more", "pool": "default", "source": "v"}}

INSTANCES = {
    "create": Deed(_instance({"type": "image", "alias": "tiny"})),
    "create from a new image": Deed(_instance({"type": "image", "properties": {"kind": "fresh"}}), (_FRESH,)),
    "copy": Deed(_COPY),
    "copy of a snapshot": Deed(_instance({"type": "copy", "source": "origin/s0"})),
    "copy to another pool": Deed(_instance(_ORIGIN, devices=_IN_OTHER)),
    "refresh": Deed(_instance({**_ORIGIN, "refresh": True}), (_instance({"type": "copy", "source": "origin/s0"}),)),
    "snapshot": Deed(("POST", f"{_X}/snapshots", {"name": "s2"}), (_COPY,)),
    "snapshot while it runs": Deed(("POST", f"{_X}/snapshots", {"name": "s2"}), (_COPY, _START)),
    "restore": Deed(("PUT", _X, {"restore": "s0"}), (_COPY,)),
    "rename": Deed(("POST", _X, {"name": "y"}), (_COPY,)),
    "rename a snapshot": Deed(("POST", f"{_X}/snapshots/s0", {"name": "s2"}), (_COPY,)),
    "move to another pool": Deed(("POST", _X, {"name": "x", "migration": True, "pool": "other"}), (_COPY,)),
    "delete": Deed(("DELETE", _X, None), (_COPY,)),
    "delete a snapshot": Deed(("DELETE", f"{_X}/snapshots/s0", None), (_COPY,)),
    "back up": Deed(("POST", f"{_X}/backups", {"name": "b"}), (_COPY,)),
    "import a backup": Deed(_import(_INSTANCES, "instance.tar.gz", name="x")),
    "publish": Deed(("POST", "/1.0/images", {"source": {"type": "instance", "name": "origin"}})),
    "import an image": Deed(_FRESH),
    "attach a volume": Deed(("PATCH", _X, {"devices": _MORE}), (_COPY, _COPY_V, _START)),
}

VOLUMES = {
    "create a volume": Deed(_volume()),
    "create a block volume": Deed(_DISK),
    "resize a block volume": Deed(("PATCH", _V, {"config": {"size": "2GiB"}}), (_DISK,)),
    "copy a volume": Deed(_COPY_V),
    "copy a volume to another pool": Deed(_volume("other", source=_DATA)),
    "refresh a volume": Deed(_volume(source={**_DATA, "refresh": True}), (_volume(source={**_DATA, "name": "data/s0"}),)),
    "snapshot a volume": Deed(("POST", f"{_V}/snapshots", {"name": "s2"}), (_COPY_V,)),
    "restore a volume": Deed(("PUT", _V, {"restore": "s0"}), (_COPY_V,)),
    "rename a volume": Deed(("POST", _V, {"name": "w"}), (_COPY_V,)),
    "move a volume to another pool": Deed(("POST", _V, {"name": "v", "pool": "other"}), (_COPY_V,)),
    "delete a volume": Deed(("DELETE", _V, None), (_COPY_V,)),
    "back up a volume": Deed(("POST", f"{_V}/backups", {"name": "b"}), (_COPY_V,)),
    "import a volume's backup": Deed(_import(_VOLUMES, "volume.tar.gz", name="v")),
    "import a tar": Deed(_import(_VOLUMES, "files.tar", name="v", type="tar")),
    "import an ISO": Deed(_import(_VOLUMES, "files.tar", name="v", type="iso")),
}

DEEDS = INSTANCES | VOLUMES
