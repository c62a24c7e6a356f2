"""Long bodies, up and down, with a progress line where someone looks."""

from __future__ import annotations

from atoll.cli import times
from atoll.client.server import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

CHUNK = 1 << 20


def contents(path: str) -> Iterator[bytes]:
    """A file, piece by piece."""
    with open(path, "rb", buffering=0) as file:
        while data := file.read(CHUNK):
            yield data


def upload(
    call: Call, server: Server, path: str, headers: dict[str, str], body: Iterable[bytes], size: int | None, label: str
) -> dict[str, Any]:
    """POST a body of `size` bytes (None: as many as come) and wait for the operation it starts; returns that."""
    progress = call.progress(label)
    if size is not None:
        headers = headers | {"Content-Length": str(size)}
    try:
        answer = decode(server.exchange("POST", path, headers, counted(body, size, label, progress)))
    finally:
        if progress is not None:
            progress.clear()
    return call.wait(server, answer.operation, label)


def counted(body: Iterable[bytes], size: int | None, label: str, progress: Any) -> Iterator[bytes]:
    """The body, with its progress shown as it goes."""
    sent = 0
    for piece in body:
        yield piece
        sent += len(piece)
        if progress is not None:
            progress.show(f"{label}: {sent * 100 // size}%" if size else f"{label}: {times.decimal_size(sent)}")


def download(call: Call, server: Server, path: str, write: Callable[[bytes], object], label: str) -> dict[str, str]:
    """GET a body into `write`; returns the answer's headers. ServerError when the server refuses. No label, no progress line."""
    progress = call.progress(label) if label else None
    received = 0

    def take(piece: bytes) -> None:
        nonlocal received
        write(piece)
        received += len(piece)
        if progress is not None:
            progress.show(f"{label}: {times.decimal_size(received)}")

    try:
        answer = server.exchange("GET", path, {}, sink=take)
    finally:
        if progress is not None:
            progress.clear()
    if answer.status != 200:
        decode(answer)
    return answer.headers
