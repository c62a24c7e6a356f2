"""`image build|import|export|delete|refresh`."""

from __future__ import annotations

import os

from atoll.cli.commands import image_source
from atoll.cli.errors import CommandError
from atoll.client.address import quote, url
from atoll.client.errors import ServerError
from atoll.client.server import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server

CHUNK = 1 << 20


def build(call: Call) -> None:
    """Have the server build an image."""
    flags = call.flags
    server, spec = call.required(call.arguments[0], "distribution")
    fingerprint = image_source.build(
        call, server, spec, aliases=flags.every("alias"), packages=flags.every("package"), public=flags.on("public")
    )
    call.say(f"Image built with fingerprint: {fingerprint}")


def delete(call: Call) -> None:
    """Delete images."""
    for text in call.arguments:
        server, name = call.required(text, "image name")
        call.change(server, "DELETE", url("images", image_source.required(server, name)))


def refresh(call: Call) -> None:
    """Fetch newer versions of images that came of an image server."""
    for text in call.arguments:
        server, name = call.required(text, "image name")
        fingerprint = image_source.required(server, name)
        operation = call.change(server, "POST", url("images", fingerprint, "refresh"), {}).metadata
        fresh = not (operation.get("metadata") or {}).get("refreshed")
        call.say("Image already up to date." if fresh else "Image refreshed successfully!")


def import_(call: Call) -> None:
    """Put an image file, a pair of files, or what a URL names into the store."""
    files, remote, properties = _import_words(call)
    server, _ = call.resolve(remote)
    headers = {"X-LXD-public": "true"} if call.flags.on("public") else {}
    if properties:
        headers["X-LXD-properties"] = "&".join(f"{quote(key)}={quote(value)}" for key, value in properties.items())
    if files[0].startswith("https://"):
        source = {"type": "url", "mode": "pull", "url": files[0]}
        body = {"source": source, "public": call.flags.on("public"), "properties": properties}
        operation = call.change(server, "POST", url("images"), body, label="Importing the image").metadata
    else:
        operation = _upload(call, server, files, headers)
    fingerprint = (operation.get("metadata") or {})["fingerprint"]
    for alias in call.flags.every("alias"):
        _set_alias(server, alias, fingerprint)
    call.say(f"Image imported with fingerprint: {fingerprint}")


def _import_words(call: Call) -> tuple[list[str], str, dict[str, str]]:
    """The one or two files (or the URL), the remote, the properties."""
    files, properties, remote = [call.arguments[0]], {}, ""
    for word in call.arguments[1:]:
        key, equals, value = word.partition("=")
        if equals and not os.path.exists(word):
            properties[key] = value
        elif word.endswith(":"):
            remote = word
        elif len(files) == 2:
            raise CommandError(f"Unexpected argument: {word}")
        else:
            files.append(word)
    return files, remote, properties


def _set_alias(server: Server, name: str, fingerprint: str) -> None:
    """Let an alias mean this image, whatever it meant before."""
    try:
        server.request("DELETE", url("images", "aliases", name))
    except ServerError as error:
        if error.status != image_source.NOT_FOUND:
            raise
    server.request("POST", url("images", "aliases"), {"name": name, "target": fingerprint, "description": ""})


def _upload(call: Call, server: Server, files: list[str], headers: dict[str, str]) -> dict[str, Any]:
    for path in files:
        if not os.path.isfile(path):
            raise CommandError(f"Not an image file: {path}")
    if len(files) == 1:
        headers |= {"Content-Type": "application/octet-stream", "X-LXD-filename": os.path.basename(files[0])}
        body, size = _contents(files[0]), os.path.getsize(files[0])
    else:
        boundary = os.urandom(16).hex()
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        body, size = _multipart(files, boundary)
    headers["Content-Length"] = str(size)
    progress = call.progress("Transferring image")
    answer = decode(server.exchange("POST", url("images"), headers, _counted(body, size, progress)))
    try:
        return server.wait(answer.operation, progress=progress)
    finally:
        if progress is not None:
            progress.clear()


def _contents(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while data := file.read(CHUNK):
            yield data


def _multipart(files: list[str], boundary: str) -> tuple[Iterator[bytes], int]:
    """A form of the metadata and rootfs files, and its size."""
    heads = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{os.path.basename(path)}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        for name, path in zip(("metadata", "rootfs"), files, strict=True)
    ]
    end = f"--{boundary}--\r\n".encode()
    size = len(end) + sum(len(head) + os.path.getsize(path) + 2 for head, path in zip(heads, files, strict=True))

    def pieces() -> Iterator[bytes]:
        for head, path in zip(heads, files, strict=True):
            yield head
            yield from _contents(path)
            yield b"\r\n"
        yield end

    return pieces(), size


def _counted(body: Iterable[bytes], size: int, progress: Any) -> Iterator[bytes]:
    """The pieces of a body, told of on the progress line."""
    sent = 0
    for piece in body:
        yield piece
        sent += len(piece)
        if progress is not None:
            progress.show(f"Transferring image: {sent * 100 // size}%")


def export(call: Call) -> None:
    """Write an image to a file, or to two for a split image."""
    server, name = call.required(call.arguments[0], "image name")
    fingerprint = image_source.required(server, name)
    target = call.arguments[1] if len(call.arguments) > 1 else "."
    folder, base = (target, fingerprint) if os.path.isdir(target) else os.path.split(target)
    folder = folder or "."
    part = f"{folder}/.{fingerprint}.part"
    try:
        with open(part, "wb") as file:
            answer = server.exchange("GET", url("images", fingerprint, "export"), {}, sink=file.write)
        if answer.status != 200:
            decode(answer)
        kind = answer.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            _split_form(part, kind.partition("boundary=")[2].strip('"'), f"{folder}/{base}")
        else:
            named = answer.headers.get("content-disposition", "").partition("filename=")[2].strip('"')
            os.replace(part, f"{folder}/{base}{_suffix(named)}")
    finally:
        if os.path.exists(part):
            os.unlink(part)
    call.say("Image exported successfully!")


def _suffix(name: str) -> str:
    """The endings of an image file's name: .tar.xz, .squashfs; none for a name without."""
    _, dot, rest = os.path.basename(name).partition(".")
    return dot + rest


def _split_form(path: str, boundary: str, target: str) -> None:
    """Cut a multipart form on disk into its files: TARGET.tar.xz and TARGET.root or TARGET.squashfs."""
    import mmap

    mark = b"\r\n--" + boundary.encode()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as form:
        start = form.find(mark[2:])
        while start >= 0 and form[start + len(mark) - 2 : start + len(mark)] != b"--":
            body = form.find(b"\r\n\r\n", start) + 4
            head = form[start:body].decode("latin-1")
            end = form.find(mark, body)
            if body < 4 or end < 0:
                raise CommandError("The server sent a broken form")
            named = head.partition('filename="')[2].partition('"')[0]
            ending = _suffix(named)
            _copy_range(form, body, end, target + (ending if 'name="rootfs"' not in head else _root_ending(ending)))
            start = end + 2


def _root_ending(ending: str) -> str:
    return ending if ending in (".squashfs", ".root") else f".root{ending}"


def _copy_range(source: Any, start: int, end: int, path: str) -> None:
    with open(path, "wb") as file:
        for position in range(start, end, CHUNK):
            file.write(source[position : min(position + CHUNK, end)])
