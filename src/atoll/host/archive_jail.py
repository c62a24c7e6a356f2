"""Runs one program on untrusted data, in a root of its own. A script of the standard library alone: it is started as

    python -I -S archive_jail.py '{"binds": …}' /usr/bin/tar --extract …

The program sees `/usr` (read-only) and the files and folders it is given, nothing else: no /dev, /proc, /etc, no network, no
other process. What an archive's links point at outside of that does not exist. It keeps only the capabilities named,
which never include making device nodes or mounting, and its limits.

The specification (see `Jail` in archive_sandbox) is JSON: `binds` [[path, name below /, writable], …], `cwd`,
`capabilities` [number, …], `limits` {resource name: number}, and, for a program that is to run in a user namespace, `users` and
`groups`: [[first id inside, first id outside, count], …]; `shell`: an empty file is at /dev/null.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import traceback

FAILED = 125
"""The exit code when there is no such jail. Python's own, 1, is what tar says when a file has changed: no failure."""

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
CLONE_NEWUSER = 0x10000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
SYS_MOUNT_SETATTR = 442
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
LAST_CAPABILITY = 63
NEW_ROOT = "/tmp"

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: object) -> None:
    """A libc function that returns 0 or sets errno. OSError on failure."""
    if getattr(_libc, name)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, options)]
    _call("mount", encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])


def _restrict(path: str, attributes: int, *, recursive: bool = True) -> None:
    """Set mount attributes of a mount and, unless told otherwise, of those below it."""
    flags = AT_RECURSIVE if recursive else 0
    request = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    number, size = ctypes.c_long(SYS_MOUNT_SETATTR), ctypes.c_size_t(ctypes.sizeof(request))
    if _libc.syscall(number, AT_FDCWD, path.encode(), flags, ctypes.byref(request), size) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount_setattr {path}: {os.strerror(code)}")


def _bind(source: int, name: str, *, writable: bool) -> None:
    """Show what an O_PATH descriptor refers to as `/name` of the new root."""
    target = f"{NEW_ROOT}/{name}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(f"/proc/self/fd/{source}"):
        os.makedirs(target, exist_ok=True)  # it may be in what an earlier bind shows
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    _mount(f"/proc/self/fd/{source}", target, None, MS_BIND | MS_REC)
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    _restrict(target, attributes if writable else attributes | MOUNT_ATTR_RDONLY)


def _show_programs() -> None:
    """The host's programs and libraries, read-only."""
    for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = f"/{name}"
        if os.path.islink(path):
            os.symlink(os.readlink(path), NEW_ROOT + path)
        elif os.path.isdir(path):
            os.mkdir(NEW_ROOT + path)
            _mount(path, NEW_ROOT + path, None, MS_BIND)
            _restrict(NEW_ROOT + path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)


def enter_root(binds: list[tuple[str, str, bool]], cwd: str, *, null: bool) -> None:
    """Change to a root that holds the programs and the binds; the host's root is gone from this namespace afterwards."""
    sources = [os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC) for path, _, _ in binds]
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("jail", NEW_ROOT, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=0755")
    _show_programs()
    if null:
        os.mkdir(f"{NEW_ROOT}/dev")
        os.close(os.open(f"{NEW_ROOT}/dev/null", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    for source, (_, name, writable) in zip(sources, binds, strict=True):
        _bind(source, name, writable=writable)
    os.chdir(NEW_ROOT)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", MNT_DETACH)
    _restrict("/", MOUNT_ATTR_RDONLY, recursive=False)
    os.chdir(cwd)


def drop_privileges(capabilities: list[int], limits: dict[str, int]) -> None:
    """Keep only these capabilities for the program to come, and never gain others."""
    for number in range(LAST_CAPABILITY + 1):
        if number not in capabilities:
            _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # EINVAL above the kernel's last one is right
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


class UserNamespace:
    """For the program, if there are maps: its parent, who alone may, writes them. Both sides of a fork use it."""

    def __init__(self, users: list[list[int]], groups: list[list[int]]) -> None:
        self._maps = {"uid_map": users, "gid_map": groups}
        self._entered, self._mapped = os.pipe(), os.pipe()
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # the child takes the root away

    def map(self, child: int) -> None:
        """The parent's part."""
        os.close(self._entered[1])
        os.close(self._mapped[0])
        if os.read(self._entered[0], 1):
            for name, entries in self._maps.items():
                lines = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in entries)
                file = os.open(f"{child}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._proc)
                os.write(file, lines.encode())
            os.write(self._mapped[1], b"1")
        os.close(self._mapped[1])

    def enter(self) -> None:
        """The child's part: it is the namespace's root afterwards."""
        os.close(self._entered[0])
        os.close(self._mapped[1])
        _call("unshare", CLONE_NEWUSER)
        os.write(self._entered[1], b"1")
        if not os.read(self._mapped[0], 1):
            raise OSError("the ids were not mapped")
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of ids has cleared it


def main() -> None:
    """Enter the namespaces, run the program as their first process, pass its exit code on."""
    spec = json.loads(sys.argv[1])
    _call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET)
    namespace = UserNamespace(spec["users"], spec["groups"]) if spec["users"] else None
    child = os.fork()
    if child:
        for stream in (0, 1):
            os.close(stream)  # else a pipe of the program would stay open after its end
        if namespace is not None:
            namespace.map(child)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.exit(128 - code if code < 0 else code)
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    enter_root([tuple(bind) for bind in spec["binds"]], spec["cwd"], null=spec["shell"])
    if namespace is not None:
        namespace.enter()
    drop_privileges(spec["capabilities"], spec["limits"])
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    try:
        main()
    except OSError:  # the program has not run
        traceback.print_exc()
        sys.exit(FAILED)
