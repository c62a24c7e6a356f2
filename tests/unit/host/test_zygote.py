"""The zygote's protocol, with a real process and no container."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import HostError, Unavailable
from atoll.host import zygote as zygote_module
from atoll.host.zygote import Zygote


@pytest.fixture
async def zygote() -> AsyncIterator[Zygote]:
    made = Zygote()
    await made.start()
    yield made
    await made.stop()


def read(path: str) -> str:
    return Path(path).read_text()


async def test_answers_with_descriptors(zygote: Zygote) -> None:
    reader, writer = os.pipe()
    answer = await zygote.call("echo", {"text": "grün"}, [writer])
    assert answer.message["text"] == "grün"
    os.write(answer.fds[0], b"x")
    assert os.read(reader, 1) == b"x"
    assert not os.get_inheritable(answer.fds[0])
    for fd in (reader, writer, *answer.fds):
        os.close(fd)


async def test_a_failure_is_told(zygote: Zygote) -> None:
    with pytest.raises(HostError, match="No such file"):
        await zygote.call("echo", {"fail": errno.ENOENT})
    with pytest.raises(HostError, match="KeyError"):
        await zygote.call("no-such-call", {})


async def test_what_cannot_be_sent_is_the_senders_failure_alone(zygote: Zygote) -> None:
    """The zygote lives, and with it what it does for others."""
    before, others = zygote.pid, asyncio.ensure_future(zygote.call("echo", {"text": "other"}))
    await asyncio.sleep(0)
    with pytest.raises(HostError, match="Bad file descriptor"):
        await zygote.call("echo", {}, [-1])
    assert (await others).message["text"] == "other"
    assert zygote.pid == before


async def test_large_requests_go_by_memory(zygote: Zygote) -> None:
    text = "x" * 100_000
    with pytest.raises(HostError, match="No such file"):  # the answer need not fit; the request has to arrive whole
        await zygote.call("echo", {"text": text * 10, "fail": errno.ENOENT})


async def test_many_at_once(zygote: Zygote) -> None:
    answers = await asyncio.gather(*(zygote.call("echo", {"text": str(number)}) for number in range(100)))
    assert [answer.message["text"] for answer in answers] == [str(number) for number in range(100)]


async def test_is_small_and_holds_nothing_of_ours(zygote: Zygote) -> None:
    await zygote.call("echo", {})
    folder = f"/proc/{zygote.pid}"
    targets = [os.readlink(f"{folder}/fd/{name}") for name in os.listdir(f"{folder}/fd") if int(name) > 2]
    assert all(target.startswith(("socket:", "pipe:")) for target in targets), targets
    assert os.readlink(f"{folder}/exe").startswith("/memfd:")
    assert "Threads:\t1\n" in read(f"{folder}/status")
    core = next(line for line in read(f"{folder}/limits").splitlines() if line.startswith("Max core"))
    assert core.split()[4] == "0"


async def test_comes_up_again(zygote: Zygote) -> None:
    before = zygote.pid
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - so that the loop cannot hear of it before the call
    await zygote.call("echo", {})
    assert zygote.pid != before


@pytest.mark.parametrize("is_asked", [True, False])
async def test_comes_up_again_though_its_connection_is_held(monkeypatch: pytest.MonkeyPatch, *, is_asked: bool) -> None:
    """As by a worker of its that a guest froze; what waits for it at that moment is told."""
    held, spawn, zygote = list[int](), zygote_module._spawn, Zygote()

    def spawn_held(fd: int) -> Any:
        held.append(os.dup(fd))
        return spawn(fd)

    monkeypatch.setattr(zygote_module, "_spawn", spawn_held)
    try:
        await zygote.start()
        before = zygote.pid
        os.kill(before, signal.SIGSTOP)
        waiting = [asyncio.ensure_future(zygote.call("echo", {}))] if is_asked else []
        await asyncio.sleep(0)
        os.kill(before, signal.SIGKILL)
        os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - as above
        for each in waiting:
            with pytest.raises(Unavailable):
                await asyncio.wait_for(each, 30)
        await asyncio.wait_for(zygote.call("echo", {}), 30)
        assert zygote.pid != before
    finally:
        for fd in held:
            os.close(fd)
        await zygote.stop()


async def test_ends_with_its_connection(zygote: Zygote) -> None:
    pid = zygote.pid
    await zygote.stop()
    assert not Path(f"/proc/{pid}").exists()  # noqa: ASYNC240 - procfs does not block
    with pytest.raises(Unavailable):
        await zygote.call("echo", {})
