"""Hashing of passwords. Both functions take about 50 ms and 16 MiB: call them in a thread, one at a time."""

from __future__ import annotations

import hashlib
import hmac
import os

_SALT, _KEY = 32, 64
_COST, _BLOCK, _PARALLEL = 1 << 14, 8, 1


def make_hash(password: str) -> str:
    """Salt and scrypt hash in hexadecimal, the form that LXD stores."""
    salt = os.urandom(_SALT)
    return (salt + _derive(password, salt)).hex()


def verify(stored: str, password: str) -> bool:
    """Whether the password is the hashed one; takes as long whatever the answer. False for what is not a hash."""
    try:
        data = bytes.fromhex(stored)
    except ValueError:
        data = b""
    well_formed = len(data) == _SALT + _KEY
    salt, expected = (data[:_SALT], data[_SALT:]) if well_formed else (bytes(_SALT), bytes(_KEY))
    return hmac.compare_digest(expected, _derive(password, salt)) and well_formed


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, dklen=_KEY, maxmem=64 << 20)
