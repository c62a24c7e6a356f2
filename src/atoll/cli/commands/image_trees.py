"""`image tree list|remove|prune|verify`: looking after the folders that `image serve-tree` writes."""

from __future__ import annotations

import hashlib
import os
import sys

from atoll.cli import entity
from atoll.cli.commands import image_tree
from atoll.cli.commands.images import mebibytes
from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from atoll.cli.session import Call

    Products = dict[str, Any]


class Version:
    """One image of a tree."""

    def __init__(self, product: str, about: dict[str, Any], name: str) -> None:
        self.product = product
        self.name = name
        self.aliases = [alias for alias in str(about.get("aliases") or "").split(",") if alias]
        self.architecture = str(about.get("arch") or "")
        self.items: dict[str, dict[str, Any]] = about["versions"][name].get("items") or {}

    @property
    def fingerprint(self) -> str:
        """As its metadata announces it; empty if it does not."""
        for kind, item in self.items.items():
            if kind in image_tree.UNIFIED:
                return str(item.get("sha256") or "")
            for key in image_tree.COMBINED.values():
                if item.get(key):
                    return str(item[key])
        return ""

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(int(item.get("size") or 0) for item in self.items.values())

    def is_meant(self, name: str) -> bool:
        """Whether a person means it by a product, an alias, or twelve digits or more of the fingerprint."""
        return name in (self.product, *self.aliases) or (len(name) >= 12 and self.fingerprint.startswith(name))


def _versions(products: Products) -> list[Version]:
    return [Version(name, about, version) for name, about in products.items() for version in about.get("versions") or {}]


def list_(call: Call) -> None:
    """List the images of a tree."""
    found = _versions(image_tree.read(call.arguments[0]))
    rows = [[each.product, each.name, each.fingerprint[:12], each.architecture, mebibytes(each.size)] for each in found]
    raw = [
        {
            "product": each.product, "version": each.name, "fingerprint": each.fingerprint, "aliases": each.aliases,
            "architecture": each.architecture, "size": each.size,
        }
        for each in found
    ]  # fmt: skip
    entity.print_list(call, ("PRODUCT", "VERSION", "FINGERPRINT", "ARCHITECTURE", "SIZE"), rows, raw)


def remove(call: Call) -> None:
    """Take images out of a tree."""
    folder, *names = call.arguments
    products = image_tree.read(folder)
    found = _versions(products)
    for name in names:
        meant = [each for each in found if each.is_meant(name)]
        if not meant:
            raise CommandError(f"{name!r} is no image of {folder}")
        for each in meant:
            _drop(products, each)
    image_tree.store(folder, products)


def prune(call: Call) -> None:
    """Keep the newest versions of each product."""
    folder, keep = call.arguments[0], call.flags.text("keep")
    if not keep.isascii() or not keep.isdecimal() or int(keep) < 1:
        raise CommandError("--keep: a number of 1 or more is required")
    products = image_tree.read(folder)
    for name in list(products):
        old = sorted((each for each in _versions(products) if each.product == name), key=lambda each: each.name)[: -int(keep)]
        for each in old:
            call.say(f"Removing {each.product} {each.name}")
            _drop(products, each)
    image_tree.store(folder, products)


def _drop(products: Products, version: Version) -> None:
    versions = (products.get(version.product) or {}).get("versions") or {}
    versions.pop(version.name, None)
    if not versions:
        products.pop(version.product, None)


def verify(call: Call) -> int:
    """Compare a tree's files with what its documents announce; 1 when they differ."""
    folder = call.arguments[0]
    found = _versions(image_tree.read(folder))
    problems = [problem for each in found for problem in _problems(folder, each)]
    named = image_tree.places(item for each in found for item in each.items.values())
    if os.path.isdir(f"{folder}/images"):
        strays = [name for name in sorted(os.listdir(f"{folder}/images")) if name not in named]
        problems += [f"images/{name}: no document speaks of it" for name in strays]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    call.say(f"{len(found)} images, {len(problems)} problems")
    return 1 if problems else 0


def _problems(folder: str, version: Version) -> Iterator[str]:
    """What is wrong with one image: a file's size or hash, or the fingerprint that its files make."""
    whole = hashlib.sha256()
    for kind in image_tree.in_order(version.items):
        item = version.items[kind]
        digest = hashlib.sha256()
        try:
            size = image_tree.hash_file(f"{folder}/{item['path']}", digest, whole)
        except OSError as error:
            yield f"{item['path']}: {error.strerror}"
            return
        if (size, digest.hexdigest()) != (item.get("size"), item.get("sha256")):
            yield f"{item['path']}: not the file that was announced"
    if whole.hexdigest() != version.fingerprint:
        yield f"{version.product} {version.name}: its files are not image {version.fingerprint[:12]}"
