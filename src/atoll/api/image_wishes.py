"""What a client wishes of a new image: in a JSON body, or in the headers of an upload."""

from __future__ import annotations

from urllib.parse import parse_qsl

from aiohttp import web

from atoll.api.schema import images as schema
from atoll.domain import clock
from atoll.domain.errors import BadRequest
from atoll.services.images.model import MAX_PROPERTIES, NewAlias, Wishes

_TRUE = ("1", "true", "yes", "on")


def of_body(body: schema.ImagesPost) -> Wishes:
    """Of one that is made of something that is there."""
    return Wishes(
        filename=body.filename,
        public=body.public,
        auto_update=body.auto_update,
        expires_at=seconds(body.expires_at),
        properties=body.properties,
        profiles=None if body.profiles is None else tuple(body.profiles),
        aliases=tuple(NewAlias(alias.name, alias.description) for alias in body.aliases or ()),
        compression=body.compression_algorithm,
    )


def of_headers(raw: web.Request) -> Wishes:
    """Of an upload: its body is the image, so all else is in headers, lists and maps url-encoded."""
    profiles = raw.headers.get("X-LXD-profiles")
    properties = raw.headers.get("X-LXD-properties")
    return Wishes(
        filename=_text(raw, "X-LXD-filename"),
        public=raw.headers.get("X-LXD-public", "").lower() in _TRUE,
        properties=None if properties is None else dict(_pairs(raw, "X-LXD-properties")),
        profiles=None if profiles is None else tuple(name for key, name in _pairs(raw, "X-LXD-profiles") if key == "profile"),
        aliases=tuple(NewAlias(name) for key, name in _pairs(raw, "X-LXD-aliases") if key == "alias"),
    )


def _text(raw: web.Request, header: str) -> str:
    """A header that is text; bytes that are not UTF-8 would come as lone surrogates, which no database takes."""
    text = raw.headers.get(header, "")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRequest(f"Header {header} is not UTF-8")
    return text


def _pairs(raw: web.Request, header: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(_text(raw, header), keep_blank_values=True, max_num_fields=MAX_PROPERTIES)
    except ValueError as error:
        raise BadRequest(f"Header {header}: {error}") from error


def seconds(text: str | None) -> int:
    """A date as it is stored; 0 for never, as for all before 1970."""
    try:
        return max(0, int(clock.parse(text or "")))
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"Invalid date {(text or '')[:40]!r}") from error
