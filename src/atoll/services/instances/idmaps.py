"""Which ids of the host an instance runs with. Pure decisions; the host's ranges come from outside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from atoll import config as keys
from atoll.domain.errors import BadRequest, Conflict
from atoll.domain.idmap import IdMap, IdRange

DEFAULT_SIZE = 65536


def is_privileged(config: Mapping[str, str]) -> bool:
    """Whether it runs without a user namespace."""
    return bool(keys.INSTANCE.get(config, "security.privileged"))


def is_isolated(config: Mapping[str, str]) -> bool:
    """Whether its range has to be its own; a privileged instance has none."""
    return bool(keys.INSTANCE.get(config, "security.idmap.isolated")) and not is_privileged(config)


def choose(config: Mapping[str, str], host: IdRange, taken: Iterable[IdMap], *, kept: int = 0) -> IdMap | None:
    """The map for an instance with that expanded configuration; None for a privileged one.

    `host` is the range that the host lends to the daemon; `taken` are maps of other instances, which an isolated one may not
    overlap; `kept` is the base that it has now, which it keeps where it can. Conflict when the range has no room left.
    """
    if is_privileged(config):
        return None
    base, size = _explicit(config)
    if base is not None:
        plain = IdMap.plain(base, size or DEFAULT_SIZE)
    elif is_isolated(config):
        plain = _isolated(host, size or DEFAULT_SIZE, taken, kept)
    else:
        plain = IdMap.plain(host.outside, host.count)
    return _with_raw(plain, config)


def base_of(config: Mapping[str, str], idmap: IdMap | None) -> int:
    """First host id of a range that `choose` gave an instance for itself; 0 for the common range and for none."""
    if idmap is None or not (is_isolated(config) or config.get("security.idmap.base")):
        return 0
    raw = {(entry.guest.first, entry.host.first) for entry in keys.INSTANCE.get(config, "raw.idmap") or ()}
    own = (entry for entry in idmap.ranges if (entry.inside, entry.outside) not in raw)
    return next((entry.outside - entry.inside for entry in own), 0)


def _explicit(config: Mapping[str, str]) -> tuple[int | None, int | None]:
    base, size = config.get("security.idmap.base"), config.get("security.idmap.size")
    return int(base) if base else None, int(size) if size and size != "auto" else None


def _isolated(host: IdRange, size: int, taken: Iterable[IdMap], kept: int) -> IdMap:
    """The range it has, or the first free one, behind the first 65,536 ids, which instances that are not isolated use most."""
    used = sorted((r.outside, r.outside + r.count) for idmap in taken for r in idmap.ranges)
    start, end = host.outside + DEFAULT_SIZE, host.outside + host.count
    if start <= kept <= end - size and all(high <= kept or kept + size <= low for low, high in used):
        return IdMap.plain(kept, size)
    for low, high in used:
        if start + size <= low:
            break
        start = max(start, high)
    if start + size > end:
        raise Conflict(f"No {size} host ids are left for an isolated instance", hint="widen the range in /etc/subuid")
    return IdMap.plain(start, size)


def _with_raw(plain: IdMap, config: Mapping[str, str]) -> IdMap:
    """Punch the ranges of `raw.idmap` ("both 1000 1000", "uid 50-60 500-510") into a map. BadRequest if it uses ids twice."""
    ranges = list(plain.ranges)
    for entry in keys.INSTANCE.get(config, "raw.idmap") or ():
        hole = IdRange(entry.guest.first, entry.host.first, entry.host.size, users=entry.is_uid, groups=entry.is_gid)
        ranges = [*(piece for each in ranges for piece in _cut(each, hole)), hole]
    _require_each_once(ranges)
    return IdMap(tuple(sorted(ranges)))


def _require_each_once(ranges: Iterable[IdRange]) -> None:
    """The kernel takes no map in which two ids of the instance are one of the host."""
    by_host = sorted(ranges, key=lambda each: each.outside)
    for kind in ("users", "groups"):
        end = -1
        for each in (entry for entry in by_host if getattr(entry, kind)):
            if each.outside < end:
                raise BadRequest(f"raw.idmap: the host's id {each.outside} would be mapped twice")
            end = each.outside + each.count


def _cut(entry: IdRange, hole: IdRange) -> list[IdRange]:
    """The parts of `entry` outside `hole`, for the kinds of ids the hole is about; other kinds keep all."""
    users, groups = entry.users and hole.users, entry.groups and hole.groups
    end, hole_end = entry.inside + entry.count, hole.inside + hole.count
    if not (users or groups) or hole_end <= entry.inside or hole.inside >= end:
        return [entry]
    kept: list[IdRange] = []
    if entry.users and not hole.users:
        kept.append(IdRange(entry.inside, entry.outside, entry.count, users=True, groups=False))
    if entry.groups and not hole.groups:
        kept.append(IdRange(entry.inside, entry.outside, entry.count, users=False, groups=True))
    if hole.inside > entry.inside:
        kept.append(IdRange(entry.inside, entry.outside, hole.inside - entry.inside, users=users, groups=groups))
    if hole_end < end:
        shift = hole_end - entry.inside
        kept.append(IdRange(hole_end, entry.outside + shift, end - hole_end, users=users, groups=groups))
    return kept


def to_json(idmap: IdMap | None) -> str:
    """As `volatile.idmap.current` and the like keep it."""
    ranges = idmap.ranges if idmap is not None else ()
    return json.dumps(
        [{"Isuid": r.users, "Isgid": r.groups, "Hostid": r.outside, "Nsid": r.inside, "Maprange": r.count} for r in ranges],
        separators=(",", ":"),
    )


def from_json(text: str) -> IdMap | None:
    """The reverse; None for an empty map (privileged) or text that is none."""
    try:
        listed = json.loads(text or "[]")
        ranges = tuple(IdRange(e["Nsid"], e["Hostid"], e["Maprange"], e["Isuid"], e["Isgid"]) for e in listed)
    except (ValueError, KeyError, TypeError):
        return None
    return IdMap(ranges) if ranges else None
