"""One step of a storage driver: blocking work in a thread, the kernel's refusal told as HostError."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from atoll.domain.errors import HostError
from atoll.host import threads

P = ParamSpec("P")
R = TypeVar("R")


async def call(what: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking function; an OSError becomes HostError "Cannot <what>: <reason>"."""
    try:
        return await threads.in_thread(function, *args, **kwargs)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise HostError(f"Cannot {what}: {error.strerror or error}{where}") from error
