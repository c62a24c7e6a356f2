"""The PROXY protocol: what heads say, what breaks them, and that nothing after them is touched."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct

import pytest

from atoll.host import proxy_protocol
from atoll.host.proxy_protocol import LONGEST_BLOCK, SIGNATURE, Malformed

CLIENT, CLIENT6 = "203.0.113.7", "2001:db8::7"
HELLO = b"\x16\x03\x01 the client's first byte"
IPV4, IPV6, UNIX, UNSPECIFIED = 0x11, 0x21, 0x31, 0x00
LOCAL, PROXY = 0x20, 0x21


def block(client: str) -> bytes:
    """Addresses and ports of version 2."""
    address = ipaddress.ip_address(client).packed
    return address + b"\0" * len(address) + struct.pack(">HH", 1234, 443)


def head(command: int, family: int, content: bytes, *, size: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(content) if size is None else size) + content


GOOD = {
    "1, IPv4": (f"PROXY TCP4 {CLIENT} 127.0.0.1 1234 443\r\n".encode(), CLIENT),
    "1, IPv6": (f"PROXY TCP6 {CLIENT6} ::1 1234 443\r\n".encode(), CLIENT6),
    "1, unknown": (b"PROXY UNKNOWN\r\n", ""),
    "1, unknown with addresses": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", ""),
    "1, as long as can be": (b"PROXY UNKNOWN".ljust(105) + b"\r\n", ""),
    "2, IPv4": (head(PROXY, IPV4, block(CLIENT)), CLIENT),
    "2, IPv6": (head(PROXY, IPV6, block(CLIENT6)), CLIENT6),
    "2, additions": (head(PROXY, IPV4, block(CLIENT) + b"\x03\x00\x04abcd"), CLIENT),
    "2, local": (head(LOCAL, UNSPECIFIED, b""), ""),
    "2, local with addresses": (head(LOCAL, IPV4, block(CLIENT)), ""),
    "2, unix": (head(PROXY, UNIX, b"a" * 216), ""),
    "2, unspecified": (head(PROXY, UNSPECIFIED, b""), ""),
    "none": (b"", ""),
}

BAD = {
    "1, not this protocol": b"PROXX TCP4 203.0.113.7 127.0.0.1 1234 443\r\n",
    "1, nothing said": b"PROXY\r\n",
    "1, other family": f"PROXY TCP5 {CLIENT} 127.0.0.1 1 2\r\n".encode(),
    "1, address of the other family": f"PROXY TCP4 {CLIENT6} ::1 1 2\r\n".encode(),
    "1, no address": b"PROXY TCP4 localhost 127.0.0.1 1 2\r\n",
    "1, a port too many": f"PROXY TCP4 {CLIENT} 127.0.0.1 1 2 3\r\n".encode(),
    "1, a port too high": f"PROXY TCP4 {CLIENT} 127.0.0.1 1 65536\r\n".encode(),
    "1, a port below zero": f"PROXY TCP4 {CLIENT} 127.0.0.1 -1 2\r\n".encode(),
    "1, two spaces": f"PROXY  TCP4 {CLIENT} 127.0.0.1 1 2\r\n".encode(),
    "1, half a line end": b"PROXY UNKNOWN\n",
    "1, no line end": b"PROXY TCP4 " + b"1" * 200,
    "1, too long by a byte": b"PROXY UNKNOWN".ljust(106) + b"\r\n",
    "1, cut off": b"PROXY TCP4 203.0.113.7 12",
    "2, other signature": SIGNATURE[:-1] + b"X" + bytes([PROXY, IPV4]) + b"\0\x0c" + block(CLIENT),
    "2, other version": head(0x11, IPV4, block(CLIENT)),
    "2, other command": head(0x22, IPV4, block(CLIENT)),
    "2, without its addresses": head(PROXY, IPV4, block(CLIENT)[:8]),
    "2, IPv6 in the space of IPv4": head(PROXY, IPV6, block(CLIENT)),
    "2, too long": head(PROXY, IPV4, b"", size=LONGEST_BLOCK + 1),
    "2, cut off": head(PROXY, IPV4, block(CLIENT))[:-1],
}


async def peel(*pieces: bytes) -> tuple[str, bytes]:
    """(the client's address, what is left), of a connection that brings those pieces one after the other and ends."""
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        peeling = asyncio.create_task(proxy_protocol.peel(near))
        for piece in pieces:
            far.sendall(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        far.shutdown(socket.SHUT_WR)
        client = await asyncio.wait_for(peeling, 30)
        near.setblocking(True)
        return client, near.recv(1 << 16)


@pytest.mark.parametrize("name", GOOD)
async def test_the_client_is_told_and_the_rest_left(name: str) -> None:
    data, client = GOOD[name]
    assert await peel(data + HELLO) == (client, HELLO)


@pytest.mark.parametrize("name", [name for name, (data, _) in GOOD.items() if data])
async def test_a_head_in_single_bytes(name: str) -> None:
    data, client = GOOD[name]
    assert await peel(*(data[at : at + 1] for at in range(len(data))), HELLO) == (client, HELLO)


@pytest.mark.parametrize("name", BAD)
async def test_a_broken_head_is_refused(name: str) -> None:
    with pytest.raises(Malformed):
        await peel(BAD[name])


async def test_a_silent_peer_costs_nothing_and_can_be_given_up() -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        far.sendall(b"PROXY TCP4 ")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await proxy_protocol.peel(near)
        assert not asyncio.get_running_loop().remove_reader(near.fileno()), "nobody waits any more"
