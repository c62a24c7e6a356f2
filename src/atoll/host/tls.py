"""The server's side of TLS: a client certificate is asked for and any is accepted.

Whether a client is trusted, its certificate's dates included, is decided afterwards by the trust store: an unknown client has
to get in to be able to show a token or a password. Python's `ssl` knows only "no certificate" and "a certificate of these
authorities", so OpenSSL's own verification is replaced through ctypes by one that says yes.
"""

from __future__ import annotations

import ctypes
import logging
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll.domain.errors import BadRequest, HostError, Unsupported
from atoll.host import process, x509
from atoll.host.threads import in_thread
from atoll.host.x509 import ServerFiles

log = logging.getLogger(__name__)

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else."""

_SOURCE_ROOT = str(Path(__file__).resolve().parents[2])
_MAKE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from atoll.host import process, x509
x509.ensure_server_files(x509.ServerFiles(Path(sys.argv[2]), Path(sys.argv[3])))
"""

_VerifyCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


_ACCEPT = _VerifyCallback(lambda store_context, argument: 1)
"""Lives as long as the process: OpenSSL keeps its address."""


class _OpenSsl:
    """The functions needed of the very libssl that Python's `ssl` uses; another copy could not read its objects."""

    def __init__(self) -> None:
        import _ssl

        path = getattr(_ssl, "__file__", None)
        if sys.implementation.name != "cpython" or path is None:
            raise Unsupported(
                "This Python has OpenSSL built in, so the HTTPS listener cannot ask for client certificates",
                hint="run the daemon with the distribution's Python",
            )
        library = ctypes.CDLL(path)
        self.get_options = self._function(library.SSL_CTX_get_options, ctypes.c_uint64, ctypes.c_void_p)
        self.get_verify_mode = self._function(library.SSL_CTX_get_verify_mode, ctypes.c_int, ctypes.c_void_p)
        self.set_callback = self._function(
            library.SSL_CTX_set_cert_verify_callback, None, ctypes.c_void_p, _VerifyCallback, ctypes.c_void_p
        )

    @staticmethod
    def _function(function: Any, result: Any, *arguments: Any) -> Callable[..., Any]:
        function.restype, function.argtypes = result, arguments
        found: Callable[..., Any] = function
        return found

    def pointer(self, context: ssl.SSLContext) -> int:
        """The `SSL_CTX *` of a context: the first field behind the object's head. Unsupported where that does not hold."""
        address = id(context) + object.__basicsize__
        pointer = ctypes.c_void_p.from_address(address).value
        if pointer is None or not self._is_the_one(context, pointer):
            raise Unsupported("This Python's ssl module is laid out in a way that Atoll does not know")
        return pointer

    def _is_the_one(self, context: ssl.SSLContext, pointer: int) -> bool:
        """Whether what is done to the context shows at the pointer."""
        mask = (1 << 64) - 1
        if self.get_options(pointer) & mask != int(context.options) & mask:
            return False
        before, seen = context.verify_mode, []
        for mode in (ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED):
            context.verify_mode = mode
            seen.append(self.get_verify_mode(pointer))
        context.verify_mode = before
        return seen == [0, 1, 3]


def server_context(files: ServerFiles) -> ssl.SSLContext:
    """A context for listeners, with the server's certificate. Unsupported where client certificates cannot be asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(files.certificate, files.key)
    library = _OpenSsl()
    library.set_callback(library.pointer(context), _ACCEPT, None)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class ServerTls:
    """The server's certificate and the context that listeners share; a changed certificate is taken up in place.

    `certificate` (PEM) and `fingerprint` are of the certificate in use.
    """

    def __init__(self, files: ServerFiles) -> None:
        self._files = files
        self._context: ssl.SSLContext | None = None
        self._why_not = "The server certificate is not open"
        self.certificate = ""
        self.fingerprint = ""
        self._stamp: tuple[int, ...] = ()

    async def open(self) -> None:
        """Read the certificate, or make one if there is none. HostError if the one that is there cannot be used."""
        if not await in_thread(self._files.present):
            # Once in a server's life, in a process of its own: the library it needs would stay in memory for good.
            files = (str(self._files.certificate), str(self._files.key))
            await process.run([sys.executable, "-I", "-c", _MAKE, _SOURCE_ROOT, *files])
        await in_thread(self._open)

    def _open(self) -> None:
        try:
            self._read()
            self._context = server_context(self._files)
        except (OSError, BadRequest) as error:
            raise HostError(f"The server certificate {self._files.certificate} cannot be used: {error}") from error
        except Unsupported as error:
            # The local socket needs no TLS: only whoever wants to listen for HTTPS has to hear of this.
            self._why_not = str(error)

    @property
    def context(self) -> ssl.SSLContext:
        """For HTTPS listeners. Unsupported, with the reason, where this Python cannot ask for client certificates."""
        if self._context is None:
            raise Unsupported(self._why_not)
        return self._context

    async def reload_if_changed(self) -> bool:
        """Use a certificate that was put in place of ours; one that does not work is told in the log and left alone."""
        return await in_thread(self._reload)

    def _reload(self) -> bool:
        try:
            if self._files.stamp() == self._stamp or self._context is None:
                return False
            self._context.load_cert_chain(self._files.certificate, self._files.key)
            self._read()
        except (OSError, BadRequest) as error:  # ssl.SSLError is an OSError: a pair that does not match, or is half written
            log.warning("The new server certificate is not used: %s", error)
            return False
        return True

    def _read(self) -> None:
        stamp = self._files.stamp()
        pem = self._files.certificate.read_text()
        self.certificate, self.fingerprint = pem, x509.fingerprint(x509.to_der(pem))
        self._stamp = stamp
