"""Simplestreams: how image servers say what they have. Pure: documents in, images out.

A server has `streams/v1/index.json`, which names product files; a product file lists products (a distribution's release for an
architecture), their versions, and each version's files. An image is one version: a tarball with metadata, and a root file system.
Its fingerprint is the hash of the two files one after the other, which the metadata's entry states for each kind of root file
system. Documents come from strangers: what is not as it should be is left out, and no path in them leads out of the server.

Described at https://documentation.ubuntu.com/lxd/en/latest/reference/remote_image_servers/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from atoll.domain import architectures
from atoll.domain.errors import AtollError, BadRequest

INDEX = "streams/v1/index.json"
MOST_PRODUCTS = 50_000
MOST_FILES = 32
LONGEST_PROPERTY = 1000

_HASH = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"(?!.*(?://|(?:^|/)\.{1,2}(?:/|$)))[A-Za-z0-9_][A-Za-z0-9_.+~:@%=/-]{0,1023}")
_UNIFIED = ("lxd_combined.tar.gz", "incus_combined.tar.gz")
_METADATA = ("lxd.tar.xz", "incus.tar.xz", *_UNIFIED)
# ftype of a root file system, and the metadata's key with the fingerprint that it makes; the best first.
_ROOTS = (
    ("squashfs", "combined_squashfs_sha256"),
    ("root.tar.xz", "combined_rootxz_sha256"),
    ("root.tar.xz", "combined_sha256"),
)
_DISKS = (("disk-kvm.img", "combined_disk-kvm-img_sha256"), ("uefi1.img", "combined_uefi1-img_sha256"))
CONTAINER, VIRTUAL_MACHINE = "container", "virtual-machine"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a server; `path` is relative to the server's address."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class StreamImage:
    """An image that a server offers. Dates in seconds since 1970, 0 for none."""

    fingerprint: str
    type: str
    architecture: str
    aliases: tuple[str, ...]
    properties: Mapping[str, str]
    version: str
    created_at: int
    expires_at: int
    metadata: File
    rootfs: File | None

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return self.metadata.size + (self.rootfs.size if self.rootfs else 0)


def product_paths(index: bytes) -> list[str]:
    """The product files that list images to download. BadRequest for what is no index."""
    entries = _mapping(_decode(index, "index").get("index"))
    paths = [str(entry.get("path")) for entry in map(_mapping, entries.values()) if entry.get("datatype") == "image-downloads"]
    found = list(dict.fromkeys(path for path in paths if _PATH.fullmatch(path)))
    if len(found) > MOST_FILES:
        raise BadRequest(f"The image server lists more than {MOST_FILES} product files")
    return found


def images(products: bytes) -> list[StreamImage]:
    """All images of a product file. BadRequest for what is none."""
    rows = _mapping(_decode(products, "products").get("products"))
    if len(rows) > MOST_PRODUCTS:
        raise BadRequest(f"The image server lists more than {MOST_PRODUCTS} products")
    found = []
    for product in map(_mapping, rows.values()):
        for version, content in _mapping(product.get("versions")).items():
            found += _of_version(product, str(version), _mapping(_mapping(content).get("items")))
    return found


def choose(found: Iterable[StreamImage], wanted: str, *, kind: str, architecture: str) -> StreamImage | None:
    """The newest image of an alias, or the one whose fingerprint begins with `wanted` (12 digits or more). None if there is none.

    An alias may name the architecture at its end, as in `debian/12/arm64`; otherwise it is the host's.
    """
    alike = [image for image in found if image.type == kind]
    if len(wanted) >= 12 and all(letter in "0123456789abcdef" for letter in wanted):
        return next((image for image in alike if image.fingerprint.startswith(wanted)), None)
    name, _, last = wanted.rpartition("/")
    candidates = [image for image in alike if wanted in image.aliases and image.architecture == architecture]
    if not candidates and name:
        try:
            named = architectures.canonical(last)
        except AtollError:
            return None
        candidates = [image for image in alike if name in image.aliases and image.architecture == named]
    return max(candidates, key=lambda image: image.version, default=None)


def _of_version(product: Mapping[str, Any], version: str, items: Mapping[str, Any]) -> list[StreamImage]:
    """The container and the virtual machine image of a version, as far as they are whole."""
    try:
        architecture = architectures.canonical(str(product.get("arch")))
    except AtollError:
        return []
    files = [_mapping(item) for item in items.values()]
    metadata = next((item for kind in _METADATA for item in files if item.get("ftype") == kind), None)
    if metadata is None:
        return []
    found = []
    for kind, roots in ((CONTAINER, _ROOTS), (VIRTUAL_MACHINE, _DISKS)):
        parts = _parts(metadata, files, roots)
        if parts is not None:
            found.append(_image(product, version, architecture, kind, *parts))
    return found


def _parts(
    metadata: Mapping[str, Any], files: list[Mapping[str, Any]], roots: tuple[tuple[str, str], ...]
) -> tuple[str, File, File | None] | None:
    """(fingerprint, metadata, root file system) by the best root file system there is."""
    first = _file(metadata)
    if first is None:
        return None
    if metadata.get("ftype") in _UNIFIED:
        return (first.sha256, first, None) if roots is _ROOTS else None
    for kind, key in roots:
        fingerprint = metadata.get(key)
        for item in files:
            second = _file(item) if item.get("ftype") == kind else None
            if second is not None and isinstance(fingerprint, str) and _HASH.fullmatch(fingerprint):
                return fingerprint, first, second
    return None


def _image(
    product: Mapping[str, Any],
    version: str,
    architecture: str,
    kind: str,
    fingerprint: str,
    metadata: File,
    rootfs: File | None,
) -> StreamImage:
    aliases = tuple(filter(None, (alias.strip() for alias in str(product.get("aliases") or "").split(","))))
    release = str(product.get("release_title") or product.get("release") or "")
    system = str(product.get("os") or "")
    label = str(product.get("label") or "")
    properties = {
        "architecture": str(product.get("arch")),
        "description": " ".join(filter(None, (system, release, str(product.get("arch")), f"({version})"))),
        "os": system,
        "release": str(product.get("release") or ""),
        "serial": version,
        "type": "squashfs" if rootfs and rootfs.path.endswith(".squashfs") else "tar.xz",
        "variant": str(product.get("variant") or ""),
        "version": str(product.get("version") or ""),
        "label": label,
    }
    return StreamImage(
        fingerprint=fingerprint,
        type=kind,
        architecture=architecture,
        aliases=aliases,
        properties={key: _printable(value) for key, value in properties.items() if value},
        version=version,
        created_at=_date(version, "%Y%m%d_%H:%M") or _date(version[:8], "%Y%m%d"),
        expires_at=_date(str(product.get("support_eol") or ""), "%Y-%m-%d"),
        metadata=metadata,
        rootfs=rootfs,
    )


def _file(item: Mapping[str, Any]) -> File | None:
    path, sha256, size = item.get("path"), item.get("sha256"), item.get("size")
    if not isinstance(path, str) or not isinstance(sha256, str) or not isinstance(size, int):
        return None
    return File(path, sha256, size) if _PATH.fullmatch(path) and _HASH.fullmatch(sha256) and size > 0 else None


def _printable(text: str) -> str:
    """Without what could move a terminal's cursor, and not longer than a line may be."""
    return "".join(letter for letter in text[:LONGEST_PROPERTY] if letter.isprintable())


def _date(text: str, form: str) -> int:
    try:
        return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return 0


def _decode(document: bytes, what: str) -> Mapping[str, Any]:
    try:
        return _mapping(msgspec.json.decode(document))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"The image server's {what} is not JSON: {error}") from error


def _mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a map, else an empty one."""
    return value if isinstance(value, dict) else {}
