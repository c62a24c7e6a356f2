"""`image serve-tree`: images as the files of a simplestreams server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time

from atoll.cli import times
from atoll.cli.commands import image_source, image_store
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

INDEX, PRODUCTS = "streams/v1/index.json", "streams/v1/images.json"
CHUNK = 1 << 20
UNIFIED = ("lxd_combined.tar.gz",)
METADATA = "lxd.tar.xz"
COMBINED = {"squashfs": "combined_squashfs_sha256", "root.tar.xz": "combined_rootxz_sha256"}
"""By the kind of a root file system, the metadata's key with the fingerprint that both make."""


def write(call: Call) -> None:
    """Add images to a tree, or bring them up to date."""
    folder = call.arguments[0]
    os.makedirs(f"{folder}/streams/v1", exist_ok=True)
    os.makedirs(f"{folder}/images", exist_ok=True)
    products = {} if call.flags.on("prune") else _read(f"{folder}/{PRODUCTS}").get("products") or {}
    for server, image in _chosen(call, call.arguments[1:]):
        names = _names(server, image)
        call.say(f"Writing {names[0]}")
        _add(products, image, names, _version(server, image), _files(call, server, image, folder))
    store(folder, products)


def read(folder: str) -> dict[str, Any]:
    """The products of a tree. CommandError if it is none."""
    if not os.path.isfile(f"{folder}/{INDEX}"):
        raise CommandError(f"{folder} is no tree of images: it has no {INDEX}")
    products: dict[str, Any] = _read(f"{folder}/{PRODUCTS}").get("products") or {}
    return products


def store(folder: str, products: dict[str, Any]) -> None:
    """Write a tree's documents, then remove what they speak of no more."""
    _save(f"{folder}/{PRODUCTS}", {"format": "products:1.0", "datatype": "image-downloads", "products": products})
    entry = {"datatype": "image-downloads", "format": "products:1.0", "path": PRODUCTS, "products": sorted(products)}
    _save(f"{folder}/{INDEX}", {"format": "index:1.0", "index": {"images": entry}})
    _remove_unused(folder, products)


def in_order(kinds: Iterable[str]) -> list[str]:
    """The files of an image in the order in which they make its fingerprint."""
    return sorted(kinds, key=lambda kind: kind != METADATA)


def hash_file(path: str, *digests: Any) -> int:
    """Update the digests with a file; returns its size."""
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            for digest in digests:
                digest.update(data)
        return file.tell()


def _chosen(call: Call, names: list[str]) -> list[tuple[Server, dict[str, Any]]]:
    """The images that are named; without names all that have an alias, of the default remote."""
    if not names:
        server, _ = call.split_remote([])
        return [(server, image) for image in server.get(url("images", recursion="1")) or () if image.get("aliases")]
    found = []
    for text in names:
        server, name = call.required(text, "image name")
        image = server.get(url("images", image_source.required(server, name)))
        if not image.get("aliases"):
            raise CommandError(f"Image {name} has no alias, and would be found by none")
        found.append((server, image))
    return found


def _files(call: Call, server: Server, image: dict[str, Any], folder: str) -> dict[str, Any]:
    """Fetch an image's files, unless they are there; returns its items in the words of simplestreams."""
    fingerprint = image["fingerprint"]
    place = f"{folder}/images/{fingerprint}"
    if not os.path.isdir(place):
        new = f"{folder}/images/.{fingerprint}.new"
        shutil.rmtree(new, ignore_errors=True)
        os.mkdir(new)
        image_store.save(call, server, fingerprint, new, "image")
        os.rename(new, place)
    items = _items(place)
    whole = hashlib.sha256()
    for kind in in_order(items):
        hash_file(f"{folder}/{items[kind]['path']}", whole)
    if whole.hexdigest() != fingerprint:
        raise CommandError(f"The files in {place} are not the image any more: remove that folder and write it again")
    if METADATA in items:
        root = next(kind for kind in items if kind != METADATA)
        items[METADATA][COMBINED[root]] = fingerprint
    return items


def _items(place: str) -> dict[str, dict[str, Any]]:
    """An image's files, by the words of simplestreams for their kinds."""
    names = sorted(os.listdir(place))
    roots = [name for name in names if name.startswith(("image.root", "image.squashfs"))]
    if len(names) == 1:
        return {UNIFIED[0]: _item(place, names[0], UNIFIED[0])}
    if len(names) != 2 or len(roots) != 1:
        raise CommandError(f"{place} does not have the files of an image")
    root = "squashfs" if roots[0].endswith(".squashfs") else "root.tar.xz"
    (meta,) = (name for name in names if name not in roots)
    return {METADATA: _item(place, meta, METADATA), root: _item(place, roots[0], root)}


def _item(place: str, name: str, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = hash_file(f"{place}/{name}", digest)
    path = f"images/{os.path.basename(place)}/{name}"
    return {"ftype": kind, "path": path, "sha256": digest.hexdigest(), "size": size}


def _names(server: Server, image: dict[str, Any]) -> list[str]:
    """An image's aliases. Those that an image server makes of others, with the architecture at their end, are not told again."""
    names = [alias["name"] for alias in image["aliases"]]
    if server.read_only:
        architecture = (image.get("properties") or {}).get("architecture", "")
        names = list(dict.fromkeys(name.removesuffix(f"/{architecture}") for name in names))
    return names


def _version(server: Server, image: dict[str, Any]) -> str:
    """The name of the version: that of the image server, else when it was made."""
    serial: str = (image.get("properties") or {}).get("serial", "")
    if server.read_only and serial:
        return serial
    made = times.seconds(image.get("created_at") or "") or times.seconds(image.get("uploaded_at") or "") or 0
    return time.strftime("%Y%m%d_%H:%M:%S", time.gmtime(made))


def _add(products: dict[str, Any], image: dict[str, Any], names: list[str], version: str, items: dict[str, Any]) -> None:
    """Put an image into the products, as a version of its own."""
    properties = image.get("properties") or {}
    product = products.setdefault(f"{names[0]}:{image['architecture']}", {"versions": {}})
    product |= {
        "aliases": ",".join(names),
        "arch": image["architecture"],
        "os": properties.get("os", ""),
        "release": properties.get("release", ""),
        "release_title": properties.get("release", ""),
        "variant": properties.get("variant", "default"),
    }
    product["versions"][version] = {"items": items}


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CommandError(f"{path} is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _save(path: str, content: dict[str, Any]) -> None:
    """In one step."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
    os.replace(f"{path}.new", path)


def _remove_unused(folder: str, products: dict[str, Any]) -> None:
    """Remove images that no document speaks of any more, and what was left of a write; nothing of others, who have a folder of
    that name too."""
    items = (
        item for product in products.values() for version in product["versions"].values() for item in version["items"].values()
    )
    named = places(items)
    for name in os.listdir(f"{folder}/images"):
        path = f"{folder}/images/{name}"
        if name not in named and _is_ours(name) and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)


def _is_ours(name: str) -> bool:
    """Whether that is what the folder of an image is called, or of one that is being written."""
    fingerprint = name.removeprefix(".").removesuffix(".new")
    return len(fingerprint) == 64 and image_source.is_hex(fingerprint)


def places(items: Iterable[dict[str, Any]]) -> set[str]:
    """The names below images/ that those files are in."""
    return {str(item.get("path")).split("/")[1] for item in items if str(item.get("path")).startswith("images/")}
