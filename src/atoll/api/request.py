"""A request as handlers see it: who asks, about which project, with what body."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from atoll.api import nulls
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.entities import DEFAULT_PROJECT
from atoll.domain.errors import BadRequest, Forbidden, PreconditionFailed, TooLarge

T = TypeVar("T")

MAX_JSON = 1 << 20
"""Bytes of a JSON body; streams have budgets of their own."""

MAX_ADMIN_JSON = 16 << 20
"""As `MAX_JSON`, of who may do everything: clients that change one key of an instance send the whole object back, and its
configuration may hold many long texts. LXD knows no limit."""

MAX_DEPTH = 64

_TOKEN = re.compile(rb'"(?:[^"\\]+|\\.?)*+"?|[\[\]{}]', re.DOTALL)
"""A string, or what nests. Takes linear time for any text: a string that does not end is one, too."""

BODY_SECONDS = 30.0


class Request:
    """One request. `family` is "containers" or "virtual-machines" when it came by one of those aliases."""

    def __init__(self, raw: web.Request, caller: Caller, *, family: str = "") -> None:
        self.raw = raw
        self.caller = caller
        self.family = family

    def path(self, name: str) -> str:
        """A part of the URL, decoded."""
        return self.raw.match_info[name]

    def query(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self.raw.query.get(name, default)

    def flag(self, name: str) -> bool:
        """A query parameter that is true or false."""
        return self.query(name).lower() in ("1", "true", "yes", "on")

    def number(self, name: str, default: int) -> int:
        """A query parameter that is a number. BadRequest if it is none."""
        text = self.query(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError as error:
            raise BadRequest(f"Invalid {name}: {text[:40]!r} is not a number") from error

    @property
    def project(self) -> str:
        """The project asked about; Forbidden if the caller may not use it."""
        return self.usable(self.query("project") or DEFAULT_PROJECT)

    def usable(self, project: str) -> str:
        """A project that the request names. BadRequest for an invalid name, Forbidden if the caller may not use the project."""
        if not self.caller.may_use(names.project(project)):
            raise Forbidden("Not authorized")
        return project

    @property
    def scope(self) -> str | None:
        """The project to list; None means all of them (`all-projects=true`), which a restricted caller sees filtered."""
        if not self.flag("all-projects"):
            return self.project
        if self.query("project"):
            raise BadRequest("Cannot specify a project when requesting all projects")
        return None

    def visible(self, urls: Iterable[str]) -> list[str]:
        """Of URLs of objects, those in projects that the caller may use."""
        return [url for url in urls if self.caller.may_use(url.partition("?project=")[2] or DEFAULT_PROJECT)]

    @property
    def recursion(self) -> int:
        """0: URLs; 1: objects; 2: objects with state."""
        return self.number("recursion", 0)

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body. TooLarge if it is over the limit (that of JSON bodies if none is given), BadRequest if it does not come
        in time."""
        if limit is None:
            limit = MAX_ADMIN_JSON if self.caller.is_admin else MAX_JSON
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._read(limit)
        except TimeoutError as error:
            raise BadRequest(f"The request body did not come within {BODY_SECONDS:g} seconds") from error

    async def _read(self, limit: int) -> bytes:
        if (self.raw.content_length or 0) > limit:
            raise TooLarge(f"The request body is larger than {limit} bytes")
        parts: list[bytes] = []
        size = 0
        async for chunk in self.raw.content.iter_chunked(1 << 16):
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"The request body is larger than {limit} bytes")
            parts.append(chunk)
        return b"".join(parts)

    async def body(self, kind: type[T]) -> T:
        """The JSON body as that type. BadRequest that names the field when it does not fit, and for an empty one: a PUT that lost
        its body would else empty the object."""
        data = await self.read()
        if not data:
            raise BadRequest("Invalid request body: it is empty")
        _check_depth(data)
        try:
            return _decode(data, kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"Invalid request body: {error}") from error
        except RecursionError as error:
            raise BadRequest("Invalid request body: nested too deeply") from error

    def check_etag(self, subject: Any) -> None:
        """PreconditionFailed when If-Match is given and the object is no longer the one it names."""
        expected = self.raw.headers.get("If-Match", "").strip('"')
        if expected and expected != "*" and expected != etag(subject):
            raise PreconditionFailed(f"ETag doesn't match: {etag(subject)} vs {expected}")


def etag(subject: Any) -> str:
    """A hash over what a PUT of the object could change; the same subject gives the same tag on every host."""
    return hashlib.sha256(msgspec.json.encode(subject, order="sorted")).hexdigest()


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        if b"null" not in data:
            raise
        return msgspec.convert(nulls.dropped(msgspec.json.decode(data), kind), kind)


def _check_depth(data: bytes) -> None:
    """A cheap bound on nesting, before the parser recurses."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKEN.finditer(data):
        mark = data[token.start()]
        if mark in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BadRequest("Invalid request body: nested too deeply")
        elif mark in b"]}":
            depth -= 1
