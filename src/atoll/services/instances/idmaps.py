"""Which ids of the host an instance runs with. Pure decisions; the host's ranges come from outside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from atoll import config as keys
from atoll.domain.errors import BadRequest, Conflict
from atoll.domain.idmap import IdMap, IdRange

DEFAULT_SIZE = 65536


def choose(config: Mapping[str, str], host: IdRange, taken: Iterable[IdMap]) -> IdMap | None:
    """The map for an instance with that expanded configuration; None for a privileged one.

    `host` is the range that the host lends to the daemon; `taken` are maps of isolated instances, which no other isolated
    instance may overlap. Conflict when the range has no room left.
    """
    if keys.INSTANCE.get(config, "security.privileged"):
        return None
    base, size = _explicit(config)
    if base is not None:
        plain = IdMap.plain(base, size or DEFAULT_SIZE)
    elif keys.INSTANCE.get(config, "security.idmap.isolated"):
        plain = _isolated(host, size or DEFAULT_SIZE, taken)
    else:
        plain = IdMap.plain(host.outside, host.count)
    return _with_raw(plain, config.get("raw.idmap", ""))


def _explicit(config: Mapping[str, str]) -> tuple[int | None, int | None]:
    base, size = config.get("security.idmap.base"), config.get("security.idmap.size")
    return int(base) if base else None, int(size) if size and size != "auto" else None


def _isolated(host: IdRange, size: int, taken: Iterable[IdMap]) -> IdMap:
    """First free slot behind the first 65,536 ids, which instances that are not isolated use most."""
    used = sorted((r.outside, r.outside + r.count) for idmap in taken for r in idmap.ranges)
    start = host.outside + DEFAULT_SIZE
    for low, high in used:
        if start + size <= low:
            break
        start = max(start, high)
    if start + size > host.outside + host.count:
        raise Conflict(f"No {size} host ids are left for an isolated instance", hint="widen the range in /etc/subuid")
    return IdMap.plain(start, size)


def _with_raw(plain: IdMap, raw: str) -> IdMap:
    """Punch the ranges of `raw.idmap` ("both 1000 1000", "uid 50-60 500-510") into a map."""
    ranges = list(plain.ranges)
    for line in raw.splitlines():
        if not line.strip():
            continue
        for hole in _parse_raw(line):
            ranges = [piece for entry in ranges for piece in _cut(entry, hole)]
            ranges.append(hole)
    return IdMap(tuple(sorted(ranges)))


def _parse_raw(line: str) -> list[IdRange]:
    words = line.split()
    if len(words) != 3 or words[0] not in ("uid", "gid", "both"):
        raise BadRequest(f"raw.idmap: {line!r} is not of the form 'uid|gid|both HOST INSTANCE'")
    (host, host_count), (inside, count) = _span(words[1]), _span(words[2])
    if host_count != count:
        raise BadRequest(f"raw.idmap: the ranges of {line!r} differ in size")
    return [IdRange(inside, host, count, users=words[0] != "gid", groups=words[0] != "uid")]


def _span(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise BadRequest(f"raw.idmap: {text!r} is not a number or range")
    count = int(last) - int(first) + 1 if last else 1
    if count < 1:
        raise BadRequest(f"raw.idmap: {text!r} is not a range")
    return int(first), count


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
