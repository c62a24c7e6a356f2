"""`file mount`: an instance's files as a local directory, by sshfs, or for any SFTP client (see `file_listen`).

The server speaks bare SFTP on a connection of its own: what sshfs or a client says is carried there as it is.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading

from atoll.cli.commands import files
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call
    from atoll.client.http1 import Stream
    from atoll.client.server import Server

CHUNK = 1 << 18


def mount(call: Call) -> None:
    """Mount, or listen, until Ctrl-C."""
    words, flags = call.arguments, call.flags
    server, name = call.required(words[0], "instance name")
    instance, _, path = name.partition("/")
    if len(words) == 1:
        if path:
            raise CommandError("Instance path cannot be used in SSH SFTP listener mode")
        from atoll.cli.commands import file_listen

        file_listen.listen(call, server, instance)
        return
    if flags.text("listen"):
        raise CommandError("Target path and --listen flag cannot be used together")
    target = words[1]
    if not os.path.isdir(target):
        os.stat(target)  # which tells so where there is nothing
        raise CommandError("Target path must be a directory")
    _mount(call, server, instance, files.place(call, words[0], "path").path if path else "/", target)


def connect(server: Server, instance: str) -> socket.socket:
    """A local socket on whose other end the instance's files are served by SFTP; threads carry what is said."""
    stream = server.upgrade(url("instances", instance, "sftp"), "sftp")
    ours, theirs = socket.socketpair()
    threading.Thread(target=_carry, args=(stream, theirs), daemon=True).start()
    threading.Thread(target=_carry, args=(theirs, stream), daemon=True).start()
    return ours


def _carry(source: Stream | socket.socket, target: Stream | socket.socket) -> None:
    """One way, until either end is closed; then both are shut, which ends the other way."""
    try:
        while data := source.recv(CHUNK):
            target.sendall(data)
    except OSError:
        pass  # the other way has ended it
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was shut already


def _mount(call: Call, server: Server, instance: str, path: str, target: str) -> None:
    with connect(server, instance) as connection:
        command = ["sshfs", "-f", "-o", "slave", f"{instance}:{path}", target]
        try:
            mounted = subprocess.Popen(command, stdin=connection.fileno(), stdout=connection.fileno())
        except FileNotFoundError as error:
            raise CommandError("sshfs not found. Try SSH SFTP mode using the --listen flag") from error
    call.say(f"sshfs mounting {instance}{path} on {target}")
    call.say("Press ctrl+c to finish")
    try:
        status = mounted.wait()
    except KeyboardInterrupt:
        status = mounted.wait()  # it heard of it as well, and unmounts
    if status:
        raise CommandError(f"sshfs failed: exit status {status}")
    call.say("sshfs has stopped")
