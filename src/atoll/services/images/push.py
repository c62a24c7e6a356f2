"""Images that one server sends to another: the sender's side, and the receiver's tokens.

A client asks the receiver for a token (the fingerprint that may come, and what is wished of it), and gives the token to the
sender, which uploads the image with it. The token is good for one upload.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from atoll.domain import names, words
from atoll.domain.caller import Caller
from atoll.domain.entities import Image
from atoll.domain.errors import BadRequest, DeadlineExceeded, HostError, NotFound
from atoll.host import web
from atoll.services.events import with_project
from atoll.services.images import form, sources
from atoll.services.images.model import TOKEN_SECONDS, Wishes
from atoll.services.images.service import ImageService
from atoll.services.operations import Operation, OperationClass, OperationRegistry, OperationSpec, new_secret

PROGRESS = "upload_progress"
TAKE_IN_SECONDS = 3600.0
"""How long the other server may unpack and check what it has whole."""
_WAIT_SECONDS = 20
_PAUSE_SECONDS = 1.0
_LARGEST_ANSWER = 1 << 20
_SUCCESS, _ENDED = 200, (200, 400, 401)
"""Codes of an operation's status."""


@dataclass(frozen=True, slots=True)
class Order:
    """Where to push an image: a server, the certificate it is known by, its project, and the secret of its token."""

    server: str
    certificate: str
    secret: str
    project: str = ""
    profiles: tuple[str, ...] = ()

    def check(self) -> None:
        """BadRequest for what cannot be."""
        sources.check_address(self.server)
        sources.certificate_der(self.certificate)
        if not self.secret or not self.secret.isascii() or not self.secret.isprintable():
            raise BadRequest("secret: the one of the target's operation is required")
        if self.project:
            names.project(self.project)
        for profile in self.profiles:
            names.profile(profile)


@dataclass(frozen=True, slots=True)
class Expected:
    """An image that may come: to which project, with which wishes, and who asked for it."""

    project: str
    fingerprint: str
    wishes: Wishes
    caller: Caller


class ImageInbox:
    """The receiver's side: tokens for images that others will upload."""

    def __init__(self, images: ImageService, operations: OperationRegistry) -> None:
        self._images = images
        self._operations = operations
        self._expected: dict[str, tuple[Operation, Expected]] = {}

    async def expect(self, expected: Expected) -> Operation:
        """A token operation; its creator finds the secret in the metadata. NotFound for what no image is called: `lxc` sends a
        public image's alias as it is, which the source would not find either."""
        try:
            names.whole_fingerprint(expected.fingerprint)
        except BadRequest as error:
            raise NotFound("Image not found", hint="what is to be sent is named by its whole fingerprint") from error
        await self._images.check_wishes(expected.project, expected.wishes, caller=expected.caller)
        spec = OperationSpec(
            "Image upload token",
            cls=OperationClass.TOKEN,
            project=expected.project,
            private={"secret": new_secret()},
            seconds=TOKEN_SECONDS,
            caller=expected.caller,
        )
        token = self._operations.start(spec)
        self._expected[token.id] = token, expected
        return token

    def redeem(self, project: str, fingerprint: str, secret: str) -> Expected | None:
        """What the secret is for, once; None if it opens nothing of that project and fingerprint."""
        self._expected = {key: entry for key, entry in self._expected.items() if entry[0].may_cancel}
        for token, expected in self._expected.values():
            stored = token.spec.private["secret"]
            is_right = hmac.compare_digest(stored.encode(), secret.encode(errors="replace"))
            if is_right and (expected.project, expected.fingerprint) == (project, fingerprint):
                self._operations.complete_token(token)
                return expected
        return None


class ImagePusher:
    """The sender's side."""

    def __init__(self, images: ImageService, operations: OperationRegistry) -> None:
        self._images = images
        self._operations = operations

    def push(self, project: str, image: Image, order: Order, *, caller: Caller) -> Operation:
        """Upload the image, and wait until the other server has taken it in."""
        order.check()

        async def work(operation: Operation) -> None:
            parts = await self._images.files.parts(image)
            async with (
                form.opened(parts) as body,
                web.visit(order.server, known=sources.certificate_der(order.certificate)) as server,
            ):
                chunks = _told(body.chunks(), body.length, operation)
                headers = _headers(image, order, body)
                query = f"?{urlencode({'project': order.project})}" if order.project else ""
                answer = await server.send(f"1.0/images{query}", chunks, headers, limit=_LARGEST_ANSWER)
                await _taken_in(server, sources.envelope(server, answer))
            self._images.tell("image-retrieved", project, image.fingerprint, caller)

        urls = {"images": [with_project(f"/1.0/images/{image.fingerprint}", project)]}
        spec = OperationSpec("Exporting image", work, project=project, resources=urls, caller=caller, cancellable=True)
        return self._operations.start(spec)


def _headers(image: Image, order: Order, body: form.Form) -> dict[str, str]:
    named = {
        "Content-Type": body.content_type,
        "Content-Length": str(body.length),
        "X-LXD-fingerprint": image.fingerprint,
        "X-LXD-secret": order.secret,
    }
    if order.profiles:
        named["X-LXD-profiles"] = urlencode([("profile", name) for name in order.profiles])
    return named


async def _told(chunks: AsyncIterator[bytes], length: int, operation: Operation) -> AsyncIterator[bytes]:
    """The chunks; the operation shows how far it is."""
    sent = 0
    async for chunk in chunks:
        yield chunk
        sent += len(chunk)
        operation.progress(PROGRESS, f"Image upload: {sent * 100 // max(length, 1)}%")


async def _taken_in(server: web.Web, operation: dict[str, Any]) -> None:
    """Wait for the other server's operation. HostError with its reason if it fails, DeadlineExceeded if it does not end."""
    given = operation.get("metadata")
    secret = given.get("secret", "") if isinstance(given, dict) else ""
    query = urlencode({"secret": secret, "timeout": _WAIT_SECONDS})
    path = f"1.0/operations/{quote(str(operation.get('id')), safe='')}/wait?{query}"
    try:
        async with asyncio.timeout(TAKE_IN_SECONDS):
            while operation.get("status_code") not in _ENDED:
                operation = await sources.metadata(server, path)
                await asyncio.sleep(_PAUSE_SECONDS if operation.get("status_code") not in _ENDED else 0)
    except TimeoutError as error:
        raise DeadlineExceeded(f"{server.address} has the image and does not say what became of it") from error
    if operation.get("status_code") != _SUCCESS:
        raise HostError(f"{server.address} could not take the image: {words.of_stranger(str(operation.get('err')))}")
