"""`storage`: storage pools."""

from __future__ import annotations

from atoll.cli import entity, times, verbs
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call

POOL = entity.Entity(
    show=("config", "description", "name", "driver", "used_by", "status", "locations"),
    put=("config", "description"),
    etag=False,
)
# Which word of a used_by URL names what kind of user.
USERS = {"instances": "instances", "profiles": "profiles", "images": "images", "storage-pools": "volumes"}
VERBS = verbs.Verbs(
    POOL, noun="storage pool", argument="pool", collection="storage-pools",
    changeable="only the configuration and the description can be changed", blank=False,
)  # fmt: skip


def list_(call: Call) -> None:
    """List storage pools."""
    server, _ = call.split_remote(call.arguments)
    found = server.get(url("storage-pools", recursion="1")) or []
    rows = [
        [
            row["name"],
            row["driver"],
            (row.get("config") or {}).get("source", ""),
            row.get("description") or "",
            str(len(row.get("used_by") or ())),
            (row.get("status") or "").upper(),
        ]
        for row in found
    ]
    entity.print_list(call, ("NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"), rows, found, POOL)


def show(call: Call) -> None:
    """Print a pool, or with --resources what it has room for."""
    if not call.flags.on("resources"):
        VERBS.show(call)
        return
    server, name, _ = VERBS.one(call)
    entity.print_yaml(entity.ordered(server.get(url("storage-pools", name, "resources")), ("space", "inodes")))


def create(call: Call) -> None:
    """Create a pool."""
    VERBS.make(call, driver=call.arguments[1], config=entity.key_values(call.arguments[2:]))


def info(call: Call) -> None:
    """Show how full a pool is and who uses it."""
    server, name, path = VERBS.one(call)
    pool = server.get(path)
    space = server.get(url("storage-pools", name, "resources")).get("space") or {}
    in_bytes = call.flags.on("bytes")
    sizes = {
        label: str(space.get(key, 0)) if in_bytes else times.binary_size(space.get(key, 0))
        for label, key in (("space used", "used"), ("total space", "total"))
    }
    about = {"description": pool.get("description") or "", "driver": pool["driver"], "name": pool["name"], **sizes}
    entity.print_yaml({"info": about, "used by": _users(pool.get("used_by") or [])})


def _users(urls: list[str]) -> dict[str, list[str]]:
    """The names behind used_by URLs, by kind."""
    found: dict[str, list[str]] = {}
    for address in urls:
        path, _, query = address.partition("?")
        words = path.split("/")
        kind = USERS.get(words[2])
        if kind is None:
            continue
        project = query.partition("project=")[2].partition("&")[0]
        name = words[{"instances": 3, "volumes": 6}.get(kind, -1)]  # of a snapshot, that of what it is of
        found.setdefault(kind, []).append(f'{name} (project "{project}")' if project else name)
    return {kind: sorted(found[kind]) for kind in sorted(found)}
