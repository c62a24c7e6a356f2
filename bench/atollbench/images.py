"""The images that all systems run: a Debian with systemd, and a busybox. Built once, kept in a cache directory."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RELEASE = "bookworm"
_NETWORK = "[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n"
_INITTAB = "::sysinit:/bin/true\n::ctrlaltdel:/bin/poweroff -f\n"


def debian(cache: Path) -> Path:
    """A unified image of Debian 12 whose init is systemd, with an address by DHCP."""
    return _cached(cache, "debian", _build_debian)


def busybox(cache: Path) -> Path:
    """A unified image of one static busybox, for what is to be quick."""
    return _cached(cache, "busybox", _build_busybox)


def _cached(cache: Path, name: str, build: Callable[[Path], None]) -> Path:
    recipe = hashlib.sha256((inspect.getsource(build) + _NETWORK + _INITTAB).encode()).hexdigest()[:12]
    archive = cache / f"{name}-{recipe}.tar.gz"
    if archive.exists():
        return archive
    print(f"building the {name} image …", file=sys.stderr)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        work = Path(directory)
        build(work / "rootfs")
        (work / "metadata.yaml").write_text(_metadata(name))
        _pack(work, work / "image.tar.gz")
        os.replace(work / "image.tar.gz", archive)
    return archive


def _metadata(name: str) -> str:
    properties = {"os": name, "release": RELEASE, "description": f"{name} for benchmarks"}
    return json.dumps({"architecture": platform.machine(), "creation_date": int(time.time()), "properties": properties})


def _pack(work: Path, archive: Path) -> None:
    members = ["metadata.yaml", "rootfs"]
    command = ["tar", "-C", str(work), "--numeric-owner", "-I", "gzip -1", "-cf", str(archive), *members]
    subprocess.run(command, check=True)


def _build_debian(rootfs: Path) -> None:
    subprocess.run(
        ["mmdebstrap", "--mode=root", "--variant=minbase", "--include=systemd,systemd-sysv,dbus,iproute2", "--quiet",
         RELEASE, str(rootfs), *_mirror()],
        check=True,
    )  # fmt: skip
    for directory in (rootfs / "dev", rootfs / "var/cache/apt", rootfs / "var/lib/apt/lists"):
        shutil.rmtree(directory)
        directory.mkdir()
    (rootfs / "etc/systemd/network/eth0.network").write_text(_NETWORK)
    (rootfs / "etc/machine-id").write_text("")
    wants = rootfs / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")


def _mirror() -> list[str]:
    """The mirror this machine takes the release from, or nothing: mmdebstrap then has its own choice."""
    fields = "$(CODENAME) $(COMPONENT) $(REPO_URI)"
    listed = subprocess.run(["apt-get", "indextargets", "--format", fields], capture_output=True, text=True)
    found = (line.split() for line in listed.stdout.splitlines())
    return next(([uri] for codename, component, uri in found if (codename, component) == (RELEASE, "main")), [])


def _build_busybox(rootfs: Path) -> None:
    for directory in ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "var"):
        (rootfs / directory).mkdir(parents=True)
    program = rootfs / "bin/busybox"
    shutil.copy("/bin/busybox", program)
    listed = subprocess.run([program, "--list-full"], check=True, capture_output=True, text=True)
    for applet in listed.stdout.split():
        link = rootfs / applet
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to("/bin/busybox")
    (rootfs / "etc/inittab").write_text(_INITTAB)
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\n")
    (rootfs / "etc/hostname").write_text("busybox\n")
