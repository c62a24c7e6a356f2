"""Workers on files, as the daemon has them: real processes of the zygote, on folders."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import BadRequest, Conflict, DeadlineExceeded, Forbidden, HostError, NotFound
from atoll.host import file_session
from atoll.host.file_session import FileSession
from atoll.host.zygote import Zygote

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="workers give up rights that only root has")


@pytest.fixture
async def zygote(until: Any) -> AsyncIterator[Zygote]:
    made = Zygote()
    await made.start()
    before = set(os.listdir("/proc/self/fd"))
    yield made
    await until(lambda: set(os.listdir("/proc/self/fd")) == before and not children(made.pid))
    await made.stop()


def children(parent: int) -> list[int]:
    """Processes with that parent."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent:
            found.append(int(name))
    return found


def status_of(pid: int) -> dict[str, str]:
    """What the kernel tells of a process."""
    return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


@pytest.fixture
async def session(zygote: Zygote, tmp_path: Path) -> AsyncIterator[FileSession]:
    place = os.open(tmp_path, os.O_PATH)
    made = await file_session.start(zygote, place)
    os.close(place)
    async with made:
        yield made


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


STORE = {"append": False, "mode": None, "uid": -1, "gid": -1}


async def test_contents_come_and_go(session: FileSession, tmp_path: Path) -> None:
    content = os.urandom(5_000_000)
    _, (pipe,) = await session.ask("store", path="f", **{**STORE, "mode": 0o640, "uid": 5, "gid": 6})
    await session.feed(pipe, chunks(content[:100], content[100:]))
    found = (tmp_path / "f").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 5, 6)
    message, (pipe,) = await session.ask("fetch", path="f")
    assert message["kind"] == "file" and message["size"] == len(content)
    assert b"".join([chunk async for chunk in session.chunks(pipe)]) == content
    _, (pipe,) = await session.ask("store", path="f", **{**STORE, "mode": 0o777, "uid": 7})
    await session.feed(pipe, chunks(b"short"))
    _, (pipe,) = await session.ask("store", path="f", **{**STORE, "append": True})
    await session.feed(pipe, chunks(b"er"))
    assert (tmp_path / "f").read_bytes() == b"shorter"
    assert (tmp_path / "f").stat().st_uid == 5 and stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


async def test_directories_and_links(session: FileSession, tmp_path: Path) -> None:
    await session.ask("make-directory", path="d", mode=None, uid=5, gid=-1)
    await session.ask("make-directory", path="d", mode=0o700, uid=9, gid=-1)
    assert (tmp_path / "d").stat().st_uid == 5 and stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    for _ in range(2):
        await session.ask("make-link", path="d/l", target="/some\nwhere", uid=3, gid=4)
    assert (tmp_path / "d/l").lstat().st_uid == 3
    message, fds = await session.ask("fetch", path="d/l")
    assert (message["kind"], message["target"], fds) == ("symlink", "/some\nwhere", [])
    with pytest.raises(Conflict):
        await session.ask("make-link", path="d/l", target="elsewhere", uid=-1, gid=-1)
    (tmp_path / "d" / os.fsdecode(b"\xff")).touch()
    message, (pipe,) = await session.ask("fetch", path="d")
    assert message["kind"] == "directory"
    assert sorted(b"".join([chunk async for chunk in session.chunks(pipe)]).split(b"\0")) == [b"", b"l", b"\xff"]
    with pytest.raises(BadRequest, match="not empty"):
        await session.ask("remove", path="d")


@pytest.mark.parametrize(
    ("operation", "path", "error"),
    [
        ("fetch", "none", NotFound),
        ("fetch", "file/x", NotFound),
        ("fetch", "fifo", BadRequest),
        ("store", "fifo", BadRequest),
        ("store", "folder", BadRequest),
        ("store", "none/x", NotFound),
        ("fetch", "x" * 300, BadRequest),
        ("remove", "/", BadRequest),
        ("make-directory", "file", Conflict),
    ],
)
async def test_what_cannot_be_is_told(
    session: FileSession, tmp_path: Path, operation: str, path: str, error: type[Exception]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    options = {"store": STORE, "make-directory": {"mode": None, "uid": -1, "gid": -1}}.get(operation, {})
    with pytest.raises(error):
        await session.ask(operation, path=path, **options)
    assert (await session.ask("look", path="file"))[0]["kind"] == "file"


async def test_a_worker_has_little_of_the_host(zygote: Zygote, session: FileSession) -> None:
    await session.ask("look", path="/")  # it has begun its work
    (worker,) = children(zygote.pid)
    status = status_of(worker)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0b11011 and int(status["CapInh"], 16) == 0
    held = {fd: os.readlink(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd")}
    assert sorted(target.partition(":")[0] for fd, target in held.items() if int(fd) > 2) == sorted(
        ["socket", f"/proc/{worker}/fd", os.readlink(f"/proc/{worker}/cwd")]
    )
    assert {target for fd, target in held.items() if int(fd) <= 2} == {"/dev/null"}
    assert os.stat(f"/proc/{worker}/environ").st_uid == 0


async def test_other_users_files_are_still_reached(session: FileSession, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    os.chown(tmp_path / "f", 12345, 12345)
    (tmp_path / "f").chmod(0)
    message, (pipe,) = await session.ask("fetch", path="f")
    assert [chunk async for chunk in session.chunks(pipe)] == [b"x"] and message["mode"] == 0


async def test_a_reader_that_leaves_ends_it(zygote: Zygote, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(30 << 20))
    place = os.open(tmp_path, os.O_PATH)
    async with await file_session.start(zygote, place) as session:
        os.close(place)
        _, (pipe,) = await session.ask("fetch", path="big")
        stream = session.chunks(pipe)
        await anext(stream)
        await stream.aclose()
        assert (await session.answer())[0]["ok"]
        assert (await session.ask("look", path="big"))[0]["size"] == 30 << 20


async def test_a_writer_that_leaves_ends_it(session: FileSession, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise ConnectionResetError

    _, (pipe,) = await session.ask("store", path="f", **STORE)
    with pytest.raises(ConnectionResetError):
        await session.feed(pipe, broken())
    with pytest.raises(Conflict):
        await session.ask("look", path="f")


async def test_a_full_file_system_is_told(zygote: Zygote) -> None:
    place = os.open("/dev", os.O_PATH)
    async with await file_session.start(zygote, place) as session:
        os.close(place)
        with pytest.raises(BadRequest, match="regular file"):
            await session.ask("store", path="full", **STORE)


async def test_what_stands_still_is_ended(
    zygote: Zygote, session: FileSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_session, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(file_session, "STREAM_SECONDS", 0.2)
    (tmp_path / "f").write_bytes(bytes(10))
    (worker,) = children(zygote.pid)
    os.kill(worker, 19)  # as a file system that does not answer would
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await session.ask("look", path="f")
    reader, writer = os.pipe()
    with pytest.raises(DeadlineExceeded):
        [chunk async for chunk in session.chunks(reader)]
    os.close(reader)
    os.close(writer)
    assert time.monotonic() - began < 30


async def test_it_ends_with_its_machine(zygote: Zygote, session: FileSession, until: Any) -> None:
    event = asyncio.Event()
    session.kill_when(event)
    event.set()
    await until(lambda: not children(zygote.pid))
    with pytest.raises(Conflict):
        await session.ask("look", path="f")


async def test_a_place_that_is_none(zygote: Zygote) -> None:
    reader, writer = os.pipe()
    with pytest.raises((HostError, NotFound, Forbidden)):
        await file_session.start(zygote, reader)
    os.close(reader)
    os.close(writer)
