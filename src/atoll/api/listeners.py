"""Where the API is listened for: the unix socket and the HTTPS address, and who a connection is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

from aiohttp import web

from atoll.config import netvalues
from atoll.config.netvalues import Listen
from atoll.domain.caller import NOBODY, Caller, Protocol
from atoll.domain.errors import AtollError, BadRequest, Conflict, HostError
from atoll.domain.paths import Paths
from atoll.host import x509
from atoll.host.threads import in_thread
from atoll.host.tls import ServerTls
from atoll.services.server import DEFAULT_PORT, join
from atoll.services.settings import Changes, SettingsService
from atoll.services.trust import Peer, TrustStore

log = logging.getLogger(__name__)

HTTPS_ADDRESS = "core.https_address"

BACKLOG = 1024
HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 60.0
"""How long a connection may take to bring its next whole request head; a slow one is closed as an idle one is."""

LONGEST_LINE = 16 * 1024
"""Bytes of a request line or of one header."""

SHUTDOWN_SECONDS = 5.0

_WATCH_SECONDS = 30.0
_UCRED = struct.Struct("3i")


class Listeners:
    """The listeners of one daemon. `authenticate` is for `dispatch.build`; `start` takes the application made with it.

    The HTTPS listener follows core.https_address: a change is refused when its address cannot be listened on, and the listener
    that was there goes on.
    """

    def __init__(self, paths: Paths, settings: SettingsService, tls: ServerTls, trust: TrustStore) -> None:
        self._paths = paths
        self._settings = settings
        self._tls = tls
        self._trust = trust
        self._runner: web.AppRunner | None = None
        self._unix: asyncio.Server | None = None
        self._https: list[asyncio.Server] = []
        self._watch: asyncio.Task[None] | None = None
        self._peers: WeakKeyDictionary[ssl.SSLObject, Peer] = WeakKeyDictionary()
        settings.around_change(HTTPS_ADDRESS, self._change)

    # --- who it is -----------------------------------------------------------------------------------------------------

    def authenticate(self, raw: web.Request) -> Caller:
        """Who sent a request: root's equal by the unix socket, by TLS whom the trust store says."""
        transport = raw.transport
        if transport is None:
            return NOBODY
        session = transport.get_extra_info("ssl_object")
        if session is not None:
            peername = transport.get_extra_info("peername") or ("",)
            return self._trust.caller(self._peer(session), address=str(peername[0]), path=raw.path)
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
        """The connection's certificate, looked at once."""
        peer = self._peers.get(session)
        if peer is None:
            der = session.getpeercert(binary_form=True)
            if der is None:
                return None
            validity = x509.validity_of_peer(session.getpeercert())
            peer = self._peers[session] = Peer(der, x509.fingerprint(der), validity, self._trust.accepts(der))
        return peer

    # --- life ----------------------------------------------------------------------------------------------------------

    async def start(self, app: web.Application, *, group: str) -> None:
        """Listen on the unix socket, and on the HTTPS address if there is one.

        An HTTPS address that cannot be listened on now is told in the log: without the local socket nobody could mend it.
        """
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=2.0,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        await self._runner.setup()
        self._unix = await self._listen_unix(self._paths.socket, group)
        listen: Listen | None = self._settings.get(HTTPS_ADDRESS)
        if listen is not None:
            await self._listen_or_tell(listen)
        self._watch = asyncio.create_task(self._watch_certificate(), name="server certificate watch")

    async def stop(self) -> None:
        """Take no more connections, let requests under way end within seconds, close all."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        _close(self._https)
        self._https = []
        if self._unix is not None:
            _close([self._unix])
            self._unix = None
            self._paths.socket.unlink(missing_ok=True)

    async def _watch_certificate(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            await self._tls.reload_if_changed()

    # --- unix ----------------------------------------------------------------------------------------------------------

    async def _listen_unix(self, path: Path, group: str) -> asyncio.Server:
        sock = await in_thread(_bind_unix, path, group)
        return await asyncio.get_running_loop().create_unix_server(self._factory, sock=sock, backlog=BACKLOG)

    @property
    def _factory(self) -> web.Server:
        if self._runner is None or self._runner.server is None:
            raise HostError("The listeners are not started")
        return self._runner.server

    # --- HTTPS ---------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _change(self, changes: Changes) -> AsyncIterator[None]:
        """Listen on the new address before the change is in force; on the old one again when it does not come to that."""
        if self._runner is None:  # before the start: that reads what is in force
            yield
            return
        text = changes[HTTPS_ADDRESS]
        before: Listen | None = self._settings.get(HTTPS_ADDRESS)
        after = _parse(text) if text else None
        # Two sockets cannot share a port when one of them is for all addresses: then the old one makes room first.
        if before is not None and after is not None and _port(before) == _port(after):
            _close(self._https)
            self._https = []
        opened: list[asyncio.Server] = []
        try:
            if after is not None:
                opened = await self._listen_https(after)
            yield
        except BaseException:
            _close(opened)
            if before is not None and not self._https:
                await self._listen_or_tell(before)
            raise
        _close(self._https)
        self._https = opened

    async def _listen_or_tell(self, listen: Listen) -> None:
        """Listen where the configuration says; a failure is told in the log, since nobody is there who could mend it."""
        try:
            self._https = await self._listen_https(listen)
        except AtollError as error:
            log.error("Cannot listen on %s: %s", HTTPS_ADDRESS, error)

    async def _listen_https(self, listen: Listen) -> list[asyncio.Server]:
        """Listen there. BadRequest if that is not possible."""
        servers: list[asyncio.Server] = []
        try:
            for sock in await in_thread(_bind_tcp, listen):
                servers.append(await self._serve_https(sock))
        except OSError as error:
            _close(servers)
            where = join(listen.host, _port(listen))
            raise BadRequest(f"Cannot listen on https address {where!r}: {error.strerror or error}") from error
        return servers

    async def _serve_https(self, sock: socket.socket) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            self._factory,
            sock=sock,
            ssl=self._tls.context,
            backlog=BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=5.0,
        )


def _parse(text: str) -> Listen:
    listen: Listen = netvalues.LISTEN.read(text)
    return listen


def _port(listen: Listen) -> int:
    return listen.port or DEFAULT_PORT


def _close(servers: list[asyncio.Server]) -> None:
    """Stop listening; not waited for, because newer Pythons wait for every open connection too."""
    for server in servers:
        server.close()


@lru_cache(maxsize=256)
def _user_name(uid: int) -> str:
    """The name of a local user; asked of the system once each, for it may be slow."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _bind_unix(path: Path, group: str) -> socket.socket:
    """A socket of mode 0660 and that group (if the host has it) at the path; a left-over of a dead daemon is replaced."""
    if path.is_socket() and _answers(path):
        raise Conflict(f"Another daemon is running: {path} answers")
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Bound aside: the socket is never reachable with other rights than its final ones.
        sock.bind(str(aside))
        aside.chmod(0o660)
        with contextlib.suppress(KeyError):
            os.chown(aside, -1, grp.getgrnam(group).gr_gid)
        sock.listen(BACKLOG)
        aside.replace(path)
    except OSError as error:
        sock.close()
        raise HostError(f"Cannot listen on {path}: {error.strerror or error}") from error
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.ETIMEDOUT)  # its queue is full: it lives, but is busy
    return True


def _bind_tcp(listen: Listen) -> list[socket.socket]:
    """A listening socket for each address of the host part; "" and "::" are one socket for both families."""
    host = listen.host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")
    found = socket.getaddrinfo(host, _port(listen), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            dual = host == "::" and socket.has_dualstack_ipv6()
            bound.append(socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=dual))
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound
