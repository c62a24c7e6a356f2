"""Where a build's packages come from, for hosts of several kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.domain.errors import Unsupported
from atoll.host.imagebuild import apt, recipe
from atoll.host.imagebuild.apt import Entry
from atoll.host.imagebuild.recipe import Distribution

DEBIAN_KEYS = "usr/share/keyrings/debian-archive-keyring.gpg"
SIGNED = {"signed-by": f"/{DEBIAN_KEYS}"}

DEB822 = """\
Types: deb deb-src
# a mirror in the building
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
Check-Valid-Until: no

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 abc

Types: deb
URIs: http://off.example/
Suites: bookworm
Enabled: no
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A Debian 12 with its keyring and no sources yet."""
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    (tmp_path / DEBIAN_KEYS).parent.mkdir(parents=True)
    (tmp_path / DEBIAN_KEYS).touch()
    return tmp_path


def lines(name: str, root: Path) -> list[str]:
    return [line for entry in apt.for_build(recipe.find(name), "amd64", root=root) for line in entry.lines()]


def test_a_host_without_sources_gets_the_official_ones(host: Path) -> None:
    mark = f"[signed-by=/{DEBIAN_KEYS}]"
    assert lines("debian/12", host) == [
        f"deb {mark} http://deb.debian.org/debian bookworm main",
        f"deb {mark} http://deb.debian.org/debian bookworm-updates main",
        f"deb {mark} http://security.debian.org/debian-security bookworm-security main",
    ]


def test_the_hosts_mirror_serves_other_releases_too(host: Path) -> None:
    (host / "etc/apt/sources.list.d/debian.sources").write_text(DEB822)
    mark = f"[signed-by=/{DEBIAN_KEYS}]"
    assert lines("debian/13", host) == [
        f"deb [check-valid-until=no signed-by=/{DEBIAN_KEYS}] http://mirror.example/debian trixie main",
        f"deb [check-valid-until=no signed-by=/{DEBIAN_KEYS}] http://mirror.example/debian trixie-updates main",
        f"deb {mark} http://mirror.example/security trixie-security main",
    ]


def test_one_line_sources(host: Path) -> None:
    (host / "etc/apt/sources.list").write_text(
        "# deb http://no.example x main\n"
        "deb-src http://no.example bookworm main\n"
        "deb [ arch=amd64 check-valid-until=no ] http://snapshot.example/1 bookworm main contrib # pinned\n"
    )
    assert apt.host_mirrors(Distribution.DEBIAN, root=host) == {
        "archive": Entry("http://snapshot.example/1", ("bookworm",), ("main", "contrib"), {"check-valid-until": "no"})
    }


def test_files_of_other_names_are_not_read(host: Path) -> None:
    (host / "etc/apt/sources.list.d/a.sources.disabled").write_text(DEB822)
    assert list(apt.host_entries(root=host)) == []


def test_another_distribution_is_built_from_its_own_mirror(host: Path) -> None:
    (host / "etc/apt/sources.list.d/debian.sources").write_text(DEB822)
    (host / "usr/share/keyrings/ubuntu-archive-keyring.gpg").touch()
    assert all("ubuntu.com" in line for line in lines("ubuntu/24.04", host))


def test_a_missing_keyring_names_its_package(host: Path) -> None:
    with pytest.raises(Unsupported, match="ubuntu-keyring"):
        lines("ubuntu/24.04", host)


def test_ports_of_ubuntu() -> None:
    entries = apt.official(recipe.find("ubuntu/22.04"), "arm64")
    assert {entry.uri for entry in entries} == {"http://ports.ubuntu.com/ubuntu-ports"}


def test_only_what_reaches_mirrors_is_carried_over() -> None:
    dump = """\
Acquire::http::Proxy "http://proxy:3142";
Acquire::https::Verify-Peer "true";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
DPkg::Post-Invoke:: "rm -rf /";
Acquire::http::Proxy "x"; evil
APT::Update::Post-Invoke-Success:: "touch /tmp/x";
"""
    assert list(apt.carried_settings(dump)) == [
        'Acquire::http::Proxy "http://proxy:3142";',
        'Acquire::https::Verify-Peer "true";',
        'Acquire::Check-Valid-Until "false";',
    ]
