"""Who a connection is: by the unix socket a local user, by TLS the holder of a certificate."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import struct
from functools import lru_cache
from weakref import WeakKeyDictionary

from aiohttp import web

from atoll.domain.caller import NOBODY, Caller, Protocol
from atoll.host import x509
from atoll.services.trust import METRICS_PATH, Peer, TrustStore

_UCRED = struct.Struct("3i")


class Peers:
    """The peers of the open connections. Each certificate is read once, and asked about at every request."""

    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust
        self._known: WeakKeyDictionary[ssl.SSLObject, Peer] = WeakKeyDictionary()
        self._trusted: WeakKeyDictionary[ssl.SSLObject, Caller] = WeakKeyDictionary()
        self._introduced: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()

    def introduce(self, session: ssl.SSLObject, address: str) -> None:
        """The client of a connection, as the proxy that it comes through tells."""
        self._introduced[session] = address

    def caller(self, raw: web.Request) -> Caller:
        """Who sent a request: root's equal by the unix socket, by TLS whom the trust store says."""
        transport = raw.transport
        if transport is None:
            return NOBODY
        session = transport.get_extra_info("ssl_object")
        if session is not None:
            peername = transport.get_extra_info("peername") or ("",)
            address = self._introduced.get(session) or plain_address(str(peername[0]))
            caller = self._trust.caller(self._peer(session), address=address, path=raw.path)
            if caller.trusted:
                self._trusted[session] = caller
            return caller
        sock = transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return NOBODY
        _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return Caller(Protocol.UNIX, username=_user_name(uid), address="@", trusted=True)

    def certificate(self, raw: web.Request) -> bytes | None:
        """The certificate (DER) that a client showed, whether trusted or not."""
        session = raw.transport.get_extra_info("ssl_object") if raw.transport is not None else None
        peer = self._peer(session) if session is not None else None
        return None if peer is None else peer.der

    def _peer(self, session: ssl.SSLObject) -> Peer | None:
        peer = self._known.get(session)
        if peer is None:
            der = session.getpeercert(binary_form=True)
            if der is None:
                return None
            peer = self._known[session] = Peer(der, x509.fingerprint(der), x509.validity_of_peer(session.getpeercert()))
        return peer

    def has_fallen(self, session: ssl.SSLObject) -> bool:
        """Whether whoever holds the connection was trusted when it asked last, and would not be with the same rights now."""
        before, peer = self._trusted.get(session), self._known.get(session)
        if before is None or peer is None:
            return False
        return self._trust.caller(peer, address=before.address, path=METRICS_PATH) != before


def plain_address(text: str) -> str:
    """An IPv4 address as such, also where a socket of both families has it within an IPv6 one."""
    if not text.startswith("::ffff:"):
        return text
    mapped = ipaddress.IPv6Address(text.partition("%")[0]).ipv4_mapped
    return text if mapped is None else str(mapped)


@lru_cache(maxsize=256)
def _user_name(uid: int) -> str:
    """The name of a local user; asked of the system once each, for it may be slow."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
