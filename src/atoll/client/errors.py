"""What can go wrong between the client and a server.

ClientError
├── Unreachable      no server answers at the address
├── ProtocolError    what answers does not speak the protocol
└── ServerError      the server refused; `status` is the HTTP status
    └── OperationFailed   a background operation ended in failure or was cancelled
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of every error of this package; the text is for people."""


class Unreachable(ClientError):
    """No server answers. `reason` is the system's word for it."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"Cannot connect to {address}: {reason}")
        self.address = address
        self.reason = reason


class ProtocolError(ClientError):
    """The peer broke HTTP, WebSocket or the API's envelope."""


class ServerError(ClientError):
    """The server answered with an error."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class OperationFailed(ServerError):
    """A background operation did not succeed."""
