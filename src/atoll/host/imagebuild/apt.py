"""Where the packages of a build come from: the mirror that the host's own apt uses, if it is for the same distribution.

A host behind a proxy, with a mirror in its own building, or pinned to a snapshot builds images by the same way it updates
itself. The image, however, gets the distribution's official sources: it may run elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atoll.domain.errors import Unsupported
from atoll.host.imagebuild.recipe import Distribution, Recipe

ROOT = Path("/")

_CARRIED_OPTIONS = ("signed-by", "check-valid-until", "check-date")
_CARRIED_SETTINGS = re.compile(
    r'(Acquire::(?:(?:http|https)::[^ ]+|Check-Valid-Until|Check-Date|Max-ValidTime[^ ]*|ForceIPv[46]|Retries)) "([^"]*)";'
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A source of packages: one URI with its suites. `options` are those of a one-line entry, in lower case."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The entry in the one-line format, one line per suite."""
        options = " ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        mark = f"[{options}] " if options else ""
        return [f"deb {mark}{self.uri} {suite} {' '.join(self.components)}" for suite in self.suites]


@dataclass(frozen=True, slots=True)
class _Defaults:
    archive: str
    security: str
    components: tuple[str, ...]
    keyring: str
    keyring_package: str


_DEFAULTS = {
    Distribution.DEBIAN: _Defaults(
        "http://deb.debian.org/debian",
        "http://security.debian.org/debian-security",
        ("main",),
        "usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
    ),
    Distribution.UBUNTU: _Defaults(
        "http://archive.ubuntu.com/ubuntu",
        "http://security.ubuntu.com/ubuntu",
        ("main", "universe"),
        "usr/share/keyrings/ubuntu-archive-keyring.gpg",
        "ubuntu-keyring",
    ),
}
_UBUNTU_PORTS = "http://ports.ubuntu.com/ubuntu-ports"


def official(recipe: Recipe, architecture: str) -> list[Entry]:
    """The distribution's own sources of a release, for a Debian architecture name."""
    defaults = _DEFAULTS[recipe.distribution]
    archive, security = defaults.archive, defaults.security
    if recipe.distribution is Distribution.UBUNTU and architecture not in ("amd64", "i386"):
        archive = security = _UBUNTU_PORTS
    return [
        Entry(archive, (recipe.release, f"{recipe.release}-updates"), defaults.components),
        Entry(security, (f"{recipe.release}-security",), defaults.components),
    ]


def for_build(recipe: Recipe, architecture: str, *, root: Path = ROOT) -> list[Entry]:
    """The sources to build from: the official ones, by the host's mirrors where it has them. Blocking.

    Unsupported, naming the package, if the keyring to check them with is not installed.
    """
    mirrors = host_mirrors(recipe.distribution, root=root)
    entries = []
    for entry, kind in zip(official(recipe, architecture), ("archive", "security"), strict=True):
        mirror = mirrors.get(kind)
        options = {"signed-by": _keyring(recipe.distribution, root), **(mirror.options if mirror else {})}
        entries.append(Entry(mirror.uri if mirror else entry.uri, entry.suites, entry.components, options))
    return entries


def _keyring(distribution: Distribution, root: Path) -> str:
    defaults = _DEFAULTS[distribution]
    if not (root / defaults.keyring).is_file():
        raise Unsupported(
            f"The keys of {distribution.brand} are not installed", hint=f"install the package {defaults.keyring_package!r}"
        )
    return f"/{defaults.keyring}"


def host_mirrors(distribution: Distribution, *, root: Path = ROOT) -> dict[str, Entry]:
    """The host's own sources by what they bring, `archive` and `security`; empty for a host of another distribution."""
    system = _os_release(root)
    codename = system.get("VERSION_CODENAME", "")
    if system.get("ID") != distribution.value or not codename:
        return {}
    wanted = {codename: "archive", f"{codename}-security": "security"}
    found: dict[str, Entry] = {}
    for entry in host_entries(root=root):
        for suite in entry.suites:
            if suite in wanted:
                found.setdefault(wanted[suite], entry)
    return found


def _os_release(root: Path) -> dict[str, str]:
    path = root / "etc/os-release"
    if not path.is_file():
        return {}
    pairs = (line.partition("=") for line in path.read_text().splitlines())
    return {key: value.strip("\"'") for key, _, value in pairs if key}


def host_entries(*, root: Path = ROOT) -> Iterator[Entry]:
    """Every enabled source of binary packages in the host's /etc/apt."""
    folder = root / "etc/apt"
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        if path.suffix == ".list" and path.is_file():
            yield from parse_list(path.read_text(errors="replace"))
        elif path.suffix == ".sources" and path.is_file():
            yield from parse_deb822(path.read_text(errors="replace"))


_ONE_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)")


def parse_list(text: str) -> Iterator[Entry]:
    """Entries of the one-line format."""
    for line in text.splitlines():
        match = _ONE_LINE.match(line.strip())
        if match is not None:
            pairs = (option.partition("=") for option in (match[1] or "").split())
            options = {key.lower(): value for key, equals, value in pairs if equals}
            yield Entry(match[2], (match[3],), tuple(match[4].split()), _carried(options))


def parse_deb822(text: str) -> Iterator[Entry]:
    """Entries of the deb822 format; one per URI of a stanza."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = _stanza(stanza)
        if fields.get("enabled", "yes").lower() in ("no", "false", "0") or "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            yield Entry(
                uri, tuple(fields.get("suites", "").split()), tuple(fields.get("components", "").split()), _carried(fields)
            )


def _stanza(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[last] = f"{fields.get(last, '')} {line.strip()}"
            continue
        key, _, value = line.partition(":")
        last = key.strip().lower()
        fields[last] = value.strip()
    return fields


def _carried(options: Mapping[str, str]) -> dict[str, str]:
    """The options that a build takes over; an embedded key (several words) cannot stand in a one-line entry."""
    return {key: options[key] for key in _CARRIED_OPTIONS if key in options and " " not in options[key].strip()}


def carried_settings(dump: str) -> Sequence[str]:
    """The settings in `apt-config dump` that decide how mirrors are reached: proxies, certificates, times, retries."""
    return [f'{match[1]} "{match[2]}";' for match in map(_CARRIED_SETTINGS.fullmatch, dump.splitlines()) if match]
