"""`query`, `monitor`, `version`."""

from __future__ import annotations

import sys

from atoll.cli.errors import CommandError
from atoll.client import codec
from atoll.client.address import url
from atoll.client.errors import ClientError
from atoll.client.server import decode
from atoll.version import ATOLL_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.http1 import Response

MONITOR_FORMATS = ("json", "pretty", "yaml")
LEVELS = ("trace", "debug", "info", "warning", "error", "fatal", "panic")


def query(call: Call) -> None:
    """Send a request as it is and print the answer."""
    flags = call.flags
    server, path = call.resolve(call.arguments[0])
    if not path.startswith("/"):
        raise CommandError("Query path must start with /")
    if flags.on("raw") and flags.on("wait"):
        raise CommandError("--raw and --wait can't be used together")
    method, data = flags.text("request"), _data(flags.text("data"))
    if flags.on("raw") and not server.read_only:
        _print_raw(server.ask(method, path, data))
        return
    answer = server.request(method, path, data)
    if flags.on("wait") and answer.operation:
        answer.metadata = call.wait(server, answer.operation)
    if flags.on("raw"):
        _print_json(answer.raw, sort=False)
    elif answer.metadata not in (None, {}):
        _print_json(answer.metadata, sort=True)


def _print_raw(answer: Response) -> None:
    """What came: an envelope, or what has none, such as the metrics."""
    if answer.headers.get("content-type", "").startswith("application/json"):
        _print_json(decode(answer).raw, sort=False)
    else:
        sys.stdout.buffer.write(answer.body)


def _data(text: str) -> Any:
    text = sys.stdin.read() if text == "-" else text
    if not text:
        return None
    try:
        return codec.loads(text)
    except ValueError as error:
        raise CommandError(f"The data is not JSON: {error}") from error


def _print_json(value: Any, *, sort: bool) -> None:
    import json

    sys.stdout.write(json.dumps(value, indent="\t", sort_keys=sort, ensure_ascii=False) + "\n\n")


def version(call: Call) -> None:
    """Print the versions of the client and of the server, which may be LXD."""
    server, _ = call.resolve(call.arguments[0] if call.arguments else "")
    try:
        environment = server.get("/1.0")["environment"]
        found = environment.get("atoll_version") or environment["server_version"]
    except ClientError:
        found = "unreachable"
    sys.stdout.write(f"Client version: {ATOLL_VERSION}\nServer version: {found}\n")


def monitor(call: Call) -> None:
    """Print events as they come, until interrupted."""
    flags = call.flags
    kind = "pretty" if flags.on("pretty") else flags.text("format")
    if kind not in MONITOR_FORMATS:
        raise CommandError(f"Invalid format: {kind}")
    if flags.text("loglevel") and kind != "pretty":
        raise CommandError("Log level filtering can only be used with pretty formatting")
    server, _ = call.split_remote(call.arguments)
    everywhere = "true" if flags.on("all-projects") else ""
    socket = server.websocket(url("events", type=",".join(flags.every("type")), all_projects=everywhere))
    while not socket.closed:
        for _, message in socket.receive():
            _print_event(codec.loads(message.decode()), kind, flags.text("loglevel"))
            sys.stdout.flush()


def _print_event(event: dict[str, Any], kind: str, level: str) -> None:
    if kind == "json":
        sys.stdout.write(codec.dumps(event) + "\n")
    elif kind == "yaml":
        from atoll.cli import yaml_out

        sys.stdout.write(yaml_out.dump({key: event[key] for key in sorted(event)}) + "\n")
    elif not _is_below(event, level):
        sys.stdout.write(_pretty(event) + "\n")


def _is_below(event: dict[str, Any], level: str) -> bool:
    found = (event.get("metadata") or {}).get("level", "")
    return event.get("type") == "logging" and level in LEVELS and found in LEVELS and (
        LEVELS.index(found) < LEVELS.index(level)
    )  # fmt: skip


def _pretty(event: dict[str, Any]) -> str:
    """One line for one event."""
    about = event.get("metadata") or {}
    stamp = event.get("timestamp", "")[:19]
    if event.get("type") == "logging":
        context = " ".join(f"{key}={value}" for key, value in sorted((about.get("context") or {}).items()))
        return f"{about.get('level', '').upper():<7} [{stamp}] {about.get('message', '')} {context}".rstrip()
    if event.get("type") == "lifecycle":
        return f"INFO    [{stamp}] Action: {about.get('action', '')}, Source: {about.get('source', '')}"
    return f"INFO    [{stamp}] ID: {about.get('id', '')}, Class: {about.get('class', '')}, " \
           f"Description: {about.get('description', '')}, Status: {about.get('status', '')}"  # fmt: skip
