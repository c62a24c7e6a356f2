"""The table of architectures."""

from __future__ import annotations

import pytest

from atoll.domain import architectures
from atoll.domain.errors import BadRequest


def test_names_are_unique() -> None:
    names = [name for row in architectures.TABLE for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "kernel"), [("amd64", "x86_64"), ("arm64", "aarch64"), ("x86_64", "x86_64"), ("ppc64el", "ppc64le")]
)
def test_aliases(name: str, kernel: str) -> None:
    assert architectures.canonical(name) == kernel


def test_numbers_are_those_of_lxd() -> None:
    assert [architectures.by_id(number).name for number in (1, 2, 4, 12)] == ["i686", "x86_64", "aarch64", "riscv64"]


def test_personalities() -> None:
    assert architectures.supported_by("x86_64") == ("x86_64", "i686")


def test_every_personality_is_in_the_table() -> None:
    for row in architectures.TABLE:
        for name in row.personalities:
            assert architectures.canonical(name) == name


@pytest.mark.parametrize("name", ["", "z80", "X86_64"])
def test_unknown(name: str) -> None:
    with pytest.raises(BadRequest):
        architectures.find(name)
    with pytest.raises(BadRequest):
        architectures.by_id(99)
