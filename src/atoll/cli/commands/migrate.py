"""`copy` and `move` between servers: one offers an instance or a volume, the other one takes it.

In mode pull the target connects to the source, in mode push the source to the target; in mode relay neither can reach the other,
and both are connected to from here.
"""

from __future__ import annotations

from atoll.cli.commands.relay import Relay
from atoll.cli.errors import CommandError
from atoll.client.errors import ClientError, OperationFailed, ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server


class Transfer:
    """Something on its way. `source` and `target` are remotes, `subject` is its address at the source; `label` names what
    progresses."""

    def __init__(self, call: Call, source: str, subject: str, target: str, *, label: str) -> None:
        self._call = call
        self._label = label
        self._subject = subject
        self._source_remote, self._target_remote = source, target
        self._source, self._target = call.server(source), call.server(target)

    def run(self, place: str, body: dict[str, Any], offer: dict[str, Any], *, mode: str) -> None:
        """Make what `body` describes at that address of the target; its `source` says what is common to all modes. `offer` is
        what the source is asked with."""
        body["source"] |= {"type": "migration", "mode": "pull" if mode == "pull" else "push"}
        offer = {**offer, "migration": True, "name": body["name"]}
        {"pull": self._pull, "push": self._push, "relay": self._relay}[mode](place, body, offer)

    def _pull(self, place: str, body: dict[str, Any], offer: dict[str, Any]) -> None:
        addresses, certificate = self._reach(self._source, self._source_remote)
        operation = self._source.request("POST", self._subject, offer).metadata
        body["source"] |= {"secrets": operation["metadata"], "certificate": certificate}
        self._try_each(addresses, lambda address: self._pull_from(place, body, f"{address}/1.0/operations/{operation['id']}"))

    def _pull_from(self, place: str, body: dict[str, Any], operation: str) -> None:
        body["source"]["operation"] = operation
        self._call.change(self._target, "POST", place, body, label=self._label)

    def _push(self, place: str, body: dict[str, Any], offer: dict[str, Any]) -> None:
        addresses, certificate = self._reach(self._target, self._target_remote)
        operation = self._target.request("POST", place, body).metadata
        wanted = {"secrets": operation["metadata"], "certificate": certificate}

        def push_to(address: str) -> None:
            where = f"{address}/1.0/operations/{operation['id']}"
            offered = {**offer, "target": {**wanted, "operation": where}}
            self._call.change(self._source, "POST", self._subject, offered, label=self._label)

        self._try_each(addresses, push_to)
        self._call.wait(self._target, f"/1.0/operations/{operation['id']}")

    def _relay(self, place: str, body: dict[str, Any], offer: dict[str, Any]) -> None:
        ends = [(self._target, self._target.request("POST", place, body).metadata)]
        ends.append((self._source, self._source.request("POST", self._subject, offer).metadata))
        progress = self._call.progress(self._label)
        try:
            Relay(ends, progress).run()
        finally:
            if progress is not None:
                progress.clear()
        for server, operation in ends:
            self._call.wait(server, f"/1.0/operations/{operation['id']}")

    def _reach(self, server: Server, remote: str) -> tuple[list[str], str]:
        """Addresses by which another server may reach this one, and its certificate."""
        environment = server.get("/1.0").get("environment") or {}
        found = [f"https://{address}" for address in environment.get("addresses") or []]
        own = str(self._call.config.remotes[remote].get("addr") or "").rstrip("/")
        if own.startswith("https://") and own not in found:
            found.append(own)
        if not found:
            raise CommandError(f"The server {remote!r} isn't listening on the network: set its core.https_address")
        return found, environment.get("certificate") or ""

    @staticmethod
    def _try_each(addresses: list[str], attempt: Callable[[str], None]) -> None:
        """With one address after the other, until one works. What is refused before anything was tried is no matter of the
        address. CommandError with what became of each if none works: the first that could be reached knows the reason, those
        after it only that the operation is over."""
        failures: list[str] = []
        for address in addresses:
            try:
                attempt(address)
                return
            except ClientError as error:
                refused = isinstance(error, ServerError) and not isinstance(error, OperationFailed)
                if len(addresses) == 1 or (refused and not failures):
                    raise
                failures.append(f" - {address}: {error}")
        raise CommandError("\n".join(("None of the other server's addresses works:", *failures)))
