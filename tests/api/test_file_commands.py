"""The client's commands on files and metadata, against the real API: what goes in comes out as it was."""

from __future__ import annotations

import asyncio
import io
import os
import posix
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.cli import main

Atoll = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def rootfs(app: Any) -> Path:
    """The root of an instance `c1`."""
    await app.create("c1")
    folder: Path = app.paths.pools / "pool/containers/c1/rootfs"
    os.makedirs(folder)
    return folder


@pytest.fixture
def atoll(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Atoll:
    """Run a command line in an empty folder, with that standard input: (status, output, errors)."""
    monkeypatch.setitem(posix.environ, b"ATOLL_SOCKET", bytes(app.paths.socket))
    monkeypatch.setitem(posix.environ, b"ATOLL_CONF", bytes(tmp_path / "conf"))
    monkeypatch.setitem(posix.environ, b"EDITOR", b"printf edited >")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    async def run(line: str, stdin: str | None = None) -> tuple[int, str, str]:
        (tmp_path / "stdin").write_text(stdin or "")
        monkeypatch.setattr("atoll.cli.terminal.is_terminal", lambda _: stdin is None)
        monkeypatch.setattr("atoll.cli.commands.transfer.contents", _contents(tmp_path / "stdin"))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper((tmp_path / "stdin").open("rb")))
        monkeypatch.setattr("atoll.cli.terminal.read_input", lambda: stdin)
        capfd.readouterr()
        status = await asyncio.to_thread(main.run, line.split())
        sys.stdin.close()
        return (status, *capfd.readouterr())

    return run


def _contents(stdin: Path) -> Callable[[str], Any]:
    """Files as they are, /dev/stdin as the test has it."""

    def contents(path: str) -> Any:
        yield (stdin if path == "/dev/stdin" else Path(path)).read_bytes()

    return contents


def tree(top: Path) -> dict[str, tuple[str, str]]:
    """Names below a folder, each with its mode and content or target."""
    return {
        str(path.relative_to(top)): (
            stat.filemode(path.lstat().st_mode),
            os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else "",
        )
        for path in sorted(top.rglob("*"))
    }


def write(name: str, text: str) -> None:
    Path(name).write_text(text)


def plant(top: Path) -> None:
    (top / "sub/empty").mkdir(parents=True)
    (top / "a b").write_text("A")
    (top / "sub/x").write_text("X")
    (top / "sub/x").chmod(0o750)
    (top / "sub/l").symlink_to("/sub/x")


async def test_one_file(atoll: Atoll, rootfs: Path) -> None:
    write("f", "content")
    os.chmod("f", 0o640)
    assert await atoll("file push f c1/f") == (0, "", "")
    assert await atoll("file push f c1/g --uid 5 --gid 6 --mode 604") == (0, "", "")
    assert tree(rootfs) == {"f": ("-rw-r-----", "content"), "g": ("-rw----r--", "content")}
    assert (rootfs / "g").stat().st_uid == 5 and (rootfs / "g").stat().st_gid == 6
    assert await atoll("file pull c1/f -") == (0, "content", "")
    assert await atoll("file pull c1/f c1/g pulled/") == (0, "", "")
    assert tree(Path("pulled")) == tree(rootfs)
    assert await atoll("file push -p f f c1/new/er/") == (0, "", "")
    assert stat.S_IMODE((rootfs / "new/er").stat().st_mode) == 0o750
    assert await atoll("file delete c1/f c1/g") == (0, "", "")
    assert sorted(tree(rootfs)) == ["new", "new/er", "new/er/f"]


async def test_standard_input_and_the_editor(atoll: Atoll, rootfs: Path) -> None:
    assert (await atoll("file push - c1/f", "piped"))[0] == 0
    assert tree(rootfs) == {"f": ("-rw-r--r--", "piped")}
    (rootfs / "f").chmod(0o600)
    (rootfs / "l").symlink_to("f")
    assert (await atoll("file edit c1/f", "replaced"))[0] == 0
    assert tree(rootfs)["f"] == ("-rw-------", "replaced")
    assert await atoll("file edit c1/l") == (0, "", "")
    assert tree(rootfs) == {"f": ("-rw-------", "edited"), "l": ("lrwxrwxrwx", "f")}
    assert await atoll("file pull c1/l -") == (0, "edited", "")


async def test_trees_come_back_as_they_went(atoll: Atoll, rootfs: Path, tmp_path: Path) -> None:
    plant(tmp_path / "source")
    assert await atoll(f"file push -r {tmp_path}/source c1/") == (0, "", "")
    assert tree(rootfs / "source") == tree(tmp_path / "source")
    assert await atoll(f"file push -r -p {tmp_path}/source/. c1/deep/er") == (0, "", "")
    assert tree(rootfs / "deep/er/source") == tree(tmp_path / "source")
    assert await atoll("file pull -r c1/source pulled") == (0, "", "")
    pulled = tree(Path("pulled/source"))
    assert pulled == tree(tmp_path / "source")


REFUSED = [
    ("file push nope c1/x", "nope: No such file or directory"),
    ("file push . c1/x", ".: Is a directory"),
    ("file push f f c1/x", "Missing target directory"),
    ("file push f c1", "Invalid target c1"),
    ("file push f c1/none/x", "Not Found"),
    ("file push f c1/x --mode 8", "Invalid mode: 8"),
    ("file push -r f c1/x --uid 5", "Can't supply uid/gid/mode in recursive mode"),
    ("file push -r fifo c1/x", "'fifo' isn't a supported file type"),
    ("file pull c1/none .", "Not Found"),
    ("file pull c1 .", "Invalid source c1"),
    ("file pull c1/ .", "Missing path argument"),
    ("file pull c1/d .", "Can't pull a directory without --recursive"),
    ("file pull c1/d -", "Can't pull a directory without --recursive"),
    ("file pull c1/d c1/d f", "More than one file to download, but target is not a directory"),
    ("file delete c1/none", "Not Found"),
    ("file delete c1", "Invalid path c1"),
    ("file mount c1/d", "Instance path cannot be used in SSH SFTP listener mode"),
    ("file mount c1 nowhere", "nowhere: No such file or directory"),
    ("file mount c1 . --listen 127.0.0.1:0", "Target path and --listen flag cannot be used together"),
    ("file mount c1 f", "Target path must be a directory"),
    ("config template show c1 none", 'Template "none" not found'),
]


async def test_what_cannot_be_is_told(atoll: Atoll, rootfs: Path) -> None:
    write("f", "")
    os.mkfifo("fifo")
    (rootfs / "d").mkdir()
    for line, error in REFUSED:
        assert await atoll(line) == (1, "", f"Error: {error}\n"), line
    assert sorted(tree(rootfs)) == ["d"]


async def test_a_pull_writes_through_no_link_of_an_earlier_one(atoll: Atoll, rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/f").write_text("mine")
    (rootfs / "top").mkdir()
    (rootfs / "top/d").symlink_to(tmp_path / "mine")
    (rootfs / "top/g").symlink_to(tmp_path / "mine/f")
    assert (await atoll("file pull -r c1/top out"))[0] == 0
    (rootfs / "top/d").unlink()
    (rootfs / "top/d").mkdir()
    (rootfs / "top/d/f").write_text("evil")
    assert (await atoll("file pull -r c1/top out"))[0] == 1
    (rootfs / "top/d/f").unlink()
    (rootfs / "top/d").rmdir()
    (rootfs / "top/g").unlink()
    (rootfs / "top/g").write_text("evil")
    assert (await atoll("file pull -r c1/top out"))[0] == 1
    assert (tmp_path / "mine/f").read_text() == "mine"


async def test_metadata_and_templates(atoll: Atoll, rootfs: Path) -> None:
    assert (await atoll("config metadata edit c1", "creation_date: 5\nproperties: {os: x}\n"))[0] == 0
    status, shown, _ = await atoll("config metadata show c1")
    assert status == 0 and "creation_date: 5\n" in shown and "  os: x\n" in shown
    assert await atoll("config template create c1 a.tpl") == (0, "", "")
    assert (await atoll("config template edit c1 a.tpl", "piped"))[0] == 0
    assert await atoll("config template show c1 a.tpl") == (0, "piped", "")
    assert await atoll("config template edit c1 a.tpl") == (0, "", "")
    assert await atoll("config template show c1 a.tpl") == (0, "edited", "")
    assert (await atoll("config template list c1 --format csv"))[1] == "a.tpl\n"
    assert await atoll("config template rm c1 a.tpl") == (0, "", "")
    assert (await atoll("config template list c1 --format csv"))[1] == ""
