"""`file mount` without a target: an SSH server that serves an instance's files to SFTP clients.

asyncssh costs 200 ms to import, which only this command pays.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import string
from typing import Any

import asyncssh

from atoll.cli.commands import file_mount
from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call
    from atoll.client.server import Server

DEFAULT_ADDRESS = "127.0.0.1:0"


def listen(call: Call, server: Server, instance: str) -> None:
    """Serve until Ctrl-C."""
    flags = call.flags
    if flags.on("no-auth") and flags.text("auth-user"):
        raise CommandError("--no-auth and --auth-user cannot be used together")
    user = "" if flags.on("no-auth") else flags.text("auth-user") or _random(8)
    host, port = _address(flags.text("listen") or DEFAULT_ADDRESS)
    file_mount.connect(server, instance).close()  # an instance that is not there is told now
    asyncio.run(_serve(server, instance, host, port, user, _random(16) if user else ""))


def _random(size: int) -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(size))


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise CommandError(f"Invalid address: {text}")
    return host.strip("[]"), int(port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _serve(server: Server, instance: str, host: str, port: int, user: str, password: str) -> None:
    listener = await asyncssh.listen(
        host,
        port,
        server_factory=lambda: _Door(server, instance, user, password),
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        encoding=None,
        allow_pty=False,
    )
    print(f"SSH SFTP listening on {_join(*listener.get_addresses()[0][:2])}", flush=True)
    if user:
        print(f'Login with username "{user}" and password "{password}"', flush=True)
    else:
        print("Login without username and password", flush=True)
    await listener.wait_closed()


class _Door(asyncssh.SSHServer):
    """One SSH connection: lets in whoever knows the user's name and password, or everybody without a user."""

    def __init__(self, server: Server, instance: str, user: str, password: str) -> None:
        self._server = server
        self._instance = instance
        self._user = user
        self._password = password
        self._peer = ""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._peer = _join(*conn.get_extra_info("peername")[:2])
        print(f'SSH client connected "{self._peer}"', flush=True)

    def connection_lost(self, exc: Exception | None) -> None:
        print(f'SSH client disconnected "{self._peer}"', flush=True)

    def begin_auth(self, username: str) -> bool:
        return bool(self._user)

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        known = hmac.compare_digest(username.encode(), self._user.encode())
        return hmac.compare_digest(password.encode(), self._password.encode()) and known

    def session_requested(self) -> _Session:
        return _Session(self._server, self._instance)


class _Session(asyncssh.SSHServerSession[bytes]):
    """One session of a client: its subsystem sftp is the instance's, and there is nothing else."""

    def __init__(self, server: Server, instance: str) -> None:
        self._server = server
        self._instance = instance
        self._channel: Any = None
        self._reader = asyncio.StreamReader()
        self._writable = asyncio.Event()
        self._writable.set()
        self._work: asyncio.Task[None] | None = None

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def session_started(self) -> None:
        self._work = asyncio.create_task(self._carry())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._reader.feed_data(data)

    def eof_received(self) -> bool:
        self._reader.feed_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.feed_eof()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def _carry(self) -> None:
        """Between the client and the instance, until either ends."""
        try:
            connection = await asyncio.to_thread(file_mount.connect, self._server, self._instance)
            reader, writer = await asyncio.open_connection(sock=connection)
            outward = asyncio.create_task(self._carry_out(reader))
            while data := await self._reader.read(file_mount.CHUNK):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
            await outward
            writer.close()
        finally:
            self._channel.exit(0)

    async def _carry_out(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(file_mount.CHUNK):
            self._channel.write(data)
            await self._writable.wait()
        self._reader.feed_eof()
