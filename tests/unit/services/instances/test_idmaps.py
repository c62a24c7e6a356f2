"""Which ids an instance gets: a bijection always, of ids that are lent, without overlaps where it is isolated."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.errors import BadRequest, Conflict
from atoll.domain.idmap import IdMap, IdRange
from atoll.services.instances import idmaps

HOST = IdRange(0, 1_000_000, 1_000_000)


def choose(config: dict[str, str], taken: list[IdMap] | None = None) -> IdMap | None:
    return idmaps.choose(config, HOST, taken or [])


def outside(idmap: IdMap, inside: int, *, groups: bool = False) -> list[int]:
    """All ids of the host that an id of the instance is mapped to."""
    return [
        entry.outside + inside - entry.inside
        for entry in idmap.ranges
        if (entry.groups if groups else entry.users) and entry.inside <= inside < entry.inside + entry.count
    ]


def test_plain_maps() -> None:
    assert choose({"security.privileged": "true"}) is None
    assert choose({}) == IdMap.plain(1_000_000, 1_000_000)
    assert choose({"security.idmap.base": "2000", "security.idmap.size": "10"}) == IdMap.plain(2000, 10)
    assert choose({"security.idmap.base": "2000", "security.idmap.size": "auto"}) == IdMap.plain(2000, idmaps.DEFAULT_SIZE)


def test_isolated_maps_fill_gaps_and_do_not_overlap() -> None:
    isolated = {"security.idmap.isolated": "true"}
    taken: list[IdMap] = []
    for _ in range(5):
        found = choose(isolated, taken)
        assert found is not None
        taken.append(found)
    assert [idmap.root for idmap in taken] == [1_000_000 + 65536 * number for number in range(1, 6)]
    hole = taken.pop(2)
    assert choose(isolated, taken) == hole
    assert choose({**isolated, "security.idmap.size": "70000"}, taken) == IdMap.plain(1_000_000 + 65536 * 6, 70000)
    with pytest.raises(Conflict, match="No 999999 host ids"):
        choose({**isolated, "security.idmap.size": "999999"})


def test_an_isolated_instance_keeps_its_ids() -> None:
    isolated = {"security.idmap.isolated": "true"}
    kept = 1_000_000 + 65536 * 5
    assert idmaps.choose(isolated, HOST, [IdMap.plain(1_065_536, 65536)], kept=kept) == IdMap.plain(kept, 65536)
    assert idmaps.choose({**isolated, "security.idmap.size": "70000"}, HOST, [], kept=kept) == IdMap.plain(kept, 70000)


@pytest.mark.parametrize("kept", [0, 1_000_000, 999_999, 1_999_999, 1_131_073])
def test_a_base_that_is_not_its_own_is_not_kept(kept: int) -> None:
    """None, in the common range's first ids, outside, too near the end, or overlapping another's."""
    taken = [IdMap.plain(1_131_072 + 65536, 65536)]
    found = idmaps.choose({"security.idmap.isolated": "true"}, HOST, taken, kept=kept)
    assert found == IdMap.plain(1_065_536, 65536)


@pytest.mark.parametrize(
    ("config", "base"),
    [
        ({}, 0),
        ({"security.privileged": "true", "security.idmap.isolated": "true"}, 0),
        ({"security.idmap.isolated": "true"}, 1_065_536),
        ({"security.idmap.isolated": "true", "raw.idmap": "both 5 0\nuid 1000 1000"}, 1_065_536),
        ({"security.idmap.base": "2000"}, 2000),
    ],
)
def test_the_base_that_is_told(config: dict[str, str], base: int) -> None:
    assert idmaps.base_of(config, choose(config)) == base


@given(st.lists(st.integers(1, 200_000), max_size=8))
def test_isolated_maps_of_any_sizes_do_not_overlap(sizes: list[int]) -> None:
    taken: list[IdMap] = []
    for size in sizes:
        try:
            found = choose({"security.idmap.isolated": "true", "security.idmap.size": str(size)}, taken)
        except Conflict:
            continue
        assert found is not None
        taken.append(found)
    spans = sorted((entry.outside, entry.outside + entry.count) for idmap in taken for entry in idmap.ranges)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all(HOST.outside <= start and end <= HOST.outside + HOST.count for start, end in spans)


def test_raw_ranges_are_punched_in() -> None:
    found = choose({"raw.idmap": "both 1000 1000\nuid 50-60 500-510\n\ngid 20 0"})
    assert found is not None
    assert (outside(found, 1000), outside(found, 1000, groups=True)) == ([1000], [1000])
    assert (outside(found, 505), outside(found, 505, groups=True)) == ([55], [1_000_505])
    assert (found.root, found.root_group) == (1_000_000, 20)
    assert (outside(found, 999), outside(found, 1001), outside(found, 511)) == ([1_000_999], [1_001_001], [1_000_511])


@pytest.mark.parametrize(
    "raw",
    [
        "both 1000005 1000",
        "both 1000 1000\nboth 1000 1001",
        "uid 1000-1010 0-10\nboth 1010 50",
        "both 1000-2000 0",
        "x",
        "both a b",
    ],
)
def test_raw_ranges_that_cannot_be(raw: str) -> None:
    with pytest.raises(BadRequest, match=r"raw\.idmap"):
        choose({"raw.idmap": raw})


LINES = st.tuples(st.sampled_from(["both", "uid", "gid"]), st.integers(0, 300), st.integers(0, 300), st.integers(1, 40))


@given(st.lists(LINES, max_size=8))
def test_any_raw_ranges_keep_a_bijection(lines: list[tuple[str, int, int, int]]) -> None:
    raw = "\n".join(f"{kind} {host}-{host + size - 1} {guest}-{guest + size - 1}" for kind, host, guest, size in lines)
    try:
        found = idmaps.choose({"raw.idmap": raw}, IdRange(0, 200, 250), [])
    except BadRequest:
        return
    assert found is not None
    for groups in (False, True):
        wanted: dict[int, int] = {inside: 200 + inside for inside in range(250)}
        for kind, host, guest, size in lines:
            if kind in ("both", "gid" if groups else "uid"):
                wanted.update({guest + offset: host + offset for offset in range(size)})
        shown = {inside: outside(found, inside, groups=groups) for inside in range(400)}
        assert all(len(ids) <= 1 for ids in shown.values())
        assert {inside: ids[0] for inside, ids in shown.items() if ids} == wanted
        assert len(set(wanted.values())) == len(wanted)
    assert idmaps.from_json(idmaps.to_json(found)) == found


@pytest.mark.parametrize("text", ["", "[]", "{}", "x", "[1]", "[{}]", "null", "1"])
def test_what_is_no_map(text: str) -> None:
    assert idmaps.from_json(text) is None


def test_the_text_is_lxds() -> None:
    assert idmaps.to_json(None) == "[]"
    assert idmaps.to_json(IdMap.plain(100, 5)) == '[{"Isuid":true,"Isgid":true,"Hostid":100,"Nsid":0,"Maprange":5}]'
