"""Passing on what two servers have for each other over their websockets, when neither can reach the other.

Each direction of each pair goes on by itself: what one side is slow to take holds up no other direction.
"""

from __future__ import annotations

import select
import time

from atoll.client.errors import ClientError
from atoll.client.websocket import TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.client.server import Server

NAMES = ("control", "fs")
FULL = 1 << 20
"""Bytes that wait for one side; then no more is read from the other."""

PIECE = 1 << 14
"""Bytes that a stream which can be written to takes without waiting."""

_POLL_SECONDS = _REPORT_SECONDS = 0.5


class Relay:
    """Of two operations: (server, operation) each."""

    def __init__(self, ends: list[tuple[Server, dict[str, Any]]], progress: Any) -> None:
        self._ends = ends
        self._progress = progress
        self._legs: dict[int, _Leg] = {}
        self._next_report = 0.0

    def run(self) -> None:
        """Until both sides have closed all connections. ProtocolError if one of them refuses."""
        try:
            for name in NAMES:
                first, second = (self._connect(server, operation, name) for server, operation in self._ends)
                first.other, second.other = second, first
            while self._legs:
                self._step()
        finally:
            for leg in self._legs.values():
                leg.close()

    def _connect(self, server: Server, operation: dict[str, Any], name: str) -> _Leg:
        leg = _Leg(server, operation, name)
        self._legs[leg.fileno()] = leg
        return leg

    def _step(self) -> None:
        legs = list(self._legs.values())
        readable = [leg for leg in legs if leg.may_read()]
        writable = [leg for leg in legs if leg.waiting]
        ready, free, _ = select.select(readable, writable, [], _POLL_SECONDS)
        for leg in free:
            leg.flush()
        for leg in ready:
            leg.pass_on()
        over = {descriptor: leg for descriptor, leg in self._legs.items() if leg.is_over()}  # both of a pair, or none
        for descriptor, leg in over.items():
            del self._legs[descriptor]
            leg.close()
        self._report()

    def _report(self) -> None:
        """Now and then, for whoever looks: also while there is always something to pass on."""
        if self._progress is not None and time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + _REPORT_SECONDS
            server, operation = self._ends[0]
            try:
                self._progress(server.get(f"/1.0/operations/{operation['id']}").get("metadata") or {})
            except ClientError:
                pass  # it has ended, and is forgotten


class _Leg:
    """One websocket of one server; `other` is the one that gets what comes from it."""

    def __init__(self, server: Server, operation: dict[str, Any], name: str) -> None:
        self.other: _Leg = self
        self._socket = server.websocket(f"/1.0/operations/{operation['id']}/websocket?secret={operation['metadata'][name]}")
        self._socket.finish_opening()
        self._out = bytearray()
        self._stream = self._socket.divert(self._out.extend)

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    @property
    def waiting(self) -> bool:
        """Whether something is to be sent."""
        return bool(self._out)

    def may_read(self) -> bool:
        """Whether the other side has room."""
        return not self._socket.closed and len(self.other._out) < FULL

    def is_over(self) -> bool:
        """Nothing more comes, or goes."""
        return (self._socket.closed or self.other._socket.closed) and not self.waiting and not self.other.waiting

    def pass_on(self) -> None:
        """What one read brings."""
        for kind, payload in self._socket.receive():
            if kind == TEXT:
                self.other._socket.send_text(payload.decode())
            else:
                self.other._socket.send_binary(payload)
        self.other.flush()

    def flush(self) -> None:
        """Send what the server takes."""
        try:
            while self._out and select.select([], [self._stream], [], 0)[1]:
                self._stream.sendall(bytes(self._out[:PIECE]))
                del self._out[:PIECE]
        except OSError:
            self._out.clear()  # it has gone; what it said before is still to be read

    def close(self) -> None:
        """Say goodbye."""
        self._socket.close()
