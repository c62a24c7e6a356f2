"""Compression algorithms are a closed set, never a command line."""

from __future__ import annotations

import pytest

from atoll.domain import compression
from atoll.domain.compression import Algorithm, Compression
from atoll.domain.errors import BadRequest


@pytest.mark.parametrize("algorithm", Algorithm)
def test_each_is_read_by_its_name(algorithm: Algorithm) -> None:
    assert compression.parse(algorithm.value) == Compression(algorithm)


@pytest.mark.parametrize("text", ["zstd -3", "gzip -9", "xz -0"])
def test_levels_are_kept(text: str) -> None:
    assert str(compression.parse(text)) == text


def test_pigz_is_gzip_by_many_threads() -> None:
    assert compression.parse("pigz -9") == Compression(Algorithm.GZIP, 9)


def test_rsyncable() -> None:
    assert compression.parse("gzip --rsyncable") == Compression(Algorithm.GZIP, rsyncable=True)
    assert compression.parse("zstd -3 --rsyncable").options == ["-3", "--rsyncable"]
    with pytest.raises(BadRequest, match="no option"):
        compression.parse("xz --rsyncable")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gzip -0",
        "zstd -20",
        "none -1",
        "squashfs -3",
        "sh",
        "/bin/sh",
        "gzip;id",
        "zstd --ultra",
        "gzip -9 x",
        "gzip\n-9",
        "$(id)",
    ],
)
def test_all_else_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        compression.parse(text)
