"""A keep-alive HTTP/1.1 client over a unix socket, as thin as can be: what it costs is in every measured request."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any


class WireError(Exception):
    """The daemon could not be reached, did not answer in time, or answered with an error."""


class Connection:
    """One connection; requests go one after the other. Bodies and answers are JSON."""

    def __init__(self, path: Path, *, timeout: float = 120) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._pending = b""
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise WireError(f"{path}: {error}") from error

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fetch(self, method: str, target: str, body: Any = None) -> bytes:
        """Sends one request and returns the answer's body; raises WireError for a status of 400 and above."""
        payload = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {target} HTTP/1.1\r\nHost: unix\r\nContent-Type: application/json\r\n"
        try:
            self._socket.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
            status, headers = self._read_head()
            answer = self._read_body(headers)
        except OSError as error:
            raise WireError(f"{method} {target}: {error}") from error
        if status >= 400:
            raise WireError(f"{method} {target}: {status} {answer[:300].decode(errors='replace')}")
        return answer

    def call(self, method: str, target: str, body: Any = None) -> Any:
        """Like `fetch`, with the answer decoded."""
        return json.loads(self.fetch(method, target, body))

    def finish(self, response: Any) -> None:
        """Waits for the operation that `response` announces; raises WireError when it failed."""
        if response.get("type") != "async":
            return
        operation = self.call("GET", f"{response['operation']}/wait")["metadata"]
        if operation["status_code"] != 200:
            raise WireError(f"{operation.get('description')}: {operation.get('err') or operation.get('status')}")

    def _read_head(self) -> tuple[int, dict[str, str]]:
        head = self._read_until(b"\r\n\r\n").decode("latin-1")
        status, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return int(status.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def _read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self._read_exactly(int(headers.get("content-length", "0")))
        chunks = []
        while size := int(self._read_until(b"\r\n").split(b";")[0], 16):
            chunks.append(self._read_exactly(size))
            self._read_exactly(2)
        self._read_until(b"\r\n")
        return b"".join(chunks)

    def _read_until(self, mark: bytes) -> bytes:
        """All up to `mark`, which is taken off the stream but not returned."""
        while mark not in self._pending:
            self._receive()
        found, _, self._pending = self._pending.partition(mark)
        return found

    def _read_exactly(self, size: int) -> bytes:
        parts, missing = [self._pending], size - len(self._pending)
        while missing > 0:
            part = self._socket.recv(min(max(missing, 65536), 1 << 20))
            if not part:
                raise WireError("the daemon closed the connection in the middle of an answer")
            parts.append(part)
            missing -= len(part)
        data = b"".join(parts)
        self._pending = data[size:]
        return data[:size]

    def _receive(self) -> None:
        part = self._socket.recv(65536)
        if not part:
            raise WireError("the daemon closed the connection")
        self._pending += part
