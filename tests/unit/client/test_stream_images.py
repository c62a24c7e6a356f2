"""What an image server's documents say, in the words of the REST API."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from atoll.client import stream_images
from atoll.domain import simplestreams

A, B, C = "a" * 64, "b" * 64, "c" * 64


def item(kind: str, path: str, digest: str = A, **more: Any) -> dict[str, Any]:
    return {"ftype": kind, "path": path, "sha256": digest, "size": 10, **more}


def product(*versions: str, **fields: Any) -> dict[str, Any]:
    """A product with split images, each with a fingerprint of its own."""
    about = {"aliases": "tiny/1, tiny", "arch": "amd64", "os": "Tiny", "release": "one", "release_title": "One", **fields}
    found = {}
    for number, version in enumerate(versions):
        fingerprint = f"{number}" * 64
        meta = item("lxd.tar.xz", f"i/{version}/lxd.tar.xz", combined_squashfs_sha256=fingerprint)
        found[version] = {"items": {"lxd.tar.xz": meta, "root": item("squashfs", f"i/{version}/root.squashfs", B)}}
    return {"products": {"tiny": {**about, "versions": found}}}


def test_an_image():
    (image,) = stream_images.images(product("20260102_03:04", support_eol="2030-06-01"), "x86_64")
    assert image["files"] == [
        ("metadata", "i/20260102_03:04/lxd.tar.xz", A, 10), ("rootfs", "i/20260102_03:04/root.squashfs", B, 10)
    ]  # fmt: skip
    assert [alias["name"] for alias in image["aliases"]] == ["tiny/1", "tiny", "tiny/1/amd64", "tiny/amd64"]
    assert (image["architecture"], image["size"], image["created_at"]) == ("x86_64", 20, "2026-01-02T00:00:00Z")
    assert (image["expires_at"], image["properties"]["description"]) == (
        "2030-06-01T00:00:00Z",
        "Tiny One amd64 (20260102_03:04)",
    )


def test_the_newest_version_has_the_aliases():
    found = stream_images.images(product("20250101", "20260101", "20240101"), "x86_64")
    assert [(image["properties"]["serial"], bool(image["aliases"])) for image in found] == [
        ("20260101", True), ("20250101", False), ("20240101", False)
    ]  # fmt: skip


def test_bare_aliases_are_for_this_machine():
    (image,) = stream_images.images(product("20260101", arch="arm64"), "x86_64")
    assert [alias["name"] for alias in image["aliases"]] == ["tiny/1/arm64", "tiny/arm64"]


@pytest.mark.parametrize("kind", ["lxd_combined.tar.gz", "incus_combined.tar.gz"])
def test_a_unified_image(kind: str):
    content = {"products": {"x": {"arch": "amd64", "versions": {"1": {"items": {"a": item(kind, "u.tar.gz", C)}}}}}}
    (image,) = stream_images.images(content, "x86_64")
    assert (image["fingerprint"], image["files"]) == (C, [("", "u.tar.gz", C, 10)])


@pytest.mark.parametrize(
    "content",
    [
        None, [], {}, {"products": 7}, {"products": {"x": None}}, {"products": {"x": {"versions": []}}},
        {"products": {"x": {"versions": {"1": {"items": {"a": None, "b": {"ftype": "lxd.tar.xz"}}}}}}},
    ],
)  # fmt: skip
def test_documents_that_say_nothing(content: object):
    assert stream_images.images(content, "x86_64") == []
    assert stream_images.product_paths(content) == []


PATHS = ["../x", "a/../b", "/etc/passwd", "https://x/y", "a//b", "", ".", "a\nb", "a\0", "-x", "é", "a/./b", None, 7, "x" * 1025]


@pytest.mark.parametrize("path", [*PATHS, "a", "a/b.c", "images/x%20y/1"])
def test_both_readers_of_documents_agree_on_paths(path: Any):
    """The client's and the server's: what one would fetch, the other would."""
    content = product("20260101")
    content["products"]["tiny"]["versions"]["20260101"]["items"]["root"]["path"] = path
    ours = bool(stream_images.images(content, "x86_64"))
    assert ours == bool(simplestreams.images(msgspec.json.encode(content)))
    assert ours == (path not in PATHS)


def test_what_moves_a_cursor_is_left_out():
    (image,) = stream_images.images(product("20260101", os="\x1b[2JTiny", aliases="ti\x07ny"), "x86_64")
    assert image["properties"]["os"] == "[2JTiny"
    assert image["aliases"][0]["name"] == "tiny"


def test_product_files_are_named_once_and_not_too_many():
    entry = {"datatype": "image-downloads", "path": "streams/v1/a.json"}
    index = {"index": {str(n): {**entry, "path": f"streams/v1/{n // 2}.json"} for n in range(200)}}
    assert len(stream_images.product_paths(index)) == stream_images.MOST_FILES
    assert stream_images.product_paths({"index": {"1": entry, "2": entry, "3": {**entry, "datatype": "x"}}}) == [entry["path"]]
