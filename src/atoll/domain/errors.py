"""The error kinds of Atoll. Everything that can go wrong is one of these; the HTTP edge has the one table to status codes.

AtollError
├── BadRequest          the caller's input is wrong; the message names the field
├── Forbidden           known caller, action not allowed
├── NotFound            no such object (or not visible to the caller: same answer)
├── Conflict            the object's state does not allow it, or a name is taken
├── PreconditionFailed  an ETag given in If-Match is out of date
├── TooLarge            a body or stream exceeds its budget
├── Unsupported         the host, driver or this release cannot do it
├── Unavailable         shutting down, starting, or a dependency is away: try again
├── DeadlineExceeded    a time limit ran out
├── Cancelled           the caller cancelled the operation
├── HostError           a program or a kernel call failed; carries what it said
└── Internal            a broken invariant of ours
"""

from __future__ import annotations


class AtollError(Exception):
    """Base of all. `message` is shown to clients as it is; `hint` says what a person can do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class BadRequest(AtollError):
    """The caller's input is wrong."""


class Forbidden(AtollError):
    """The caller may not do this."""


class NotFound(AtollError):
    """No such object, or none that the caller may see."""


class Conflict(AtollError):
    """The object's present state does not allow it, or the name is taken."""


class PreconditionFailed(AtollError):
    """The object changed since the caller read it."""


class TooLarge(AtollError):
    """A body or a stream exceeds its budget."""


class Unsupported(AtollError):
    """This host, driver or release cannot do it."""


class Unavailable(AtollError):
    """Not now: the daemon is starting or stopping, or something it needs is away."""


class DeadlineExceeded(AtollError):
    """A time limit ran out."""


class Cancelled(AtollError):
    """The caller cancelled it."""


class HostError(AtollError):
    """A program or kernel call on the host failed."""


class Internal(AtollError):
    """An invariant of Atoll's own is broken."""
