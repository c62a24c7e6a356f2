"""A REST server at the protocol level: objects in a dictionary, a log of what was asked, refusals on demand."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COLLECTIONS = ("storage-pools", "networks", "profiles", "projects")


class FakeServer:
    """`objects` maps a path to what a GET answers; `changes` are the requests that were no GET; `refuse` maps
    "METHOD path" to an error text; `answers` maps "METHOD path?query" to metadata given as it is."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {"/1.0": {"config": {}, "environment": {"storage_supported_drivers": []}}}
        self.changes: list[tuple[str, str, Any]] = []
        self.refuse: dict[str, str] = {}
        self.answers: dict[str, Any] = {}

    def handle(self, method: str, target: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and envelope."""
        if method != "GET":
            self.changes.append((method, target, body))
        path = urlsplit(target).path
        if f"{method} {path}" in self.refuse:
            return self._error(400, self.refuse[f"{method} {path}"])
        if f"{method} {target}" in self.answers:
            return 200, {"type": "sync", "metadata": self.answers[f"{method} {target}"]}
        return getattr(self, f"_{method.lower()}")(path, "recursion=1" in target, body)

    def _get(self, path: str, deep: bool, body: Any) -> tuple[int, dict[str, Any]]:
        name = path.removeprefix("/1.0/")
        if name in COLLECTIONS:
            found = [key for key in self.objects if key.startswith(path + "/")]
            return 200, {"type": "sync", "metadata": [self.objects[key] for key in found] if deep else found}
        if path not in self.objects:
            return self._error(404, "Not found")
        return 200, {"type": "sync", "metadata": self.objects[path]}

    def _post(self, path: str, deep: bool, body: Any) -> tuple[int, dict[str, Any]]:
        made = {"managed": True, "type": "bridge"} if path == "/1.0/networks" else {}
        self.objects[f"{path}/{body['name']}"] = made | {
            key: value for key, value in body.items() if (key, value) != ("type", "")
        }
        return 200, {"type": "sync", "metadata": {}}

    def _put(self, path: str, deep: bool, body: Any) -> tuple[int, dict[str, Any]]:
        self.objects[path] = {**self.objects[path], **body}
        return 200, {"type": "sync", "metadata": {}}

    def _delete(self, path: str, deep: bool, body: Any) -> tuple[int, dict[str, Any]]:
        del self.objects[path]
        return 200, {"type": "sync", "metadata": {}}

    @staticmethod
    def _error(status: int, text: str) -> tuple[int, dict[str, Any]]:
        return status, {"type": "error", "error": text, "error_code": status}


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            status, envelope = fake.handle(self.command, self.path, body)
            data = json.dumps(envelope).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


class _Listener(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(directory: Path) -> Iterator[FakeServer]:
    """A fake server on `directory`/unix.socket; the socket goes away at the end."""
    fake, path = FakeServer(), directory / "unix.socket"
    with _Listener(str(path), _handler(fake)) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            listener.shutdown()
            thread.join()
            path.unlink()
