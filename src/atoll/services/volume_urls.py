"""The addresses of storage pools and volumes in the API."""

from __future__ import annotations

from urllib.parse import quote

from atoll.domain.entities import DEFAULT_PROJECT

_PLAIN = "$&+,:;=@"
"""What a segment of a URL's path has besides letters, digits and `_.-~`."""


def pool_path(name: str) -> str:
    """Path of a pool; a name may have any character but a slash."""
    return f"/1.0/storage-pools/{quote(name, safe=_PLAIN)}"


def volume_url(pool: str, kind: str, name: str, project: str, *, snapshot: str = "") -> str:
    """URL of whatever a volume belongs to: an instance or image itself, else the custom volume; or of a snapshot of it."""
    suffix = f"/snapshots/{snapshot}" if snapshot else ""
    suffix += "" if project == DEFAULT_PROJECT else f"?project={project}"
    if kind in ("container", "virtual-machine"):
        return f"/1.0/instances/{name}{suffix}"
    if kind == "image":
        return f"/1.0/images/{name}{suffix}"
    return f"{volume_path(pool, kind, name)}{suffix}"


def volume_path(pool: str, kind: str, name: str) -> str:
    """Path of a volume, or of what is below it ("NAME/snapshots/SNAPSHOT"); names may have any character but a slash."""
    return "/".join((pool_path(pool), "volumes", kind, quote(name, safe=f"/{_PLAIN}")))
