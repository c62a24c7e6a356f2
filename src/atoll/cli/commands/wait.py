"""`wait`: until an instance is ready."""

from __future__ import annotations

from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from atoll.cli.session import Call
    from atoll.client.server import Server

EXTENSION = "atoll_instance_wait"


def run(call: Call) -> None:
    """Wait for all conditions; without any, until the instance takes commands."""
    server, name = call.required(call.arguments[0], "instance name")
    seconds = call.flags.text("timeout")
    try:
        timeout = float(seconds) if seconds else 0.0
    except ValueError as error:
        raise CommandError(f"Invalid timeout {seconds!r}: a number of seconds is needed") from error
    until(call, server, name, call.flags.every("for") or ["agent"], timeout=timeout)


def until(call: Call, server: Server, name: str, conditions: Sequence[str], *, timeout: float = 0.0) -> None:
    """Wait for conditions; no time limit if `timeout` is 0."""
    if EXTENSION not in server.get("/1.0")["api_extensions"]:
        raise CommandError(f'The server is missing the required "{EXTENSION}" API extension')
    call.change(server, "POST", url("instances", name, "wait"), {"for": list(conditions), "timeout": timeout})
