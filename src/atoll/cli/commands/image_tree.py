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
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

INDEX, PRODUCTS = "streams/v1/index.json", "streams/v1/images.json"
CHUNK = 1 << 20


def write(call: Call) -> None:
    """Add images to a tree, or bring them up to date."""
    folder = call.arguments[0]
    os.makedirs(f"{folder}/streams/v1", exist_ok=True)
    os.makedirs(f"{folder}/images", exist_ok=True)
    before = _read(f"{folder}/{PRODUCTS}").get("products") or {}
    products = {} if call.flags.on("prune") else before
    for server, image in _chosen(call, call.arguments[1:]):
        call.say(f"Writing {image['aliases'][0]['name']}")
        _add(products, image, _files(call, server, image, folder))
    _save(f"{folder}/{PRODUCTS}", {"format": "products:1.0", "datatype": "image-downloads", "products": products})
    entry = {"datatype": "image-downloads", "format": "products:1.0", "path": PRODUCTS, "products": sorted(products)}
    _save(f"{folder}/{INDEX}", {"format": "index:1.0", "index": {"images": entry}})
    _remove_unused(folder, products)


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
    names = sorted(os.listdir(place))
    roots = [name for name in names if name.startswith(("image.root", "image.squashfs"))]
    if len(names) == 1:
        return {"lxd_combined.tar.gz": _item(place, names[0], "lxd_combined.tar.gz")}
    if len(names) != 2 or len(roots) != 1:
        raise CommandError(f"{place} does not have the files of an image")
    squashed = roots[0].endswith(".squashfs")
    root = "squashfs" if squashed else "root.tar.xz"
    combined = "combined_squashfs_sha256" if squashed else "combined_rootxz_sha256"
    (meta,) = (name for name in names if name not in roots)
    return {
        "lxd.tar.xz": _item(place, meta, "lxd.tar.xz") | {combined: fingerprint},
        root: _item(place, roots[0], root),
    }


def _item(place: str, name: str, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(f"{place}/{name}", "rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
        size = file.tell()
    path = f"images/{os.path.basename(place)}/{name}"
    return {"ftype": kind, "path": path, "sha256": digest.hexdigest(), "size": size}


def _add(products: dict[str, Any], image: dict[str, Any], items: dict[str, Any]) -> None:
    """Put an image into the products, as the newest version of its own."""
    properties = image.get("properties") or {}
    aliases = [alias["name"] for alias in image["aliases"]]
    product = products.setdefault(f"{aliases[0]}:{image['architecture']}", {"versions": {}})
    created = times.seconds(image.get("created_at") or "") or times.seconds(image.get("uploaded_at") or "") or 0
    version = time.strftime("%Y%m%d_%H:%M:%S", time.gmtime(created))
    product |= {
        "aliases": ",".join(aliases),
        "arch": image["architecture"],
        "os": properties.get("os", ""),
        "release": properties.get("release", ""),
        "release_title": properties.get("release", ""),
        "variant": properties.get("variant", "default"),
    }
    product["versions"][version] = {"items": items}
    products[f"{aliases[0]}:{image['architecture']}"] = product


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
    """Remove what no document speaks of any more."""
    paths = {
        item["path"].split("/")[1]
        for product in products.values()
        for version in product["versions"].values()
        for item in version["items"].values()
    }
    for name in os.listdir(f"{folder}/images"):
        if name not in paths:
            shutil.rmtree(f"{folder}/images/{name}")
