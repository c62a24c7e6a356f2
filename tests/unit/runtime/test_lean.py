"""What the daemon's imports do not read."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from atoll.runtime import lean

COUNT = "from aiohttp import connector; print(len(connector._SSL_CONTEXT_VERIFIED.get_ca_certs()))"
LEAN = f"from atoll.runtime import lean\nwith lean.imports():\n    {COUNT}"


def test_aiohttp_is_imported_without_the_authorities_of_the_host() -> None:
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_the_library_of_c_plus_plus_is_not_needed() -> None:
    script = f"{LEAN}\nprint(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "/libc." in done.stdout
    assert "libstdc++" not in done.stdout


def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/its/own")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with lean.imports():
        assert os.environ["SSL_CERT_FILE"] == os.devnull
    assert os.environ["SSL_CERT_FILE"] == "/its/own"
    assert "SSL_CERT_DIR" not in os.environ
