"""`image build|import|export|delete|refresh`."""

from __future__ import annotations

import os

from atoll.cli.commands import image_aliases, image_source, transfer
from atoll.cli.errors import CommandError
from atoll.client.address import quote, url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from atoll.cli.session import Call
    from atoll.client.server import Server


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
        operation = send(call, server, files, headers)
    fingerprint = (operation.get("metadata") or {})["fingerprint"]
    for alias in call.flags.every("alias"):
        image_aliases.assign(server, alias, fingerprint)
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


def send(call: Call, server: Server, files: list[str], headers: dict[str, str]) -> dict[str, Any]:
    """Send a directory, a file or a pair of files; returns the ended operation."""
    if len(files) == 1 and os.path.isdir(files[0]):
        headers |= {"Content-Type": "application/octet-stream", "X-LXD-filename": _packed_name(files[0])}
        return transfer.upload(call, server, url("images"), headers, _packed(files[0]), None, "Transferring image")
    for path in files:
        if not os.path.isfile(path):
            raise CommandError(f"Not an image file: {path}")
    if len(files) == 1:
        headers |= {"Content-Type": "application/octet-stream", "X-LXD-filename": os.path.basename(files[0])}
        body, size = transfer.contents(files[0]), os.path.getsize(files[0])
    else:
        boundary = os.urandom(16).hex()
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        body, size = _multipart(files, boundary)
    return transfer.upload(call, server, url("images"), headers, body, size, "Transferring image")


def _packed_name(folder: str) -> str:
    return os.path.basename(os.path.abspath(folder)) + ".tar.gz"


def _packed(folder: str) -> Iterator[bytes]:
    """The tarball of an unpacked image, as tar writes it. Only root can read it whole and as it is."""
    if os.geteuid() != 0:
        raise CommandError("Must run as root to import from directory")
    parts = [name for name in ("metadata.yaml", "templates", "rootfs") if os.path.exists(f"{folder}/{name}")]
    if len(parts) < 2 or parts[0] != "metadata.yaml":
        raise CommandError(f"Not an image directory: {folder}")
    import subprocess

    argv = ["tar", "--directory", folder, "--create", "--gzip", "--numeric-owner", "--xattrs", "--xattrs-include=*", *parts]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as tar:
        assert tar.stdout is not None
        try:
            while data := tar.stdout.read(transfer.CHUNK):
                yield data
        except GeneratorExit:
            tar.kill()
            raise
    if tar.returncode != 0:
        raise CommandError(f"tar could not pack {folder}: exit status {tar.returncode}")


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
            yield from transfer.contents(path)
            yield b"\r\n"
        yield end

    return pieces(), size


def export(call: Call) -> None:
    """Write an image to a file, or to two for a split image."""
    server, name = call.required(call.arguments[0], "image name")
    fingerprint = image_source.required(server, name)
    target = call.arguments[1] if len(call.arguments) > 1 else "."
    folder, base = (target, fingerprint) if os.path.isdir(target) else os.path.split(target)
    save(call, server, fingerprint, folder or ".", base)
    call.say("Image exported successfully!")


def save(call: Call, server: Server, fingerprint: str, folder: str, base: str) -> list[str]:
    """Write an image's file or files into a folder; their names begin with `base`. Returns their paths, the metadata first."""
    if server.read_only:
        return _save_of_stream(call, server, fingerprint, f"{folder}/{base}")
    part = f"{folder}/.{fingerprint}.part"
    try:
        with open(part, "wb") as file:
            headers = transfer.download(call, server, url("images", fingerprint, "export"), file.write, "Exporting the image")
        kind = headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            return _split_form(part, kind.partition("boundary=")[2].strip('"'), f"{folder}/{base}")
        named = headers.get("content-disposition", "").partition("filename=")[2].strip('"')
        target = f"{folder}/{base}{_suffix(named)}"
        os.replace(part, target)
        return [target]
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _save_of_stream(call: Call, server: Any, fingerprint: str, target: str) -> list[str]:
    progress = call.progress("Exporting the image")

    def tell(there: int, size: int) -> None:
        if progress is not None:
            progress.show(f"Exporting the image: {there * 100 // size}%")

    try:
        saved: list[str] = server.save(fingerprint, target, tell)
    finally:
        if progress is not None:
            progress.clear()
    return saved


def _suffix(name: str) -> str:
    """The endings of an image file's name: .tar.xz, .squashfs; none for a name without."""
    _, dot, rest = os.path.basename(name).partition(".")
    return dot + rest


def _split_form(path: str, boundary: str, target: str) -> list[str]:
    """Cut a multipart form on disk into its files, TARGET.tar.xz and TARGET.root or TARGET.squashfs; returns their paths."""
    import mmap

    saved: list[str] = []
    mark = b"\r\n--" + boundary.encode()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as form:
        start = form.find(mark[2:])
        while start >= 0 and form[start + len(mark) - 2 : start + len(mark)] != b"--":
            body = form.find(b"\r\n\r\n", start) + 4
            head = form[start:body].decode("latin-1")
            end = form.find(mark, body)
            if body < 4 or end < 0:
                raise CommandError("The server sent a broken form")
            ending = _suffix(_parameter(head, "filename"))
            is_root = _parameter(head, "name") == "rootfs"
            saved.append(target + (_root_ending(ending) if is_root else ending))
            _copy_range(form, body, end, saved[-1])
            start = end + 2
    return saved


def _parameter(head: str, name: str) -> str:
    """A parameter of a Content-Disposition, which may stand in quotes or not."""
    for part in head.replace("\r\n", ";").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.strip('"')
    return ""


def _root_ending(ending: str) -> str:
    return ending if ending in (".squashfs", ".root") else f".root{ending}"


def _copy_range(source: Any, start: int, end: int, path: str) -> None:
    with open(path, "wb") as file:
        for position in range(start, end, transfer.CHUNK):
            file.write(source[position : min(position + transfer.CHUNK, end)])
