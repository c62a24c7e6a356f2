from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.config import hostvalues
from atoll.config.hostvalues import CpuAllowance, CpuLimit, IdmapEntry, IdRange, ResourceLimit
from atoll.config.values import ValueType
from atoll.domain import compression
from atoll.domain.compression import Algorithm, Compression


@given(st.sets(st.integers(0, 8191), min_size=1, max_size=30))
def test_cpu_sets_come_back_sorted(cpus: set[int]) -> None:
    assert hostvalues.parse_cpu_set(",".join(map(str, cpus))) == tuple(sorted(cpus))


def test_cpu_limits() -> None:
    assert hostvalues.parse_cpu_limit("4") == CpuLimit(number=4)
    assert hostvalues.parse_cpu_limit("1-1") == CpuLimit(pinned=(1,))
    assert hostvalues.parse_cpu_limit("5, 0-3") == CpuLimit(pinned=(0, 1, 2, 3, 5))


def test_cpu_allowance() -> None:
    assert hostvalues.parse_cpu_allowance("50%") == CpuAllowance(percent=50)
    assert hostvalues.parse_cpu_allowance("100ms/50ms") == CpuAllowance(quota_ms=100, period_ms=50)


def test_idmap() -> None:
    entries = hostvalues.IDMAP.read("both 1000 1000\n\nuid 5-6 15-16")
    assert entries == (
        IdmapEntry(True, True, IdRange(1000, 1000), IdRange(1000, 1000)),
        IdmapEntry(True, False, IdRange(5, 6), IdRange(15, 16)),
    )
    assert entries[1].host.size == 2


def test_rlimits() -> None:
    assert hostvalues.parse_rlimit("3000") == ResourceLimit(3000, 3000)
    assert hostvalues.parse_rlimit("1000:unlimited") == ResourceLimit(1000, None)
    assert hostvalues.parse_rlimit("unlimited") == ResourceLimit(None, None)


def test_compression_is_what_packing_takes() -> None:
    assert hostvalues.COMPRESSION.read("zstd -19") == compression.parse("zstd -19") == Compression(Algorithm.ZSTD, 19)
    assert hostvalues.COMPRESSION.read("none") == compression.NONE
    assert all(hostvalues.COMPRESSION.read(choice) for choice in hostvalues.COMPRESSION.choices)


def test_rsync_rates_are_read_as_rsync_reads_them() -> None:
    rates = {"0": 0, "10": 10240, "10k": 10240, "1.5m": 3 << 19, "1MiB": 1 << 20, "1MB": 10**6, "2KB": 2000, "1g": 1 << 30}
    assert {text: hostvalues.RSYNC_RATE.read(text) for text in rates} == rates


def test_modes() -> None:
    assert hostvalues.MODE.read("0660") == 0o660
    assert hostvalues.MODE.read("644") == 0o644


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (hostvalues.CPU_LIMIT, ["0", "3-1", "-1", "a", "0,", "8192-8193", "99999", "1-", "٣"]),
        (hostvalues.CPU_ALLOWANCE, ["0%", "101%", "50", "25ms", "0ms/10ms", "10ms/0ms", "25s/100ms", "-1%"]),
        (hostvalues.IDMAP, ["both 0", "all 0 0", "both 0-1 0", "both x 0", "both 4294967295 0", "both 2-1 2-1", "both 0 0 0"]),
        (hostvalues.RLIMIT, ["a", "10:5", "unlimited:5", "1:2:3", ":1", "-1", str(2**64)]),
        (hostvalues.MODE, ["4755", "8", "0o644", "u+x", "99"]),
        (hostvalues.PATH, ["../x", "/a/../b", "a/.."]),
        (hostvalues.ABSOLUTE_PATH, ["a", "/../x"]),
        (hostvalues.PCI_ADDRESS, ["0", "0000:00:00", "0000:00:00.8", "../0000:00:00.0"]),
        (hostvalues.VOLUME_REFERENCE, ["pool", "pool/", "/vol", "a/b/c", "../x", "a/..", "-a/b", "a b/c"]),
        (hostvalues.KERNEL_MODULES, ["a b", "a;b", "../a", "-r", ""]),
        (hostvalues.SYSCALLS, ["2 keep", "a;b", "Mount", "a\nb $(x)"]),
        (hostvalues.MOUNT_OPTIONS, ["a b", ",a", "a,,b", "a,"]),
        (hostvalues.FUSE_FILESYSTEMS, ["ext4", "ext4=/bin/x", "ext4=fuse2fs -o x"]),
        (hostvalues.COMPRESSION,
         ["sh -c id", "gzip --rsyncable -S.x", "gzip -S.x", "xz --files=/etc/shadow", "zstd -o/etc/x", "tar", "/bin/gzip",
          "none -1", "zstd --patch-from=/etc/shadow", "gzip -10", "zstd -T1000", "bzip2 -9;id", "squashfs -comp xz"]),
    ],
)  # fmt: skip
def test_refused(kind: ValueType, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(ValueError):
            kind.read(text)


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for kind in vars(hostvalues).values():
        if isinstance(kind, ValueType):
            try:
                kind.read(text)
            except ValueError:
                pass
