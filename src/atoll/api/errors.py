"""The one table from error kinds to HTTP statuses, and the error body."""

from __future__ import annotations

import msgspec

from atoll.domain import errors

STATUS: dict[type[errors.AtollError], int] = {
    errors.BadRequest: 400,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.TooLarge: 413,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 500,
    errors.Cancelled: 500,
    errors.HostError: 500,
    errors.Internal: 500,
}


def status_of(error: errors.AtollError) -> int:
    """The HTTP status for an error; its nearest kind in the table counts."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def body(code: int, message: str) -> bytes:
    """LXD's error envelope."""
    return msgspec.json.encode(
        {
            "type": "error",
            "status": "",
            "status_code": 0,
            "operation": "",
            "error_code": code,
            "error": message,
            "metadata": None,
        }
    )
