"""Memory that the daemon does not need and so should not keep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_AUTHORITIES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
"""Where OpenSSL looks for them before it looks where it was built to."""

_PLAIN_LISTS = {"FROZENLIST_NO_EXTENSIONS": "1"}
"""What has frozenlist be Python."""


@contextmanager
def imports() -> Iterator[None]:
    """For those that bring aiohttp: it makes a TLS context with all authorities that the host knows, 2 MB that stay, for
    connections without a context of their own, which the daemon never makes; and its frozenlist brings the library of C++ along,
    1 MB, for a few lists that are filled once."""
    changes = _AUTHORITIES | _PLAIN_LISTS
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
