"""Tokens by which a client adds itself to the trust store: an operation of class token carries the secret, one use ends it."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from atoll.domain import clock
from atoll.domain.caller import Caller
from atoll.domain.errors import Forbidden
from atoll.host.tls import ServerTls
from atoll.services import operations
from atoll.services.operations import Operation, OperationClass, OperationRegistry, OperationSpec
from atoll.services.settings import SettingsService

_LONGEST = 16 * 1024


@dataclass(frozen=True, slots=True)
class Grant:
    """What the holder of a token or password gets into the trust store."""

    name: str
    type: str
    restricted: bool
    projects: tuple[str, ...]


class _Text(msgspec.Struct):
    """A token as clients hand it in: base64 of this in JSON."""

    client_name: str
    secret: str
    fingerprint: str
    addresses: list[str] | None = None


@dataclass(frozen=True, slots=True)
class _Issued:
    operation: Operation
    secret: str
    grant: Grant
    expires: float | None


class TrustTokens:
    """Issues tokens and redeems each at most once. They end with the daemon, as operations do."""

    def __init__(self, operations: OperationRegistry, settings: SettingsService, tls: ServerTls) -> None:
        self._operations = operations
        self._settings = settings
        self._tls = tls
        self._issued: dict[str, _Issued] = {}

    def issue(self, grant: Grant, addresses: list[str], *, caller: Caller) -> Operation:
        """A new token, as an operation whose metadata the client makes the token's text from."""
        expires = self._expiry()
        secret = operations.new_secret()
        metadata: dict[str, Any] = {
            "fingerprint": self._tls.fingerprint,
            "addresses": addresses,
            "request": {
                "name": grant.name,
                "type": grant.type,
                "restricted": grant.restricted,
                "projects": list(grant.projects),
                "certificate": "",
                "password": "",
                "token": True,
            },
            "expiresAt": clock.NEVER if expires is None else clock.rfc3339(expires),
        }
        # Of no project: only administrators see it. Its events go to everybody, so the secret is put in after they were told.
        spec = OperationSpec("Executing token operation", cls=OperationClass.TOKEN, project="", metadata=metadata, caller=caller)
        operation = self._operations.start(spec)
        operation.metadata["secret"] = secret
        self._forget_ended()
        self._issued[operation.id] = _Issued(operation, secret, grant, expires)
        return operation

    def _expiry(self) -> float | None:
        span = self._settings.get("core.remote_token_expiry")
        return None if span is None else float(span.after(datetime.now(UTC)).timestamp())

    def _forget_ended(self) -> None:
        self._issued = {key: issued for key, issued in self._issued.items() if not issued.operation.status.is_final}

    def is_token(self, text: str) -> bool:
        """Whether that looks like a token rather than like a password."""
        return _decode(text) is not None

    async def redeem(self, text: str, use: Callable[[Grant], Any]) -> None:
        """Let `use` take what the token grants; the token is spent when that succeeds. Forbidden for one that is not valid."""
        issued = self._take(_decode(text))
        try:
            await use(issued.grant)
        except BaseException:
            self._issued[issued.operation.id] = issued
            raise
        del issued.operation.metadata["secret"]
        self._operations.complete_token(issued.operation)

    def _take(self, token: _Text | None) -> _Issued:
        """Find it and take it out at once: of two clients that come with one token, one gets it."""
        self._forget_ended()
        for key, issued in self._issued.items():
            if token is not None and _matches(issued, token):
                del self._issued[key]
                if issued.expires is not None and clock.parse(clock.rfc3339()) >= issued.expires:
                    self._operations.cancel(issued.operation)
                    raise Forbidden("The token has expired")
                return issued
        raise Forbidden("Not authorized")


def _matches(issued: _Issued, token: _Text) -> bool:
    same = hmac.compare_digest(issued.secret.encode(), token.secret.encode())
    return same and issued.grant.name == token.client_name


def _decode(text: str) -> _Text | None:
    if len(text) > _LONGEST:
        return None
    try:
        return msgspec.json.decode(base64.b64decode(text, validate=True), type=_Text)
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None
