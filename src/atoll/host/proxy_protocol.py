"""The PROXY protocol, versions 1 and 2: what a proxy says ahead of its client's first byte, to tell who the client is.

The head is taken off the socket to the byte, so that TLS can begin on the same socket afterwards as if nothing had been there.
https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""What version 2 begins with."""

LONGEST_LINE = 107
"""Bytes of a head of version 1, its line end included."""

LONGEST_BLOCK = 4096
"""Bytes of addresses and additions in version 2. The specification asks for 216 at least; additions hold names and ids."""

_FIXED = struct.Struct(">12sBBH")
_FAMILIES = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}
_ADDRESS_BYTES = {0x1: 4, 0x2: 16}
_LOCAL, _PROXY = 0, 1


class Malformed(ValueError):
    """A head that breaks the specification: the connection is not to be used."""


async def peel(sock: socket.socket) -> str:
    """Take the head off a connection that has just been accepted, and does not block; the client's address is in it.

    "" when there is no head, or one that names no address (the proxy's own checks): then the connection is its peer's own.
    Malformed for one that is broken, cut off or too long. Waits as long as the peer takes: limit the time.
    """
    first = await _peek(sock, 1)
    if first == b"P":
        return parse_line(await _line(sock))
    if first == SIGNATURE[:1]:
        head = await _exactly(sock, _FIXED.size)
        command, family, size = parse_fixed(head)
        return parse_block(command, family, await _exactly(sock, size))
    return ""


def parse_line(line: bytes) -> str:
    """The client's address in a head of version 1; "" for UNKNOWN."""
    words = line.removesuffix(b"\r\n").decode("ascii", "replace").split(" ")
    if not line.endswith(b"\r\n") or words[0] != "PROXY" or len(words) < 2:
        raise Malformed("no PROXY line")
    if words[1] == "UNKNOWN":
        return ""
    family = _FAMILIES.get(words[1])
    if family is None or len(words) != 6 or not all(_is_port(word) for word in words[4:]):
        raise Malformed("a PROXY line with other parts than two addresses and two ports")
    try:
        client, _ = family(words[2]), family(words[3])
    except ValueError as error:
        raise Malformed("a PROXY line with an invalid address") from error
    return str(client)


def parse_fixed(head: bytes) -> tuple[int, int, int]:
    """(command, address family, bytes that follow) of a head of version 2."""
    signature, command, family, size = _FIXED.unpack(head)
    if signature != SIGNATURE or command >> 4 != 2 or command & 0xF not in (_LOCAL, _PROXY):
        raise Malformed("a PROXY head of no known version or command")
    if size > LONGEST_BLOCK:
        raise Malformed("a PROXY head that is too long")
    return command & 0xF, family >> 4, size


def parse_block(command: int, family: int, block: bytes) -> str:
    """The client's address in what follows a head of version 2; "" for LOCAL and for families that have no IP address."""
    size = _ADDRESS_BYTES.get(family)
    if command == _LOCAL or size is None:
        return ""
    if len(block) < 2 * size + 4:
        raise Malformed("a PROXY head without its addresses")
    return str(ipaddress.ip_address(block[:size]))


def _is_port(word: str) -> bool:
    return word.isdecimal() and word.isascii() and len(word) <= 5 and int(word) <= 65535


async def _line(sock: socket.socket) -> bytes:
    """Up to the first line end, and not a byte more: what follows is TLS."""
    line = b""
    while not line.endswith(b"\n"):
        if len(line) >= LONGEST_LINE:
            raise Malformed("a PROXY line that is too long")
        seen = await _peek(sock, LONGEST_LINE - len(line))
        line += sock.recv(seen.find(b"\n") + 1 or len(seen))
    return line


async def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        seen = await _peek(sock, size - len(found))
        found += sock.recv(len(seen))
    return found


async def _peek(sock: socket.socket, size: int) -> bytes:
    """What is there, at least a byte, without taking it. Malformed when the peer has ended."""
    while True:
        try:
            seen = sock.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            await _readable(sock)
            continue
        if not seen:
            raise Malformed("the connection ended within the head")
        return seen


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock.fileno())
