"""Where the local server listens."""

from __future__ import annotations

import os

DEFAULT_SOCKET = "/var/lib/atoll/unix.socket"


def local_socket(environment: dict[str, str] | os._Environ[str] = os.environ) -> str:
    """The unix socket of the local server: ATOLL_SOCKET, ATOLL_DIR, then what LXD's client would use, then the default."""
    if environment.get("ATOLL_SOCKET"):
        return environment["ATOLL_SOCKET"]
    if environment.get("ATOLL_DIR"):
        return environment["ATOLL_DIR"].rstrip("/") + "/unix.socket"
    if environment.get("LXD_SOCKET"):
        return environment["LXD_SOCKET"]
    if environment.get("LXD_DIR"):
        return environment["LXD_DIR"].rstrip("/") + "/unix.socket"
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
