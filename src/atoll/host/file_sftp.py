"""SFTP, version 3, on a tree: what a worker on files speaks with a client that has upgraded its request to `sftp`.

The protocol is draft-ietf-secsh-filexfer-02, without any SSH around it, with OpenSSH's extensions that sshfs uses. Requests are
answered one after the other, in order. What a request does is `file_tree`'s: nothing leads out of the tree, and nothing but
regular files and directories is opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import socket
import struct
from collections.abc import Callable
from typing import BinaryIO

from atoll.host import file_sftp_wire as wire
from atoll.host.file_sftp_wire import Answer, Attributes, BadMessage, Packet
from atoll.host.file_tree import Tree

VERSION = 3
MAX_DATA = wire.MAX_PACKET - 1024
MAX_HANDLES = 1000
NAMES_AT_ONCE = 100

_INIT, _VERSION = 1, 2
_READ, _WRITE, _APPEND, _CREATE, _TRUNCATE, _EXCLUSIVE = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

_EXTENSIONS = (
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("limits@openssh.com", "1"),
)


class _File:
    """An open regular file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)


class _Directory:
    """An open directory that is being listed."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._scan = os.scandir(fd)

    def next(self) -> list[tuple[str, os.stat_result]]:
        """Some more names with their own attributes; none at the end."""
        found: list[tuple[str, os.stat_result]] = []
        for entry in self._scan:
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                found.append((entry.name, os.lstat(entry.name, dir_fd=self.fd)))
            if len(found) == NAMES_AT_ONCE:
                break
        return found

    def close(self) -> None:
        self._scan.close()
        os.close(self.fd)


def serve(stream: socket.socket, tree: Tree) -> None:
    """Answer a client until it closes its end or breaks the protocol."""
    server = Server(stream, tree)
    try:
        server.run()
    except (BadMessage, EOFError, ConnectionError):
        return
    finally:
        server.close()


class Server:
    """One client's session: its stream and its open handles."""

    def __init__(self, stream: socket.socket, tree: Tree) -> None:
        self._stream = stream
        self._tree = tree
        self._handles: dict[bytes, _File | _Directory] = {}
        self._numbers = 0

    def run(self) -> None:
        """Shake hands, then answer until EOFError at the end. BadMessage for a stream that is no SFTP."""
        with self._stream.makefile("rb") as packets:
            kind, packet = _next_packet(packets)
            if kind != _INIT or packet.number() < VERSION:
                raise BadMessage
            extensions = b"".join(wire.string(name.encode()) + wire.string(value.encode()) for name, value in _EXTENSIONS)
            self._send(_VERSION, struct.pack(">I", VERSION) + extensions)
            while True:
                self._answer(*_next_packet(packets))

    def close(self) -> None:
        """Close what the client left open."""
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()

    def _answer(self, kind: int, packet: Packet) -> None:
        number = packet.number()
        request = _REQUESTS.get(kind)
        try:
            answer, body = request(self, packet) if request is not None else wire.status(wire.UNSUPPORTED)
        except OSError as error:
            answer, body = wire.failure(error)
        except BadMessage:
            answer, body = wire.status(wire.BAD_MESSAGE)
        self._send(answer, struct.pack(">I", number) + body)

    def _send(self, kind: int, body: bytes) -> None:
        self._stream.sendall(struct.pack(">IB", 1 + len(body), kind) + body)

    # --- handles -------------------------------------------------------------------------------------------------------

    def _keep(self, handle: _File | _Directory) -> Answer:
        if len(self._handles) >= MAX_HANDLES:
            handle.close()
            raise OSError(errno.EMFILE, "Too many open files")
        self._numbers += 1
        name = struct.pack(">Q", self._numbers)
        self._handles[name] = handle
        return wire.handle(name)

    def _file(self, packet: Packet) -> _File:
        found = self._handles.get(packet.string())
        if not isinstance(found, _File):
            raise BadMessage
        return found

    def open(self, packet: Packet) -> Answer:
        path, wanted, attributes = packet.path(), packet.number(), Attributes(packet)
        flags = os.O_RDWR if wanted & _READ and wanted & _WRITE else os.O_WRONLY if wanted & _WRITE else os.O_RDONLY
        if wanted & _APPEND:
            flags |= os.O_APPEND
        if wanted & _CREATE:
            mode = 0o666 if attributes.mode is None else attributes.mode & 0o777
            fd, made = self._tree.create(path, flags, mode, exclusive=bool(wanted & _EXCLUSIVE))
        else:
            fd, made = self._tree.open(path, flags), False
        try:
            if wanted & _TRUNCATE and wanted & _WRITE and not made:
                os.ftruncate(fd, 0)
        except OSError:
            os.close(fd)
            raise
        return self._keep(_File(fd))

    def open_directory(self, packet: Packet) -> Answer:
        return self._keep(_Directory(self._tree.open(packet.path(), os.O_RDONLY | os.O_DIRECTORY)))

    def close_handle(self, packet: Packet) -> Answer:
        found = self._handles.pop(packet.string(), None)
        if found is None:
            raise BadMessage
        found.close()
        return wire.DONE

    def read(self, packet: Packet) -> Answer:
        file, offset, size = self._file(packet), packet.long(), packet.number()
        data = os.pread(file.fd, min(size, MAX_DATA), wire.offset(offset))
        return wire.data(data) if data or not size else wire.status(wire.EOF)

    def write(self, packet: Packet) -> Answer:
        file, offset, data = self._file(packet), wire.offset(packet.long()), memoryview(packet.string())
        while data:
            written = os.pwrite(file.fd, data, offset)
            data, offset = data[written:], offset + written
        return wire.DONE

    def read_directory(self, packet: Packet) -> Answer:
        found = self._handles.get(packet.string())
        if not isinstance(found, _Directory):
            raise BadMessage
        names = found.next()
        return wire.names(names) if names else wire.status(wire.EOF)

    # --- attributes ----------------------------------------------------------------------------------------------------

    def stat(self, packet: Packet) -> Answer:
        return wire.attributes(self._tree.stat(packet.path(), follow=True))

    def lstat(self, packet: Packet) -> Answer:
        return wire.attributes(self._tree.stat(packet.path(), follow=False))

    def fstat(self, packet: Packet) -> Answer:
        return wire.attributes(os.fstat(self._file(packet).fd))

    def set_attributes(self, packet: Packet) -> Answer:
        path, wanted = packet.path(), Attributes(packet)
        if wanted.size is not None:
            self._tree.truncate(path, wire.offset(wanted.size))
        if wanted.owner is not None:
            self._tree.change_owner(path, *wanted.owner)
        if wanted.mode is not None:
            self._tree.change_mode(path, wanted.mode)
        if wanted.times is not None:
            self._tree.change_times(path, *wanted.times)
        return wire.DONE

    def set_file_attributes(self, packet: Packet) -> Answer:
        fd, wanted = self._file(packet).fd, Attributes(packet)
        if wanted.size is not None:
            os.ftruncate(fd, wire.offset(wanted.size))
        if wanted.owner is not None:
            os.fchown(fd, *wanted.owner)
        if wanted.mode is not None:
            os.fchmod(fd, wanted.mode & 0o7777)
        if wanted.times is not None:
            os.utime(fd, wanted.times)
        return wire.DONE

    # --- names ---------------------------------------------------------------------------------------------------------

    def remove(self, packet: Packet) -> Answer:
        self._tree.remove_file(packet.path())
        return wire.DONE

    def make_directory(self, packet: Packet) -> Answer:
        path, wanted = packet.path(), Attributes(packet)
        self._tree.make_directory(path, 0o755 if wanted.mode is None else wanted.mode & 0o7777)
        return wire.DONE

    def remove_directory(self, packet: Packet) -> Answer:
        self._tree.remove_directory(packet.path())
        return wire.DONE

    def real_path(self, packet: Packet) -> Answer:
        """Lexically: what the links in it are may have changed before the answer is read."""
        plain = posixpath.normpath("/" + packet.path())
        return wire.path("/" + plain.lstrip("/"))

    def rename(self, packet: Packet) -> Answer:
        self._tree.rename(packet.path(), packet.path(), replace=False)
        return wire.DONE

    def read_link(self, packet: Packet) -> Answer:
        return wire.path(self._tree.read_link(packet.path()))

    def make_link(self, packet: Packet) -> Answer:
        """The target comes first, as every client has it since OpenSSH mixed up the draft's order."""
        target, path = os.fsdecode(packet.string()), packet.path()
        self._tree.make_link(path, target)
        return wire.DONE

    # --- extensions ----------------------------------------------------------------------------------------------------

    def extended(self, packet: Packet) -> Answer:
        match packet.string():
            case b"posix-rename@openssh.com":
                self._tree.rename(packet.path(), packet.path(), replace=True)
            case b"hardlink@openssh.com":
                source, path = packet.path(), packet.path()
                self._tree.make_name(path, source)
            case b"fsync@openssh.com":
                os.fsync(self._file(packet).fd)
            case b"statvfs@openssh.com":
                return wire.filesystem(self._tree.statvfs(packet.path()))
            case b"limits@openssh.com":
                return wire.EXTENDED_REPLY, struct.pack(">4Q", wire.MAX_PACKET, MAX_DATA, MAX_DATA, MAX_HANDLES)
            case _:
                return wire.status(wire.UNSUPPORTED)
        return wire.DONE


_REQUESTS: dict[int, Callable[[Server, Packet], Answer]] = {
    3: Server.open,
    4: Server.close_handle,
    5: Server.read,
    6: Server.write,
    7: Server.lstat,
    8: Server.fstat,
    9: Server.set_attributes,
    10: Server.set_file_attributes,
    11: Server.open_directory,
    12: Server.read_directory,
    13: Server.remove,
    14: Server.make_directory,
    15: Server.remove_directory,
    16: Server.real_path,
    17: Server.stat,
    18: Server.rename,
    19: Server.read_link,
    20: Server.make_link,
    200: Server.extended,
}


def _next_packet(packets: BinaryIO) -> tuple[int, Packet]:
    """The next packet's type and fields. EOFError at the end, BadMessage for one that is cut off or too large."""
    head = packets.read(5)
    if not head:
        raise EOFError
    if len(head) < 5:
        raise BadMessage
    size, kind = struct.unpack(">IB", head)
    if not 1 <= size <= wire.MAX_PACKET:
        raise BadMessage
    body = packets.read(size - 1)
    if len(body) < size - 1:
        raise BadMessage
    return kind, Packet(body)
