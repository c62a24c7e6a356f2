"""Split images as files, and trees of images for a web server: read back as a server reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from recorder import Recorder

from atoll.cli import arguments
from atoll.cli.commands import image_store, image_tree, image_trees
from atoll.cli.errors import CommandError
from atoll.cli.tables.images import COMMANDS
from atoll.client.http1 import Response
from atoll.domain import simplestreams

META, ROOT, WHOLE = b"metadata" * 50, b"root\r\n--" * 5000, b"unified" * 100


def fingerprint(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def form(*, quoted: bool) -> bytes:
    quote = '"' if quoted else ""
    head = "--bound\r\nContent-Disposition: form-data; name={q}{}{q}; filename={q}{}{q}\r\nContent-Type: a/b\r\n\r\n"
    first, second = (head.format(*names, q=quote).encode() for names in (("metadata", "m-1.tar.xz"), ("rootfs", "1.squashfs")))
    return first + META + b"\r\n" + second + ROOT + b"\r\n--bound--\r\n"


class Store(Recorder):
    """Whose exports are those."""

    def __init__(self, *, quoted: bool = True) -> None:
        self.split, self.whole = fingerprint(META, ROOT), fingerprint(WHOLE)
        images = [self._image(self.split, "split/1"), self._image(self.whole, "whole", "w")]
        super().__init__(
            {"GET /1.0/images?recursion=1": [images] * 3, **{f"GET /1.0/images/{i['fingerprint']}": i for i in images}}
        )
        self.quoted = quoted

    @staticmethod
    def _image(fingerprint: str, *aliases: str) -> dict[str, Any]:
        return {
            "fingerprint": fingerprint, "architecture": "x86_64", "created_at": "2026-01-02T03:04:05Z",
            "aliases": [{"name": name} for name in aliases], "properties": {"os": "Tiny", "release": "1"},
        }  # fmt: skip

    def exchange(self, method: str, path: str, headers: Any, body: Any = None, *, sink: Any = None) -> Response:
        self.requests.append((f"{method} {path}", None))
        if self.split in path:
            sink(form(quoted=self.quoted))
            return Response(200, {"content-type": "multipart/form-data; boundary=bound"}, b"")
        sink(WHOLE)
        return Response(200, {"content-disposition": "inline;filename=x.tar.zst"}, b"")


class Call:
    """What the command needs of a call."""

    def __init__(self, words: list[str], server: Recorder, command: str = "image serve-tree") -> None:
        self.flags = arguments.Flags(COMMANDS[command].flags)
        self.arguments = arguments.parse(words, self.flags)
        self._server = server

    def split_remote(self, words: list[str]) -> tuple[Recorder, list[str]]:
        return self._server, words

    def required(self, text: str, what: str) -> tuple[Recorder, str]:
        return self._server, text

    def progress(self, label: str = "") -> None:
        return None

    def say(self, text: str) -> None:
        return None


@pytest.mark.parametrize("quoted", [True, False])
def test_a_split_image_is_two_files(tmp_path: Path, quoted: bool):
    store = Store(quoted=quoted)
    image_store.save(Call([str(tmp_path)], store), store, store.split, str(tmp_path), "x")  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.tar.xz": META, "x.squashfs": ROOT}


def write(folder: Path, store: Store, *words: str) -> list[simplestreams.StreamImage]:
    """Write the tree; returns the images a server finds in it, whose files are all there."""
    image_tree.write(Call([str(folder), *words], store))  # type: ignore[arg-type]
    (path,) = simplestreams.product_paths((folder / simplestreams.INDEX).read_bytes())
    found = simplestreams.images((folder / path).read_bytes())
    for image in found:
        for file in filter(None, (image.metadata, image.rootfs)):
            assert hashlib.sha256((folder / file.path).read_bytes()).hexdigest() == file.sha256
    return found


def test_a_tree_is_what_servers_read(tmp_path: Path):
    store = Store()
    found = write(tmp_path, store)
    assert {image.fingerprint: image.aliases for image in found} == {store.split: ("split/1",), store.whole: ("whole", "w")}
    assert {image.version for image in found} == {"20260102_03:04:05"}
    chosen = simplestreams.choose(found, "w", kind=simplestreams.CONTAINER, architecture="x86_64")
    assert chosen is not None
    assert chosen.fingerprint == store.whole


def test_what_is_there_is_not_fetched_again_and_pruned_when_asked(tmp_path: Path):
    store = Store()
    write(tmp_path, store)
    store.requests.clear()
    assert [image.fingerprint for image in write(tmp_path, store, "--prune", store.whole)] == [store.whole]
    assert not store.sent(f"GET /1.0/images/{store.whole}/export")
    assert [path.name for path in (tmp_path / "images").iterdir()] == [store.whole]
    assert len(write(tmp_path, store, store.split)) == 2


def test_what_others_have_there_stays(tmp_path: Path):
    (tmp_path / "images" / "holidays").mkdir(parents=True)
    (tmp_path / "images" / "holidays" / "sea.jpg").write_text("blue")
    (tmp_path / "images" / "note").write_text("mine")
    (tmp_path / "images" / f".{'a' * 64}.new").mkdir()
    store = Store()
    write(tmp_path, store, store.whole, "--prune")
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted([store.whole, "holidays", "note"])
    assert (tmp_path / "images" / "holidays" / "sea.jpg").read_text() == "blue"


def test_an_image_without_alias_is_refused(tmp_path: Path):
    store = Store()
    store._answers[f"GET /1.0/images/{store.whole}"]["aliases"] = []
    with pytest.raises(CommandError, match="no alias"):
        write(tmp_path, store, store.whole)


def tree(folder: Path, verb: str, *words: str) -> Any:
    """What a command of `image tree` returns."""
    call = Call([str(folder), *words], Store(), f"image tree {verb}")
    return getattr(image_trees, "list_" if verb == "list" else verb)(call)


def test_a_tree_that_is_whole_is_found_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = Store()
    write(tmp_path, store)
    assert tree(tmp_path, "verify") == 0
    tree(tmp_path, "list", "--format", "csv")
    assert capsys.readouterr().out.splitlines() == [
        f"split/1:x86_64,20260102_03:04:05,{store.split[:12]},x86_64,0.04MB",
        f"whole:x86_64,20260102_03:04:05,{store.whole[:12]},x86_64,0.00MB",
    ]


def test_what_a_disk_did_to_a_tree_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = Store()
    write(tmp_path, store)
    whole, root = tmp_path / "images" / store.whole / "image.tar.zst", tmp_path / "images" / store.split / "image.squashfs"
    whole.write_bytes(WHOLE[:-1] + b"x")
    root.unlink()
    (tmp_path / "images" / "stray").mkdir()
    assert tree(tmp_path, "verify") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"images/{store.split}/image.squashfs: No such file or directory",
        f"images/{store.whole}/image.tar.zst: not the file that was announced",
        f"whole:x86_64 20260102_03:04:05: its files are not image {store.whole[:12]}",
        "images/stray: no document speaks of it",
    ]
    with pytest.raises(CommandError, match="not the image any more"):
        write(tmp_path, store, store.whole)


def test_files_that_make_another_image_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Each file is as announced, and yet they are not what the fingerprint says."""
    store = Store()
    write(tmp_path, store)
    products = image_tree.read(str(tmp_path))
    products["split/1:x86_64"]["versions"]["20260102_03:04:05"]["items"]["lxd.tar.xz"]["combined_squashfs_sha256"] = "0" * 64
    image_tree.store(str(tmp_path), products)
    assert tree(tmp_path, "verify") == 1
    assert capsys.readouterr().err == "split/1:x86_64 20260102_03:04:05: its files are not image 000000000000\n"


def test_images_are_taken_out(tmp_path: Path):
    store = Store()
    write(tmp_path, store)
    tree(tmp_path, "remove", store.split[:12])
    assert [path.name for path in (tmp_path / "images").iterdir()] == [store.whole]
    with pytest.raises(CommandError, match="no image of"):
        tree(tmp_path, "remove", "w", store.split)
    assert len(image_tree.read(str(tmp_path))) == 1  # all or none
    tree(tmp_path, "remove", "w")
    assert list((tmp_path / "images").iterdir()) == []
    assert tree(tmp_path, "verify") == 0


def test_the_newest_versions_stay(tmp_path: Path):
    store = Store()
    write(tmp_path, store)
    products = image_tree.read(str(tmp_path))
    versions = products["whole:x86_64"]["versions"]
    for day in range(3, 6):
        versions[f"2026010{day}_00:00:00"] = versions["20260102_03:04:05"]
    image_tree.store(str(tmp_path), products)
    tree(tmp_path, "prune", "--keep", "3")
    left = image_tree.read(str(tmp_path))
    assert sorted(left["whole:x86_64"]["versions"]) == [f"2026010{day}_00:00:00" for day in range(3, 6)]
    assert len(left["split/1:x86_64"]["versions"]) == 1
    assert tree(tmp_path, "verify") == 0
    for keep in ("0", "-1", "x", ""):
        with pytest.raises(CommandError, match="--keep"):
            tree(tmp_path, "prune", f"--keep={keep}")


def test_what_is_no_tree_is_left_alone(tmp_path: Path):
    for verb in ("list", "verify", "prune"):
        with pytest.raises(CommandError, match="no tree"):
            tree(tmp_path, verb)
    assert list(tmp_path.iterdir()) == []
