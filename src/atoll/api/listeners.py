"""Where the API is listened for: the unix socket, the HTTPS address and the address of metrics."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from atoll.api import peers
from atoll.api.serving import Serving
from atoll.api.tls_listener import BACKLOG, Terms, TlsListener
from atoll.config import netvalues
from atoll.config.netvalues import Listen
from atoll.domain.caller import Caller
from atoll.domain.errors import Conflict, HostError
from atoll.domain.paths import Paths
from atoll.host.threads import in_thread
from atoll.host.tls import ServerTls
from atoll.services.server import DEFAULT_PORT
from atoll.services.settings import Changes, SettingsService
from atoll.services.trust import TrustStore

HTTPS_ADDRESS = "core.https_address"
METRICS_ADDRESS = "core.metrics_address"
TRUSTED_PROXY = "core.https_trusted_proxy"

METRICS_PORT = 9100

SHUTDOWN_SECONDS = 5.0

_WATCH_SECONDS = 5.0
_PART_SECONDS = 1.0


class Listeners:
    """The listeners of one daemon. `authenticate` is for `dispatch.build`; `start` takes the applications made with it.

    Each TLS listener follows the key of its address: a change is refused when the address cannot be listened on, and the
    listener that was there goes on.
    """

    def __init__(self, paths: Paths, settings: SettingsService, tls: ServerTls, trust: TrustStore) -> None:
        self._paths = paths
        self._settings = settings
        self._tls = tls
        self._trust = trust
        self._peers = peers.Peers(trust)
        self._proxies: frozenset[str] = frozenset()
        self._unix: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self._api, self._metrics = _serving(), _serving()
        self._https = TlsListener("https", DEFAULT_PORT, self._terms(self._api))
        self._metrics_https = TlsListener("metrics", METRICS_PORT, self._terms(self._metrics))
        self._follow(HTTPS_ADDRESS, self._https)
        self._follow(METRICS_ADDRESS, self._metrics_https)
        settings.on_commit(self._read_proxies)
        settings.on_commit(self._part_soon)  # core.trust_ca_certificates may have been taken away
        trust.on_change(self._part_soon)

    def authenticate(self, raw: web.Request) -> Caller:
        """Who sent a request."""
        return self._peers.caller(raw)

    def certificate(self, raw: web.Request) -> bytes | None:
        """The certificate (DER) that a client showed, whether trusted or not."""
        return self._peers.certificate(raw)

    # --- life ----------------------------------------------------------------------------------------------------------

    async def start(self, app: web.Application, *, group: str, metrics: web.Application | None = None) -> None:
        """Listen on the unix socket, and on those TLS addresses that there are; `metrics` is served on the address of metrics.

        An address that cannot be listened on now is told in the log: without the local socket nobody could mend it.
        """
        await self._api.start(app)
        await self._metrics.start(metrics or web.Application())
        self._read_proxies()
        sock = await in_thread(_bind_unix, self._paths.socket, group)
        self._unix = await asyncio.get_running_loop().create_unix_server(self._api.server, sock=sock, backlog=BACKLOG)
        for key, listener in ((HTTPS_ADDRESS, self._https), (METRICS_ADDRESS, self._metrics_https)):
            listen: Listen | None = self._settings.get(key)
            if listen is not None:
                await listener.start(listen)
        self._watch = asyncio.create_task(self._watch_files(), name="watch on certificates")

    async def stop(self) -> None:
        """Take no more connections, let requests under way end within seconds, close all."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self.close()
        for serving in (self._api, self._metrics):
            await serving.stop()

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        self._https.close()
        self._metrics_https.close()
        if self._unix is not None:
            self._unix.close()  # not waited for, because newer Pythons wait for every open connection too
            self._unix = None
            self._paths.socket.unlink(missing_ok=True)

    # --- TLS -----------------------------------------------------------------------------------------------------------

    def _terms(self, serving: Serving) -> Terms:
        return Terms(lambda: self._tls.context, lambda: serving.server, self._is_proxy, self._peers.introduce)

    def _read_proxies(self) -> None:
        self._proxies = frozenset(str(each) for each in self._settings.get(TRUSTED_PROXY) or ())

    def _is_proxy(self, address: str) -> bool:
        return bool(self._proxies) and peers.plain_address(address) in self._proxies

    def _follow(self, key: str, listener: TlsListener) -> None:
        """Let a listener follow the key of its address."""

        @contextlib.asynccontextmanager
        async def around(changes: Changes) -> AsyncIterator[None]:
            """Listen on the new address before the change is in force; on the old one again when it does not come to that."""
            if not self._api.is_started:  # the start reads what is in force
                yield
                return
            move = await listener.move(_parse(changes[key]))
            try:
                yield
            except BaseException:
                await move.take_back()
                raise
            move.keep()

        self._settings.around_change(key, around)

    # --- trust ---------------------------------------------------------------------------------------------------------

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            await self._tls.reload_if_changed()
            await self._trust.reload_if_changed()

    def _part_soon(self) -> None:
        """After the answer to the very request that changed who is trusted."""
        asyncio.get_running_loop().call_later(_PART_SECONDS, self._part)

    def _part(self) -> None:
        """Close the connections whose certificate lost its rights: what streams over them would go on otherwise."""
        for serving in (self._api, self._metrics):
            for transport in serving.transports():
                session = transport.get_extra_info("ssl_object")
                if session is not None and self._peers.has_fallen(session):
                    transport.abort()


def _serving() -> Serving:
    return Serving(shutdown_seconds=SHUTDOWN_SECONDS, lingering_time=2.0)


def _parse(text: str) -> Listen | None:
    return netvalues.LISTEN.read(text) if text else None


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
