"""Files of a simulated machine: the worker that a real one gets, as a thread of this process."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from atoll.host import file_worker
from atoll.host.file_session import FileSession
from atoll.host.file_tree import Tree


def start(root: Path) -> FileSession:
    """A session on that folder. Nothing can kill a thread: it ends when the session's link does. Blocks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    descriptors = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def serve() -> None:
        try:
            file_worker.serve(theirs, Tree(top, descriptors))
        finally:
            os.close(top)
            os.close(descriptors)

    threading.Thread(target=serve, name="atoll-sim-files", daemon=True).start()
    return FileSession(ours)
