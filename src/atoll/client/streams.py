"""An image server, asked as if it were a server with an API: what it has is answered out of its documents."""

from __future__ import annotations

import hashlib
import os
from urllib.parse import unquote, urljoin, urlsplit

from atoll.client import codec, stream_images, tls
from atoll.client.errors import ProtocolError, ServerError
from atoll.client.http1 import Connection
from atoll.client.server import Answer, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from atoll.client.http1 import Response, Stream

    Image = dict[str, Any]

LARGEST_DOCUMENT = 64 << 20
_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_HTTPS_PORT = 443
_NOT_FOUND, _UNSUPPORTED = 404, 501


class ImageServer(Server):
    """Read-only. `address` is https://…; `known` is the certificate it was given, where no authority vouches for it."""

    read_only = True

    def __init__(self, address: str, *, known: bytes | None = None, trace: Callable[[str], None] | None = None) -> None:
        super().__init__(lambda: self._open(address), trace=trace)
        self._address = address.rstrip("/")
        self._known = known
        self._found: list[Image] | None = None

    def request(self, method: str, path: str, body: object = None, *, etag: str = "") -> Answer:
        """A GET of images or aliases. ServerError for what an image server has not."""
        segments = [unquote(segment) for segment in path.partition("?")[0].split("/")[2:]]
        if method != "GET" or body is not None or segments[:1] != ["images"]:
            raise _unsupported()
        return Answer({"type": "sync", "metadata": self._look(segments[1:])}, "")

    def _look(self, segments: list[str]) -> object:
        match segments:
            case []:
                return [_shown(image) for image in self._images()]
            case ["aliases"]:
                return [_alias(name, image) for image in self._images() for name in _names(image)]
            case ["aliases", *rest]:
                return _alias("/".join(rest), self._named("/".join(rest)))
            case [fingerprint]:
                return _shown(self._image(fingerprint))
        raise ServerError("Not found", status=_NOT_FOUND)

    def send(self, method: str, path: str, headers: Mapping[str, str], body: Any = None) -> None:
        """Nothing can be sent to an image server."""
        raise _unsupported()

    def save(self, fingerprint: str, target: str, tell: Callable[[int, int], None]) -> list[str]:
        """Download an image's files, their paths beginning with `target`; `tell` gets (bytes there, of all). Returns the paths.
        ProtocolError, with nothing left of it, for a file that is not the announced one."""
        image = self._image(fingerprint)
        whole = hashlib.sha256()
        there = 0

        def take(piece: bytes) -> None:
            nonlocal there
            whole.update(piece)
            there += len(piece)
            tell(there, image["size"])

        saved = [f"{target}{_ending(name, path)}" for name, path, _, _ in image["files"]]
        try:
            for place, (_, path, sha256, size) in zip(saved, image["files"], strict=True):
                self._save_file(path, place, sha256, size, take)
            if whole.hexdigest() != image["fingerprint"]:
                raise ProtocolError("The image server announced another image than it has: the fingerprints differ")
        except BaseException:
            for place in saved:
                if os.path.exists(place):
                    os.unlink(place)
            raise
        return saved

    def _save_file(self, path: str, place: str, sha256: str, size: int, take: Callable[[bytes], None]) -> None:
        digest = hashlib.sha256()
        with open(place, "wb") as file:

            def write(piece: bytes) -> None:
                file.write(piece)
                if file.tell() > size:
                    raise ProtocolError(f"{path} is larger than the image server announced")
                digest.update(piece)
                take(piece)

            self._get(path, write)
        if digest.hexdigest() != sha256:
            raise ProtocolError(f"{path} is not the file that the image server announced: its hash differs")

    # --- what there is -------------------------------------------------------------------------------------------------

    def _images(self) -> list[Image]:
        if self._found is None:
            machine = os.uname().machine
            index = self._document(stream_images.INDEX)
            paths = stream_images.product_paths(index)
            self._found = [image for path in paths for image in stream_images.images(self._document(path), machine)]
        return self._found

    def _image(self, fingerprint: str) -> Image:
        found = [image for image in self._images() if image["fingerprint"].startswith(fingerprint)] if fingerprint else []
        if not found:
            raise ServerError("Image not found", status=_NOT_FOUND)
        if any(image["fingerprint"] != found[0]["fingerprint"] for image in found):
            raise ServerError("More than one image matches the fingerprint", status=400)
        return found[0]

    def _named(self, name: str) -> Image:
        """The image of an alias: a container rather than a virtual machine."""
        found = [image for image in self._images() if name in _names(image)]
        if not found:
            raise ServerError("Image alias not found", status=_NOT_FOUND)
        return min(found, key=lambda image: image["type"] != "container")

    # --- asking --------------------------------------------------------------------------------------------------------

    def _document(self, path: str) -> object:
        pieces: list[bytes] = []
        size = 0

        def keep(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size > LARGEST_DOCUMENT:
                raise ProtocolError(f"{path} of the image server is larger than {LARGEST_DOCUMENT} bytes")
            pieces.append(piece)

        self._get(path, keep)
        try:
            return codec.loads(b"".join(pieces).decode())
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{path} of the image server is not JSON") from error

    def _get(self, path: str, sink: Callable[[bytes], object]) -> None:
        """A file into `sink`, from where redirects lead, by HTTPS alone."""
        target = f"{self._address}/{path}"
        for _ in range(_REDIRECTS):
            answer = self._ask(target, sink)
            if answer.status == 200:
                return
            if answer.status not in _MOVED:
                raise ServerError(f"{target} answers with status {answer.status}", status=answer.status)
            target = urljoin(target, answer.headers.get("location", ""))
        raise ProtocolError(f"{self._address} redirects too often")

    def _ask(self, target: str, sink: Callable[[bytes], object]) -> Response:
        parts = urlsplit(target)
        self._note(f"GET {target}")
        connection = Connection(self._open(target))
        try:
            where = f"{parts.path}?{parts.query}" if parts.query else parts.path
            connection.send("GET", where or "/", {"Host": parts.netloc, "Accept-Encoding": "identity", "Connection": "close"})
            return connection.receive(sink=sink)
        finally:
            connection.close()

    def _open(self, target: str) -> Stream:
        """A connection to the host of an address; this client's own certificate is nothing to an image server."""
        parts = urlsplit(target)
        known = self._known if parts.netloc == urlsplit(self._address).netloc else None
        host, port = tls.split(target, default=_HTTPS_PORT)
        return tls.connect(f"https://{f'[{host}]' if ':' in host else host}:{port}", None, known=known)


def _unsupported() -> ServerError:
    return ServerError("The server doesn't implement the required API: an image server has images only", status=_UNSUPPORTED)


def _names(image: Image) -> list[str]:
    return [alias["name"] for alias in image["aliases"]]


def _shown(image: Image) -> Image:
    return {key: value for key, value in image.items() if key != "files"}


def _alias(name: str, image: Image) -> dict[str, str]:
    return {"name": name, "description": "", "target": image["fingerprint"], "type": image["type"]}


def _ending(name: str, path: str) -> str:
    """The ending of a file's name by what it is; a rootfs that is no squashfs has one more, as the metadata is a tarball too."""
    _, dot, rest = path.rpartition("/")[2].partition(".")
    if name == "rootfs" and rest != "squashfs":
        return f".root{dot}{rest}"
    return dot + rest
