"""What all lists share: URLs at recursion 0, objects above it, filters over what clients see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.domain import filters

T = TypeVar("T")


def answer(request: Request, items: Iterable[T], *, url: Callable[[T], str], render: Callable[[T], object]) -> web.Response:
    """A list of any kind of object. With a filter, objects are rendered before they are tested."""
    text = request.query("filter")
    if not text:
        return response.sync([url(item) if request.recursion == 0 else render(item) for item in items])
    passes = filters.parse(text)
    kept = [(item, rendered) for item in items if passes(msgspec.to_builtins(rendered := render(item)))]
    return response.sync([url(item) if request.recursion == 0 else rendered for item, rendered in kept])
