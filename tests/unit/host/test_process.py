"""Programs: found, run, and always ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from atoll.domain.errors import DeadlineExceeded, HostError, Unsupported
from atoll.host import process


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sequence[str]]]:
    seen: list[Sequence[str]] = []
    monkeypatch.setattr(process, "observer", seen.append)
    yield seen


def running(word: str) -> list[str]:
    """The processes that have it in their command lines; one that has ended has no such line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
    return found


async def test_output_input_and_code(started: list[Sequence[str]]) -> None:
    done = await process.run(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"in", check=False)
    assert (done.code, done.stdout, done.stderr) == (3, b"in", b"err\n")
    assert started == [["sh", "-c", "cat; echo err >&2; exit 3"]]


async def test_a_failure_says_what_the_program_said() -> None:
    with pytest.raises(HostError, match="sh failed with exit code 1: no such luck"):
        await process.run(["sh", "-c", "echo no such luck >&2; exit 1"])
    with pytest.raises(HostError, match="exit code 2: on stdout"):
        await process.run(["sh", "-c", "echo on stdout; exit 2"])
    with pytest.raises(HostError, match=r"exit code 1: 98\n99\n100$"):
        await process.run(["sh", "-c", "seq 100 >&2; exit 1"])


async def test_a_missing_program_names_its_package(started: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(process.PACKAGES, "nosuchprogram", "rsync")
    with pytest.raises(Unsupported, match="rsync"):
        await process.run(["nosuchprogram"])
    assert started == []


async def test_large_output_and_input() -> None:
    data = os.urandom(1 << 20)
    assert (await process.run(["cat"], input=data)).stdout == data


async def test_nothing_of_the_environment_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("http_proxy", "http://proxy")
    shown = (await process.run(["env"], env={"MORE": "1"})).stdout.decode().splitlines()
    assert {"MORE=1", "http_proxy=http://proxy", "LC_ALL=C.UTF-8", f"PATH={process.SEARCH_PATH}"} <= set(shown)
    assert not any(line.startswith("SECRET") for line in shown)


async def test_descriptors_are_passed_only_when_asked() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    listed = (await process.run(["sh", "-c", f"test -e /proc/self/fd/{reader} && echo yes || echo no"])).stdout
    passed = (await process.run(["sh", "-c", f"test -e /proc/self/fd/{reader} && echo yes"], pass_fds=[reader])).stdout
    assert (listed, passed) == (b"no\n", b"yes\n")
    os.close(reader)
    os.close(writer)


async def test_a_late_program_is_killed_with_what_it_started(tmp_path: Path) -> None:
    """A child that holds the pipes open does not hold us up: nobody opens the other end of the fifo it waits for."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with asyncio.timeout(30):
        with pytest.raises(DeadlineExceeded, match=r"sh did not finish in 0\.2 seconds"):
            await process.run(["sh", "-c", f"cat {fifo} & cat {fifo}"], timeout=0.2)
    assert not running(str(fifo))


@pytest.mark.parametrize("after", [0.0, 0.0005, 0.05])
async def test_a_cancelled_program_is_killed_and_reaped(after: float, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[process._Child] = []

    class Child(process._Child):
        def __init__(self, argv: Sequence[str], **options: object) -> None:
            super().__init__(argv, **options)
            children.append(self)

    monkeypatch.setattr(process, "_Child", Child)
    task = asyncio.create_task(process.run(["sleep", "60"]))
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(child._process is None or child._process.returncode is not None for child in children)


async def test_start_gives_a_running_program() -> None:
    child = await process.start(["cat"], stdin=asyncio.subprocess.PIPE)
    output, _ = await child.communicate(b"x")
    assert (output, child.returncode) == (b"x", 0)
