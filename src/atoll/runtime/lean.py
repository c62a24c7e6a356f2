"""Memory that the daemon does not need and so should not keep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_AUTHORITIES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
"""Where OpenSSL looks for them before it looks where it was built to."""


@contextmanager
def without_authorities() -> Iterator[None]:
    """For imports: aiohttp makes a TLS context as it is imported, with all authorities that the host knows, 2 MB that stay. It is
    for connections without a context of their own, which the daemon never makes."""
    before = {name: os.environ.get(name) for name in _AUTHORITIES}
    os.environ.update(_AUTHORITIES)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
