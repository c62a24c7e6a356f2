"""`start`, `stop`, `restart`, `pause`, `delete`, `rename`, `snapshot`, `restore`."""

from __future__ import annotations

import sys

from atoll.cli import terminal
from atoll.cli.commands import image_source
from atoll.cli.errors import CommandError, UsageError
from atoll.client.address import url
from atoll.client.errors import ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server


TRUE = ("true", "1", "yes", "on")
"""How a configuration says so."""


def start(call: Call) -> int:
    """Start instances; a paused one goes on."""
    return _act(call, "start")


def stop(call: Call) -> int:
    """Stop instances."""
    return _act(call, "stop")


def restart(call: Call) -> int:
    """Restart instances."""
    return _act(call, "restart")


def pause(call: Call) -> int:
    """Pause instances."""
    return _act(call, "freeze")


def _request(call: Call, action: str) -> dict[str, Any]:
    flags = call.flags
    return {
        "action": action,
        "timeout": flags.number("timeout"),
        "force": flags.on("force"),
        "stateful": flags.on("stateful"),
    }


def _act(call: Call, action: str) -> int:
    """Ask for the state change of every instance first and wait after that, so that they happen side by side."""
    if call.flags.on("all"):
        if call.arguments:
            raise CommandError("Both --all and instance name given")
        if call.flags.text("console"):
            raise CommandError("--console can't be used with --all")
        return _act_on_all(call, action)
    if not call.arguments:
        raise UsageError(bare=True)
    if call.flags.text("console"):
        return _act_at_console(call, action)
    started: list[tuple[str, Callable[[], object]]] = []
    for text in call.arguments:
        server, name = call.required(text, "instance name")
        started.append((text, _begin(call, server, name, action)))
    if len(started) == 1:
        started[0][1]()
        return 0
    return _finish_several(call, started)


def _act_at_console(call: Call, action: str) -> int:
    """The same for one instance, with a look at its console: at how it comes up, or at how it goes down."""
    from atoll.cli.commands import console

    if call.flags.on("force") and action == "stop":
        raise CommandError("--console can't be used while forcing instance shutdown")
    if len(call.arguments) != 1:
        raise CommandError("--console only works with a single instance")
    kind = call.flags.text("console")
    console.check_kind(kind)
    server, name = call.required(call.arguments[0], "instance name")
    if action == "stop":
        operation = server.request("PUT", url("instances", name, "state"), _request(call, action)).operation
        console.attach(server, name, kind)
        _end(call, server, name, operation)
        return 0
    _begin(call, server, name, action)()
    return console.attach(server, name, kind)


def _begin(call: Call, server: Server, name: str, action: str) -> Callable[[], object]:
    """Start one state change; returns what waits for its end and raises its error."""
    path = url("instances", name, "state")
    try:
        if action == "start" and server.get(url("instances", name))["status"] == "Frozen":
            action = "unfreeze"
        operation = server.request("PUT", path, _request(call, action)).operation
    except ServerError as error:
        return _raiser(error)
    return lambda: _end(call, server, name, operation)


def _end(call: Call, server: Server, name: str, operation: str) -> None:
    try:
        call.wait(server, operation)
        if conditions := call.flags.every("wait"):
            from atoll.cli.commands import wait

            wait.until(call, server, name, conditions)
    except (ServerError, CommandError) as error:
        raise CommandError(f"{error}\nTry `atoll info --show-log {name}` for more info") from error


def _raiser(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def _finish_several(call: Call, started: list[tuple[str, Callable[[], object]]]) -> int:
    failed = False
    for text, finish in started:
        try:
            finish()
        except (ServerError, CommandError) as error:
            failed = True
            first, *more = str(error).split("\n")
            sys.stderr.write(f"{text}: error: {first}\n" + "".join(f"{text}: {line}\n" for line in more))
    if failed:
        sys.stderr.write("\n")
        raise CommandError(f"Some instances failed to {call.path}")
    return 0


def _act_on_all(call: Call, action: str) -> int:
    server = call.server(call.config.default_remote)
    call.change(server, "PUT", url("instances"), {"state": _request(call, action)})
    return 0


def delete(call: Call) -> None:
    """Delete instances and snapshots."""
    for text in call.arguments:
        remote, _ = call.config.split(text)
        server, name = call.required(text, "instance name")
        if call.flags.on("interactive") and not _confirmed(text):
            raise CommandError("User aborted delete operation")
        instance, slash, snapshot = name.partition("/")
        if slash:
            _delete_snapshot(call, server, url("instances", instance, "snapshots", snapshot), f"{remote}:{name}")
        else:
            _delete_instance(call, server, name, f"{remote}:{name}")


def _confirmed(text: str) -> bool:
    return terminal.ask(f"Remove {text} (yes/no): ") in ("yes", "y")


def _delete_snapshot(call: Call, server: Server, path: str, full_name: str) -> None:
    try:
        call.change(server, "DELETE", path)
    except ServerError as error:
        if error.status != image_source.NOT_FOUND:
            raise
        raise CommandError(f'Failed checking instance snapshot exists "{full_name}": {error}') from error


def _delete_instance(call: Call, server: Server, name: str, full_name: str) -> None:
    try:
        found = server.get(url("instances", name))
    except ServerError as error:
        raise CommandError(f'Failed checking instance exists "{full_name}": {error}') from error
    if found["status"] not in ("Stopped", "Error"):
        if not call.flags.on("force"):
            raise CommandError("The instance is currently running, stop it first or pass --force")
        if found.get("expanded_config", {}).get("security.protection.delete", "").lower() in TRUE:  # said before it is stopped
            raise CommandError("Instance is protected (unset security.protection.delete to delete it)")
        _stop_now(call, server, name)
        if found.get("ephemeral"):
            return
    call.change(server, "DELETE", url("instances", name))


def _stop_now(call: Call, server: Server, name: str) -> None:
    """By force; that it ended by itself meanwhile, or by somebody else, is as good."""
    try:
        call.change(server, "PUT", url("instances", name, "state"), {"action": "stop", "timeout": -1, "force": True})
    except ServerError:
        if server.get(url("instances", name))["status"] != "Stopped":
            raise


def rename(call: Call) -> None:
    """Rename an instance, or a snapshot within its instance."""
    server, old = call.required(call.arguments[0], "instance name")
    if ":" in call.arguments[1] and call.config.split(call.arguments[1])[0] != call.config.split(call.arguments[0])[0]:
        raise CommandError("Can't specify a different remote for rename")
    new = call.config.split(call.arguments[1])[1]
    old_instance, slash, old_snapshot = old.partition("/")
    new_instance, new_slash, new_snapshot = new.partition("/")
    if not slash and not new_slash:
        call.change(server, "POST", url("instances", old), {"name": new, "migration": False})
        return
    if not slash:
        raise CommandError('The character "/" is reserved for snapshots')
    if not new_slash or old_instance != new_instance:
        raise CommandError("Invalid new snapshot name, parent must be the same as source")
    call.change(server, "POST", url("instances", old_instance, "snapshots", old_snapshot), {"name": new_snapshot})


def snapshot(call: Call) -> None:
    """Create a snapshot; with --reuse in place of one of the same name."""
    flags = call.flags
    server, name = call.required(call.arguments[0], "instance name")
    chosen = call.arguments[1] if len(call.arguments) > 1 else ""
    if flags.on("reuse") and chosen:
        try:
            call.change(server, "DELETE", url("instances", name, "snapshots", chosen))
        except ServerError as error:
            if error.status != image_source.NOT_FOUND:
                raise
    body: dict[str, Any] = {"name": chosen, "stateful": flags.on("stateful"), "expires_at": None}
    if flags.on("no-expiry"):
        body["expires_at"] = "0001-01-01T00:00:00Z"
    call.change(server, "POST", url("instances", name, "snapshots"), body)


def restore(call: Call) -> None:
    """Put an instance back to the state of a snapshot."""
    server, name = call.required(call.arguments[0], "instance name")
    chosen = call.arguments[1]
    if "/" not in chosen:
        chosen = f"{name}/{chosen}"
    call.change(server, "PUT", url("instances", name), {"restore": chosen, "stateful": call.flags.on("stateful")})
