"""What an image server (simplestreams) has, in the words of the REST API. Pure: documents in, images out.

The documents come from strangers: what is not as it should be is left out, and no path in them leads out of the server. A client
shows and downloads; the server that makes instances reads the documents itself.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Image = dict[str, Any]

INDEX = "streams/v1/index.json"
MOST_PRODUCTS = 50_000
MOST_FILES = 32
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+~:@%=/-")
_NEVER, _UNKNOWN = "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"
_DIGITS = frozenset("0123456789abcdef")
_METADATA = ("lxd.tar.xz", "incus.tar.xz")
_UNIFIED = ("lxd_combined.tar.gz", "incus_combined.tar.gz")
# By the type of image: kinds of root file systems with the metadata's key for the fingerprint that each makes; the best first.
_ROOTS = {
    "container": (("squashfs", "squashfs"), ("root.tar.xz", "rootxz"), ("root.tar.xz", "")),
    "virtual-machine": (("disk-kvm.img", "disk-kvm-img"), ("uefi1.img", "uefi1-img")),
}
_ARCHITECTURES = {
    "amd64": "x86_64", "i386": "i686", "arm64": "aarch64", "armhf": "armv7l", "armel": "armv7l", "ppc64el": "ppc64le",
    "powerpc": "ppc",
}  # fmt: skip


def product_paths(index: object) -> list[str]:
    """The product files that list images."""
    entries = _mapping(_mapping(index).get("index")).values()
    paths = [_mapping(entry).get("path") for entry in entries if _mapping(entry).get("datatype") == "image-downloads"]
    return list(dict.fromkeys(str(path) for path in paths if _is_path(path)))[:MOST_FILES]


def images(products: object, machine: str) -> list[Image]:
    """The images of a product file. `files` of each are (name, path, sha256, size). The newest version of a product has its
    aliases: bare ones for this `machine`'s architecture, and all with the architecture at their end."""
    found: list[Image] = []
    for product in list(map(_mapping, _mapping(_mapping(products).get("products")).values()))[:MOST_PRODUCTS]:
        versions = _mapping(product.get("versions"))
        for kind in _ROOTS:
            newest = True
            for version in sorted(map(str, versions), reverse=True):
                items = [_mapping(item) for item in _mapping(_mapping(versions[version]).get("items")).values()]
                files = _files(items, kind)
                if files is not None:
                    found.append(_image(product, version, kind, *files))
                    found[-1]["aliases"] = _aliases(product, machine) if newest else []
                    newest = False
    return found


def _files(items: list[dict[str, Any]], kind: str) -> tuple[str, list[tuple[str, str, str, int]]] | None:
    """(fingerprint, files) of the best root file system of that kind of image; None if the version has none."""
    by_type = {str(item.get("ftype")): item for item in items if _is_file(item)}
    meta = next((by_type[name] for name in _METADATA if name in by_type), None)
    unified = next((by_type[name] for name in _UNIFIED if name in by_type), None)
    if meta is None and unified is not None and kind == "container":
        return unified["sha256"], [_file("", unified)]
    for root, key in _ROOTS[kind] if meta is not None else ():
        fingerprint = (meta or {}).get(f"combined_{key}_sha256" if key else "combined_sha256")
        if root in by_type and _is_hash(fingerprint):
            return str(fingerprint), [_file("metadata", meta or {}), _file("rootfs", by_type[root])]
    return None


def _image(product: dict[str, Any], version: str, kind: str, fingerprint: str, files: list[tuple[str, str, str, int]]) -> Image:
    architecture = str(product.get("arch"))
    system, release = str(product.get("os") or ""), str(product.get("release_title") or product.get("release") or "")
    properties = {
        "architecture": architecture,
        "description": " ".join(filter(None, (system, release, architecture, f"({version})"))),
        "label": str(product.get("label") or ""),
        "os": system,
        "release": str(product.get("release") or ""),
        "serial": version,
        "type": "squashfs" if files[-1][1].endswith(".squashfs") else "tar.xz",
        "variant": str(product.get("variant") or ""),
        "version": str(product.get("version") or ""),
    }
    created = _stamp(version[:4], version[4:6], version[6:8])
    return {
        "fingerprint": fingerprint,
        "type": kind,
        "architecture": _ARCHITECTURES.get(architecture, architecture),
        "properties": {key: _printable(value) for key, value in properties.items() if value},
        "size": sum(size for _, _, _, size in files),
        "created_at": created,
        "uploaded_at": created,
        "expires_at": _stamp(*str(product.get("support_eol") or "").split("-")),
        "last_used_at": _UNKNOWN,
        "public": True,
        "cached": False,
        "auto_update": False,
        "profiles": [],
        "filename": "",
        "files": files,
    }


def _aliases(product: dict[str, Any], machine: str) -> list[dict[str, str]]:
    names = [name for name in (_printable(part.strip()) for part in str(product.get("aliases") or "").split(",")) if name]
    architecture = str(product.get("arch"))
    here = names if _ARCHITECTURES.get(architecture, architecture) == machine else []
    return [{"name": name, "description": ""} for name in [*here, *(f"{name}/{architecture}" for name in names)]]


def _file(name: str, item: dict[str, Any]) -> tuple[str, str, str, int]:
    return name, item["path"], item["sha256"], item["size"]


def _is_file(item: dict[str, Any]) -> bool:
    size = item.get("size")
    return _is_path(item.get("path")) and _is_hash(item.get("sha256")) and isinstance(size, int) and size > 0


def _is_hash(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and _DIGITS.issuperset(text)


def _is_path(path: object) -> bool:
    """Whether it is one below the server's address."""
    if not isinstance(path, str) or not 0 < len(path) <= 1024 or not _PLAIN.issuperset(path):
        return False
    return not path.startswith((".", "-", "/")) and not {"", ".", ".."}.intersection(path.split("/"))


def _printable(text: str) -> str:
    """Without what could move a terminal's cursor."""
    return "".join(letter for letter in text if letter.isprintable())


def _stamp(*date: str) -> str:
    """Year, month and day as the API writes a time; what it writes for never for what is no date."""
    if len(date) != 3 or not all(part.isascii() and part.isdecimal() for part in date):
        return _NEVER
    try:
        time.strptime("-".join(date), "%Y-%m-%d")
    except ValueError:
        return _NEVER
    return "-".join(date) + "T00:00:00Z"


def _mapping(value: object) -> dict[str, Any]:
    """The value if it is a map, else an empty one."""
    return value if isinstance(value, dict) else {}
