"""The source of an image on another server, as requests for images and for instances name it."""

from __future__ import annotations

from typing import Protocol

from atoll.domain import names
from atoll.domain.errors import BadRequest, Unsupported
from atoll.domain.simplestreams import CONTAINER
from atoll.services.images.sources import LXD, Source


class Named(Protocol):
    """The fields that both bodies have."""

    mode: str
    server: str
    protocol: str
    alias: str
    fingerprint: str
    certificate: str
    secret: str
    project: str


def remote(body: Named, *, type: str = CONTAINER) -> Source:
    """What to fetch from where. BadRequest for what can be no source, Unsupported for what is not pulled."""
    if body.mode not in ("", "pull"):
        raise Unsupported("An image of another server can only be pulled so far")
    alias, fingerprint = body.alias, body.fingerprint
    if fingerprint and not alias and not _is_fingerprint(fingerprint):
        alias, fingerprint = fingerprint, ""  # clients that want the image kept up to date put the alias there
    source = Source(
        body.server, body.protocol or LXD, alias, fingerprint, body.certificate, body.secret, body.project, type or CONTAINER
    )
    source.check()
    return source


def _is_fingerprint(text: str) -> bool:
    try:
        names.fingerprint(text)
    except BadRequest:
        return False
    return True
