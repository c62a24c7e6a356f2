"""Listening for TLS: at an address that can change while others go on, and behind proxies that tell who their clients are."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll.config.netvalues import Listen
from atoll.domain.errors import AtollError, BadRequest
from atoll.host import proxy_protocol
from atoll.host.threads import in_thread
from atoll.services.server import join

log = logging.getLogger(__name__)

BACKLOG = 1024
HANDSHAKE_SECONDS = 10.0
"""For a handshake; for the head of a proxy before it, as long again."""

_SHUTDOWN_SECONDS = 5.0
_REST_SECONDS = 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Factory = Callable[[], asyncio.Protocol]


@dataclass(frozen=True, slots=True)
class Terms:
    """How connections are taken. All are asked anew for each connection."""

    context: Callable[[], ssl.SSLContext]
    factory: Callable[[], Factory]  # what serves a connection after its handshake
    is_proxy: Callable[[str], bool]  # whether an address may speak for its clients
    introduce: Callable[[ssl.SSLObject, str], None]  # told the client's address of a connection by such a proxy


class TlsListener:
    """Listens at one configured address; `what` names it in errors, `port` is that of an address without one."""

    def __init__(self, what: str, port: int, terms: Terms) -> None:
        self._what = what
        self._default_port = port
        self._terms = terms
        self._doors: list[_Door] = []
        self._address: Listen | None = None

    async def start(self, listen: Listen) -> None:
        """Listen where the configuration says; a failure is told in the log, since nobody is there who could mend it."""
        try:
            self._doors = await self._open(listen)
            self._address = listen
        except AtollError as error:
            log.error("Cannot listen on the %s address: %s", self._what, error)

    async def move(self, listen: Listen | None) -> Move:
        """Open the new address beside the old one; the answer is to be kept or taken back. BadRequest if it cannot be opened,
        and the old one is listened on as before."""
        before = self._address
        # Two sockets cannot share a port when one of them is for all addresses: then the old one makes room first.
        if before is not None and listen is not None and self._port(before) == self._port(listen):
            self.close()
        move = Move(self, before, listen)
        try:
            move.opened = await self._open(listen) if listen is not None else []
        except BaseException:
            await move.take_back()
            raise
        return move

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        _close(self._doors)
        self._doors = []

    async def _open(self, listen: Listen) -> list[_Door]:
        context = self._terms.context()  # before anything is bound: there may be none to be had
        try:
            sockets = await in_thread(_bind, listen.host, self._port(listen))
        except OSError as error:
            where = join(listen.host, self._port(listen))
            raise BadRequest(f"Cannot listen on {self._what} address {where!r}: {error.strerror or error}") from error
        return [_Door(sock, context, self._terms) for sock in sockets]

    def _port(self, listen: Listen) -> int:
        return listen.port or self._default_port

    def _settle(self, listen: Listen | None, doors: list[_Door]) -> None:
        self.close()
        self._doors, self._address = doors, listen

    @property
    def is_listening(self) -> bool:
        """Whether connections are taken."""
        return bool(self._doors)


class Move:
    """A change of a listener's address that is not settled yet."""

    def __init__(self, listener: TlsListener, before: Listen | None, after: Listen | None) -> None:
        self._listener = listener
        self._before = before
        self._after = after
        self.opened: list[_Door] = []

    def keep(self) -> None:
        """Listen on the new address only."""
        self._listener._settle(self._after, self.opened)

    async def take_back(self) -> None:
        """Listen on the old one only."""
        _close(self.opened)
        if self._before is not None and not self._listener.is_listening:
            await self._listener.start(self._before)


class _Door:
    """Accepts the connections of one listening socket and leads each through its handshake."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, terms: Terms) -> None:
        self._sock = sock
        self._context = context
        self._terms = terms
        self._loop = asyncio.get_running_loop()
        self._welcomes: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more; handshakes under way go on."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _accept(self) -> None:
        for _ in range(BACKLOG):
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("No connection can be accepted for a moment: %s", error)
                self._loop.remove_reader(self._sock.fileno())
                self._loop.call_later(_REST_SECONDS, self._accept_again)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._welcome(connection, str(address[0])))
            self._welcomes.add(task)
            task.add_done_callback(self._welcomes.discard)

    def _accept_again(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock.fileno(), self._accept)

    async def _welcome(self, connection: socket.socket, address: str) -> None:
        factory = self._terms.factory()
        try:
            if self._terms.is_proxy(address):
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    client = await proxy_protocol.peel(connection)
                if client:
                    factory = self._introduced(factory, client)
            await self._loop.connect_accepted_socket(
                factory,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except proxy_protocol.Malformed as error:
            log.warning("A connection of the proxy %s was closed: %s", address, error)
            connection.close()
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError; whoever gives up is nobody's fault here
            log.debug("No handshake with %s: %s", address, error)
            connection.close()
        except BaseException:
            connection.close()
            raise

    def _introduced(self, factory: Factory, client: str) -> Factory:
        return lambda: _Introduction(factory, lambda session: self._terms.introduce(session, client))


class _Introduction(asyncio.Protocol):
    """Tells who the client is before it can ask anything, then leaves the connection to what serves it."""

    def __init__(self, factory: Factory, introduce: Callable[[ssl.SSLObject], None]) -> None:
        self._factory = factory
        self._introduce = introduce

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._introduce(transport.get_extra_info("ssl_object"))
        server = self._factory()
        transport.set_protocol(server)
        server.connection_made(transport)


def _close(doors: Sequence[_Door]) -> None:
    for door in doors:
        door.close()


def _bind(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of the host part; "" and "::" are one socket for both families."""
    host = host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
