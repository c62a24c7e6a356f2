"""Architectures: LXD's numbers and names (the kernel's), the names distributions use for them, and personalities.

The number is what the database and the cluster store; the name is what the API shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.domain.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row of the table. `debian` is the name of the port in Debian and Ubuntu, empty where there is none."""

    id: int
    name: str
    aliases: tuple[str, ...] = ()
    debian: str = ""
    personalities: tuple[str, ...] = ()


TABLE: tuple[Architecture, ...] = (
    Architecture(1, "i686", ("i386", "i586", "386", "x86", "generic_32"), debian="i386"),
    Architecture(2, "x86_64", ("amd64", "generic_64"), debian="amd64", personalities=("i686",)),
    Architecture(
        3, "armv7l", ("armel", "armhf", "arm", "armhfp", "armv7a_hardfp", "armv7", "armv7a_vfpv3_hardfp"), debian="armhf"
    ),
    Architecture(4, "aarch64", ("arm64", "arm64_generic"), debian="arm64", personalities=("armv7l",)),
    Architecture(5, "ppc", ("powerpc",), debian="powerpc"),
    Architecture(6, "ppc64", ("powerpc64",), debian="ppc64", personalities=("ppc",)),
    Architecture(7, "ppc64le", ("ppc64el",), debian="ppc64el"),
    Architecture(8, "s390x", ("mainframe",), debian="s390x"),
    Architecture(9, "mips", ("mipsel", "mipsle"), debian="mipsel"),
    Architecture(10, "mips64", ("mips64el", "mips64le"), debian="mips64el", personalities=("mips",)),
    Architecture(11, "riscv32", ("riscv32gc",)),
    Architecture(12, "riscv64", ("riscv64gc",), debian="riscv64"),
)

_BY_NAME = {name: row for row in TABLE for name in (row.name, *row.aliases)}
_BY_ID = {row.id: row for row in TABLE}


def find(name: str) -> Architecture:
    """The row of a kernel or distribution name. BadRequest for a name that is neither."""
    row = _BY_NAME.get(name)
    if row is None:
        raise BadRequest(f"Unknown architecture {name[:40]!r}", hint=f"known are {', '.join(each.name for each in TABLE)}")
    return row


def by_id(number: int) -> Architecture:
    """The row of a stored number. BadRequest for a number that is not in the table."""
    row = _BY_ID.get(number)
    if row is None:
        raise BadRequest(f"Unknown architecture number {number}")
    return row


def canonical(name: str) -> str:
    """The kernel's name for any known name: `amd64` is `x86_64`."""
    return find(name).name


def supported_by(machine: str) -> tuple[str, ...]:
    """Every architecture a host of that `uname -m` runs: its own first, then its personalities."""
    row = find(machine)
    return (row.name, *row.personalities)
