from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.config import units
from atoll.config.units import DiskRate, Percent

DECIMAL = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "EB": 10**18}
BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
BYTES = {"": 1, "B": 1, "bytes": 1, " bytes": 1, **DECIMAL, **BINARY}
BITS = {"": 1, "bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9, "Kibit": 2**10, "Mibit": 2**20, "Gibit": 2**30}


@given(st.integers(0, 7), st.sampled_from(sorted(BYTES)))
def test_every_size_suffix_multiplies(number: int, suffix: str) -> None:
    assert units.parse_size(f"{number}{suffix}") == number * BYTES[suffix]


@given(st.integers(0, 10**6), st.sampled_from(sorted(BITS)))
def test_every_bit_suffix_multiplies(number: int, suffix: str) -> None:
    assert units.parse_bitrate(f"{number}{suffix}") == number * BITS[suffix]


@given(st.text())
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for parse in (units.parse_size, units.parse_bitrate, units.parse_percent, units.parse_disk_rate):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert value is not None


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-1GB", "+1", "1.5GB", "1kb", "1KB", "1Gib", "1 GB", "1GBit", "0x10", "1_000", "٣", "9EiB", "1" * 30, "1GB\n"],
)
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_size(text)


def test_the_largest_size_fits_64_bits() -> None:
    assert units.parse_size(str(units.INT64_MAX)) == units.INT64_MAX
    with pytest.raises(ValueError, match="too large"):
        units.parse_size(str(units.INT64_MAX + 1))


def test_percentages() -> None:
    assert units.parse_size_or_percent("25%") == Percent(25)
    assert Percent(25).of(1001) == 250
    assert units.parse_size_or_percent("25MB") == 25_000_000
    for text in ("0%", "101%", "%", "1.5%", "-1%", "1%%", "²%"):
        with pytest.raises(ValueError):
            units.parse_size_or_percent(text)


def test_disk_rates() -> None:
    assert units.parse_disk_rate("100iops") == DiskRate(iops=100)
    assert units.parse_disk_rate("10MB") == DiskRate(bytes_per_second=10_000_000)
    for text in ("0iops", "0", "iops", "10 iops"):
        with pytest.raises(ValueError):
            units.parse_disk_rate(text)


def test_sizes_are_formatted_for_people() -> None:
    assert units.format_size(999) == "999B"
    assert units.format_size(1_500_000) == "1.50MB"


@given(st.integers(0, units.INT64_MAX))
def test_formatting_loses_less_than_one_percent(count: int) -> None:
    text = units.format_size(count)
    number = text.rstrip("kMGTPEB")
    assert abs(float(number) * BYTES[text.removeprefix(number)] - count) <= count / 100
