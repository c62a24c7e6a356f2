"""Names of system calls, from libseccomp, which liblxc stands on."""

from __future__ import annotations

import ctypes
import functools

from atoll.domain.errors import Unsupported

_AUDIT_ARCH = {"x86": 0x40000003, "x86_64": 0xC000003E}
_HIGHEST = 600


@functools.cache
def syscalls(architecture: str) -> tuple[str, ...]:
    """All that libseccomp knows of an architecture (`x86`, `x86_64`). Unsupported if the library is not there."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise Unsupported("The library libseccomp is not there", hint="install the package 'libseccomp2'") from error
    resolve = library.seccomp_syscall_resolve_num_arch
    resolve.argtypes, resolve.restype = (ctypes.c_uint32, ctypes.c_int), ctypes.c_void_p
    free = ctypes.CDLL(None).free
    free.argtypes, free.restype = (ctypes.c_void_p,), None
    names = []
    for number in range(_HIGHEST):
        address = resolve(_AUDIT_ARCH[architecture], number)
        if address:
            names.append(ctypes.string_at(address).decode("ascii"))
            free(address)
    return tuple(names)
