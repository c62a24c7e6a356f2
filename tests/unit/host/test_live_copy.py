"""Copies of trees that change while they are made: brought up to date, and of one moment in the end."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import random
import shutil
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.domain.errors import HostError
from atoll.drivers.storage.conformance import content
from atoll.host import trees
from atoll.host.live_copy import LiveCopy

pytestmark = pytest.mark.system


def settle() -> None:
    """Let what was changed grow too old for the copy to distrust it."""
    time.sleep(0.03)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/one").write_text("one")
    (tree / "a/b/two").write_text("two")
    os.link(tree / "a/one", tree / "linked")
    (tree / "link").symlink_to("a/one")
    os.mknod(tree / "whiteout", 0o020000, 0)
    (tree / "big").write_bytes(os.urandom(3 << 20))
    return tree


def write(path: str) -> Callable[[Path], None]:
    return lambda tree: (tree / path).write_text("changed")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": write("a/b/two"),
    "content-of-linked": write("a/one"),
    "new-file": write("a/new"),
    "gone-file": lambda tree: (tree / "a/b/two").unlink(),
    "gone-folder": lambda tree: shutil.rmtree(tree / "a/b"),
    "moved-folder": lambda tree: (tree / "a/b").rename(tree / "c"),
    "replaced-folder": lambda tree: (shutil.rmtree(tree / "a/b"), (tree / "a/b").write_text("file")),
    "replaced-file": lambda tree: ((tree / "a/b/two").unlink(), (tree / "a/b/two").mkdir()),
    "less-links": lambda tree: (tree / "linked").unlink(),
    "more-links": lambda tree: os.link(tree / "a/b/two", tree / "third"),
    "relinked": lambda tree: ((tree / "linked").unlink(), os.link(tree / "a/b/two", tree / "linked")),
    "mode": lambda tree: (tree / "a/b/two").chmod(0o600),
    "owner": lambda tree: os.chown(tree / "a", 5, 6),
    "attributes": lambda tree: (os.setxattr(tree / "a", "trusted.x", b"1"), os.setxattr(tree / "big", "user.y", b"2")),
    "opaque": lambda tree: os.setxattr(tree / "a/b", "trusted.overlay.opaque", b"y"),
    "symlink": lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("elsewhere")),
    "whiteout": lambda tree: ((tree / "whiteout").unlink(), (tree / "whiteout").write_text("back")),
    "cut": lambda tree: os.truncate(tree / "big", 100),
    "a-byte": lambda tree: os.pwrite(os.open(tree / "big", os.O_WRONLY), b"x", 2 << 20),
    "a-hole": lambda tree: os.truncate(tree / "big", 20 << 20),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_copied(source: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    copy = LiveCopy(source, tmp_path / "target")
    settle()
    assert copy.refresh()
    settle()
    change(source)
    assert copy.refresh(60)
    assert content.describe(tmp_path / "target") == content.describe(source)


def test_attributes_that_went_go(source: Path, tmp_path: Path) -> None:
    for path in (source / "a", source / "big"):
        os.setxattr(path, "user.x", b"1")
    copy = LiveCopy(source, tmp_path / "target")
    copy.refresh()
    for path in (source / "a", source / "big"):
        os.removexattr(path, "user.x")
    copy.refresh()
    assert content.describe(tmp_path / "target") == content.describe(source)


def test_writes_by_a_mapping_are_seen(source: Path, tmp_path: Path) -> None:
    with (source / "big").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        mapped[:5] = b"first"
        settle()
        copy = LiveCopy(source, tmp_path / "target")
        copy.refresh()
        settle()
        mapped[:5] = b"later"
        copy.refresh()
    assert (tmp_path / "target/big").read_bytes()[:5] == b"later"


def test_any_changes_between_and_during(source: Path, tmp_path: Path) -> None:
    """A guest that does whatever it wants; when it is still, one more pass makes the copy the same."""
    chance = random.Random(7)
    stop = threading.Event()

    def mess() -> None:
        names = [source / name for name in ("p", "q", "r", "d/p", "d/q", "e/p")]
        while not stop.is_set():
            one, other = chance.choice(names), chance.choice(names)
            for folder in (source / "d", source / "e"):
                folder.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):
                match chance.randrange(5):
                    case 0:
                        one.write_text(str(chance.random()))
                    case 1:
                        one.unlink()
                    case 2:
                        os.link(one, other)
                    case 3:
                        one.rename(other)
                    case _ if one.parent != source:
                        shutil.rmtree(one.parent)

    guest = threading.Thread(target=mess)
    guest.start()
    try:
        copy = LiveCopy(source, tmp_path / "target")
        for _ in range(40):
            copy.refresh()
    finally:
        stop.set()
        guest.join()
    assert copy.refresh()
    assert content.describe(tmp_path / "target") == content.describe(source)


def test_what_is_not_done_in_time_is_done_the_next_time(source: Path, tmp_path: Path) -> None:
    copy = LiveCopy(source, tmp_path / "target")
    assert not copy.refresh(0)
    assert copy.refresh()
    assert not copy.refresh(0)
    assert content.describe(tmp_path / "target") == content.describe(source)


class Guest:
    """Writes the same number to two files, one after the other, as fast as it can, unless it is paused."""

    def __init__(self, tree: Path) -> None:
        self._files = [os.open(tree / name, os.O_RDWR | os.O_CREAT) for name in ("first", "second")]
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._write)
        self._number = 0
        self.pauses: list[float] = []

    def __enter__(self) -> Guest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._end.is_set():
            self._number += 1
            for file in self._files:
                with self._lock:
                    os.pwrite(file, struct.pack("Q", self._number), 0)
            time.sleep(0.0002)

    async def _writes(self) -> None:
        """Until it has changed both files once more, however seldom it gets its turn."""
        number = self._number
        async with asyncio.timeout(30):
            while self._number < number + 2:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)

    @asynccontextmanager
    async def pause(self) -> AsyncIterator[None]:
        """See `trees.Pause`."""
        await self._writes()
        await asyncio.to_thread(self._lock.acquire)
        start = time.monotonic()
        try:
            yield
        finally:
            self._lock.release()
            self.pauses.append(time.monotonic() - start)


def numbers(tree: Path) -> tuple[int, int]:
    first, second = ((tree / name).read_bytes() for name in ("first", "second"))
    return struct.unpack("Q", first)[0], struct.unpack("Q", second)[0]


async def test_a_copy_with_a_pause_is_of_one_moment(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "PAUSES", (30.0,))
    for number in range(300):
        (source / f"between{number}").write_text("x" * number)
    with Guest(source) as guest:
        for number in range(5):
            await trees.copy_live(source, tmp_path / f"copy{number}", guest.pause)
            first, second = numbers(tmp_path / f"copy{number}")
            assert first - 1 <= second <= first
    assert len(guest.pauses) == 5


async def test_what_changes_too_much_is_refused_after_bounded_pauses(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "PAUSES", (0.0, 0.0))
    with Guest(source) as guest:
        with pytest.raises(HostError, match="More files change"):
            await trees.copy_live(source, tmp_path / "copy", guest.pause)
    assert len(guest.pauses) == 2
