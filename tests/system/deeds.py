"""What is done with storage while `faults` makes it go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Upload:
    """A body that is a file, by its name in the folder of what was prepared; `headers` without their X-LXD-."""

    file: str
    headers: dict[str, str]


FRESH, OF_THE_POOL = "{fresh}", "{driver}"
"""Stand in a path for the fingerprint of what was sent last, and in a body for the driver of the pool that is tried."""

Request = tuple[str, str, dict[str, Any] | Upload | None]
"""Method, path and body."""


@dataclass(frozen=True)
class Deed:
    """What is done, and what has to be done before it. Subjects are the instances `x`, `y`, the volumes `v`, `w`, the pool `p`,
    the profile `f`, and images. The instance `origin` and the volume `data`, each with the snapshots s0 and s1, and the image
    `tiny` must not change."""

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
_POOL = ("POST", "/1.0/storage-pools", {"name": "p", "driver": OF_THE_POOL})
_PROFILE = ("POST", "/1.0/profiles", {"name": "f", "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}})
_LARGER = {"root": {"type": "disk", "path": "/", "pool": "default", "size": "64MiB"}}
_FROM_FRESH = _instance({"type": "image", "properties": {"kind": "fresh"}})
_RUNNING = (_COPY, _COPY_V, _START)
_BACKED_UP = (_COPY, ("POST", f"{_X}/backups", {"name": "b"}))
_MORE = {"more": {"type": "disk", "path": "/more", "pool": "default", "source": "v"}}
_ATTACH = ("PATCH", _X, {"devices": _MORE})
_DETACH = ("PUT", _X, {"devices": {}, "profiles": ["default"]})
_ALONE = ("POST", _X, {"name": "y", "migration": True, "pool": "default", "instance_only": True})
_RESIZE = ("PATCH", "/1.0/profiles/f", {"devices": _LARGER})

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
    "attach a volume": Deed(_ATTACH, _RUNNING),
    "detach a volume": Deed(_DETACH, (*_RUNNING, _ATTACH)),
    "resize by a profile": Deed(_RESIZE, (_PROFILE, _instance(_ORIGIN, profiles=["f"]))),
    "move without snapshots": Deed(_ALONE, (_COPY,)),
    "start": Deed(_START, (_COPY,)),
    "delete a backup": Deed(("DELETE", f"{_X}/backups/b", None), _BACKED_UP),
    "rename a backup": Deed(("POST", f"{_X}/backups/b", {"name": "c"}), _BACKED_UP),
}

IMAGES = {
    "publish": Deed(("POST", "/1.0/images", {"source": {"type": "instance", "name": "origin"}})),
    "publish a snapshot": Deed(("POST", "/1.0/images", {"source": {"type": "snapshot", "name": "origin/s0"}})),
    "import an image": Deed(_FRESH),
    "delete an image": Deed(("DELETE", f"/1.0/images/{FRESH}", None), (_FRESH, _FROM_FRESH)),
}

POOLS = {
    "create a pool": Deed(_POOL),
    "delete a pool": Deed(("DELETE", "/1.0/storage-pools/p", None), (_POOL,)),
}

VOLUMES = {
    "create a volume": Deed(_volume()),
    "create a block volume": Deed(_DISK),
    "resize a block volume": Deed(("PATCH", _V, {"config": {"size": "2GiB"}}), (_DISK,)),
    "copy a volume": Deed(_COPY_V),
    "copy a volume to another pool": Deed(_volume("other", source=_DATA)),
    "refresh a volume": Deed(_volume(source={**_DATA, "refresh": True}), (_volume(source={**_DATA, "name": "data/s0"}),)),
    "snapshot a volume": Deed(("POST", f"{_V}/snapshots", {"name": "s2"}), (_COPY_V,)),
    "snapshot a block volume": Deed(("POST", f"{_V}/snapshots", {"name": "s2"}), (_DISK,)),
    "delete a volume's snapshot": Deed(("DELETE", f"{_V}/snapshots/s0", None), (_COPY_V,)),
    "rename a volume's snapshot": Deed(("POST", f"{_V}/snapshots/s0", {"name": "s2"}), (_COPY_V,)),
    "resize a volume": Deed(("PATCH", _V, {"config": {"size": "64MiB"}}), (_COPY_V,)),
    "restore a volume": Deed(("PUT", _V, {"restore": "s0"}), (_COPY_V,)),
    "rename a volume": Deed(("POST", _V, {"name": "w"}), (_COPY_V,)),
    "move a volume to another pool": Deed(("POST", _V, {"name": "v", "pool": "other"}), (_COPY_V,)),
    "delete a volume": Deed(("DELETE", _V, None), (_COPY_V,)),
    "back up a volume": Deed(("POST", f"{_V}/backups", {"name": "b"}), (_COPY_V,)),
    "import a volume's backup": Deed(_import(_VOLUMES, "volume.tar.gz", name="v")),
    "import a tar": Deed(_import(_VOLUMES, "files.tar", name="v", type="tar")),
    "import an ISO": Deed(_import(_VOLUMES, "files.tar", name="v", type="iso")),
}

DEEDS = INSTANCES | IMAGES | VOLUMES | POOLS
