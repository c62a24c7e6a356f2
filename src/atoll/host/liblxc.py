"""liblxc's attach through ctypes. Used by the zygote alone, so this module imports next to nothing.

Only a prefix of `struct lxc_container` is declared, up to `attach`: it is the same in liblxc 4, 5 and 6, where new members
have only been appended. The same holds for `lxc_attach_options_t`; the tail below is larger than any version reads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

_POINTERS = [
    "is_defined",
    "state",
    "is_running",
    "freeze",
    "unfreeze",
    "init_pid",
    "load_config",
    "start",
    "startl",
    "stop",
    "want_daemonize",
    "want_close_all_fds",
    "config_file_name",
    "wait",
    "set_config_item",
    "destroy",
    "save_config",
    "create",
    "createl",
    "rename",
    "reboot",
    "shutdown",
    "clear_config",
    "clear_config_item",
    "get_config_item",
    "get_running_config_item",
    "get_keys",
    "get_interfaces",
    "get_ips",
    "get_cgroup_item",
    "set_cgroup_item",
    "get_config_path",
    "set_config_path",
    "clone",
    "console_getfd",
    "console",
    "attach",
]

_FLAGS = 0x0000FFFF  # LXC_ATTACH_DEFAULT: cgroup, capabilities, personality, LSM label on exec
_MOVE_TO_CGROUP = 0x1
_ALL_NAMESPACES = -1
_DETECT_PERSONALITY = -1
_CLEAR_ENV = 1
_NO_LOG = -9


class Container(ctypes.Structure):
    """The part of `struct lxc_container` that is used."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("configfile", ctypes.c_char_p),
        ("pidfile", ctypes.c_char_p),
        ("slock", ctypes.c_void_p),
        ("privlock", ctypes.c_void_p),
        ("numthreads", ctypes.c_int),
        ("lxc_conf", ctypes.c_void_p),
        ("error_string", ctypes.c_char_p),
        ("error_num", ctypes.c_int),
        ("daemonize", ctypes.c_bool),
        ("config_path", ctypes.c_char_p),
        *[(name, ctypes.c_void_p) for name in _POINTERS],
    ]


class Options(ctypes.Structure):
    """`lxc_attach_options_t`, with room behind it for members to come."""

    _fields_ = [
        ("attach_flags", ctypes.c_int),
        ("namespaces", ctypes.c_int),
        ("personality", ctypes.c_long),
        ("initial_cwd", ctypes.c_char_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("env_policy", ctypes.c_int),
        ("extra_env_vars", ctypes.c_void_p),
        ("extra_keep_env", ctypes.c_void_p),
        ("stdin_fd", ctypes.c_int),
        ("stdout_fd", ctypes.c_int),
        ("stderr_fd", ctypes.c_int),
        ("log_fd", ctypes.c_int),
        ("lsm_label", ctypes.c_char_p),
        ("groups_size", ctypes.c_size_t),
        ("groups_list", ctypes.c_void_p),
        ("reserved", ctypes.c_char * 64),
    ]


_Body = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_Attach = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(Container), _Body, ctypes.c_void_p, ctypes.POINTER(Options), ctypes.POINTER(ctypes.c_int)
)


def load() -> ctypes.CDLL:
    """liblxc, with the prototypes of what is used. OSError if it is not installed."""
    library = ctypes.CDLL("liblxc.so.1", use_errno=True)
    library.lxc_container_new.restype = ctypes.POINTER(Container)
    library.lxc_container_new.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    return library


def version(library: ctypes.CDLL) -> str:
    """liblxc's version."""
    library.lxc_get_version.restype = ctypes.c_char_p
    text: bytes = library.lxc_get_version()
    return text.decode()


def attach(
    library: ctypes.CDLL,
    lxcpath: str,
    name: str,
    body: Callable[[], int],
    *,
    user: int,
    group: int,
    stdio: tuple[int, int, int],
    move: bool,
) -> int:
    """Run `body` in a new process inside the container and return that process's id on the host; it is a child of the caller.

    The process is in all namespaces and cgroups of the container, under its capabilities, seccomp policy and LSM label, as
    user and group, with no supplementary groups. A terminal as standard input becomes its controlling one. `body` is still
    the host's code in the guest's view of the world: it opens nothing, imports nothing, and executes the command. Without
    `move` the caller itself has to be in the cgroups already.
    """
    container = library.lxc_container_new(name.encode(), lxcpath.encode())
    if not container:
        raise OSError(f"liblxc does not know the container {name}")
    options = Options(
        attach_flags=_FLAGS if move else _FLAGS & ~_MOVE_TO_CGROUP,
        namespaces=_ALL_NAMESPACES,
        personality=_DETECT_PERSONALITY,
        uid=user,
        gid=group,
        env_policy=_CLEAR_ENV,
        stdin_fd=stdio[0],
        stdout_fd=stdio[1],
        stderr_fd=stdio[2],
        log_fd=_NO_LOG,
    )
    pid = ctypes.c_int(-1)
    entry = _Body(lambda _: body())
    result = _Attach(container.contents.attach)(container, entry, None, ctypes.byref(options), ctypes.byref(pid))
    if result < 0 or pid.value <= 0:
        raise OSError(ctypes.get_errno(), f"liblxc could not attach to {name}: {os.strerror(ctypes.get_errno())}")
    return pid.value
