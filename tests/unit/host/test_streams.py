"""Pipes and terminals on the event loop."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import struct
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from atoll.host import streams


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = streams.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            pass


async def collect(fd: int, ended: asyncio.Future[None]) -> bytes:
    return b"".join([data async for data in streams.chunks(fd, ended)])


async def test_everything_until_the_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    data = os.urandom(3 << 20)
    reading = asyncio.create_task(collect(reader, asyncio.get_running_loop().create_future()))
    await streams.write_all(writer, data)
    os.close(writer)
    assert await asyncio.wait_for(reading, 30) == data


async def test_a_writer_waits_for_a_slow_reader(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    writing = asyncio.create_task(streams.write_all(writer, bytes(1 << 20)))
    await asyncio.sleep(0.02)
    assert not writing.done()
    reading = asyncio.create_task(collect(reader, asyncio.get_running_loop().create_future()))
    await asyncio.wait_for(writing, 30)
    os.close(writer)
    assert len(await reading) == 1 << 20


async def test_what_is_there_is_read_once_the_command_ended_though_the_pipe_stays_open(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    ended = asyncio.get_running_loop().create_future()
    os.write(writer, b"x" * 50_000)
    reading = asyncio.create_task(collect(reader, ended))
    await asyncio.sleep(0.02)
    assert not reading.done()
    os.write(writer, b"last")
    ended.set_result(None)
    assert await asyncio.wait_for(reading, 30) == b"x" * 50_000 + b"last"


async def test_a_child_that_never_pauses_does_not_hold_us_for_ever(until: Any) -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended.set_result(None)
    reader, writer = streams.pipe()
    child = await asyncio.create_subprocess_exec("yes", stdout=writer)
    os.close(writer)
    await until(lambda: select.select([reader], [], [], 0)[0])
    assert 0 < len(await asyncio.wait_for(collect(reader, ended), 30)) <= streams.LAST + streams.CHUNK
    os.close(reader)
    await child.wait()


async def test_a_pipe_without_reader(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        await streams.write_all(writer, b"x")


async def test_a_terminal_ends_with_its_other_side() -> None:
    master, slave = os.openpty()
    streams.set_window(master, width=120, height=40)
    assert struct.unpack("HHHH", fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8)))[:2] == (40, 120)
    streams.set_window(master, width=1 << 20, height=-1)
    os.write(slave, b"hello")
    os.close(slave)
    assert await asyncio.wait_for(collect(master, asyncio.get_running_loop().create_future()), 30) == b"hello"
    os.close(master)


async def test_a_cancelled_reader_leaves_the_loop_clean(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    reading = asyncio.create_task(collect(reader, asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not asyncio.get_running_loop().remove_reader(reader)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.cancelling()]
    os.close(writer)
