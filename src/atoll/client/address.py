"""Where the local server listens."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_SOCKET = "/var/lib/atoll/unix.socket"


def variable(name: str) -> str:
    """An environment variable as this process got it; empty where there is none. `os.environ` costs 2 ms to import."""
    return posix.environ.get(name.encode(), b"").decode(errors="surrogateescape")


def local_socket(variable: Callable[[str], str] = variable) -> str:
    """The unix socket of the local server: ATOLL_SOCKET, ATOLL_DIR, then what LXD's client would use, then the default."""
    for program in ("ATOLL", "LXD"):
        if path := variable(f"{program}_SOCKET"):
            return path
        if folder := variable(f"{program}_DIR"):
            return folder.rstrip("/") + "/unix.socket"
    return DEFAULT_SOCKET


def quote(text: str) -> str:
    """Percent-encode everything but unreserved characters, for a URL segment or a query value."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    raw = text.encode()
    if not raw.strip(plain):
        return text
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in raw)


def url(*segments: str, **query: str) -> str:
    """A path below /1.0, every segment quoted; query values that are empty are left out.

    Underscores in query names stand for hyphens: url("instances", all_projects="true").
    """
    path = "/".join(["/1.0", *map(quote, segments)])
    pairs = "&".join(f"{name.replace('_', '-')}={quote(value)}" for name, value in query.items() if value)
    return f"{path}?{pairs}" if pairs else path
