"""Builds a Debian or Ubuntu with mmdebstrap: systemd, a network by DHCP on eth0, names resolved, nothing of this host in it.

mmdebstrap runs as root in mode `root`, because the tree must have its real ids, and in mount and process namespaces of its
own, so that no mount and no process outlives it, however it ends. What is not needed to start fast is not unpacked:
translations, manuals and documentation other than licences; packages installed later bring theirs.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from atoll.domain.architectures import Architecture
from atoll.domain.errors import HostError
from atoll.host import process
from atoll.host.imagebuild import apt, cloud, template
from atoll.host.imagebuild.recipe import Recipe
from atoll.host.threads import in_thread

Progress = Callable[[int, str], None]
"""Told the percentage, 0 to 100 and never falling, and in a few words what is being done."""

_NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")

_APT_OPTIONS = (
    'APT::Sandbox::User "root";',
    'Acquire::Languages "none";',
    'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";',
    'Dpkg::Use-Pty "false";',
)

_DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/man/*",
)

_MASKED = (
    "dev-hugepages.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-journald-audit.socket",
    "systemd-modules-load.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
)

_WAIT_ONLINE = "systemd-networkd-wait-online.service"

_NETWORK = """\
[Match]
Name=eth0

[Network]
DHCP=true
LinkLocalAddressing=ipv6

[DHCPv4]
ClientIdentifier=mac
UseHostname=false
UseDomains=true
"""

_NO_UDEV = """\
[Service]
# networkd waits for udev to tell it of an interface, unless /sys is read-only; there is no udev here. (A mount of its own:
# systemd 257 passes over ReadOnlyPaths= in a container.)
BindReadOnlyPaths=/sys
"""

_FILES = {
    "etc/systemd/system/systemd-networkd.service.d/container.conf": _NO_UDEV,
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/machine-id": "",
}
_PLAIN_FILES = {"etc/systemd/network/10-eth0.network": _NETWORK}
_CLOUD_FILES = {f"etc/systemd/system/{_WAIT_ONLINE}.d/container.conf": cloud.WAIT_ONLINE}
"""Where cloud-init sets up the network."""

_LEFTOVERS = (
    "dev",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list.d",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/hostname",
    "var/cache/apt",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/lists",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/log/alternatives.log",
    "var/log/apt",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
)
_KEPT_FOLDERS = ("dev", "etc/apt/sources.list.d", "var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "var/log/apt")


async def build_tree(recipe: Recipe, architecture: Architecture, directory: Path, progress: Progress) -> None:
    """Fill `directory`, which is empty or holds an empty `rootfs/`, with rootfs/ and templates/. Takes half a minute.

    Unsupported if mmdebstrap or a keyring is missing; HostError, with the last lines of its output, if the build fails.
    When it fails or is cancelled nothing runs on; the caller removes the directory.
    """
    entries = await in_thread(apt.for_build, recipe, architecture.debian)
    dump = await process.run(["apt-config", "dump"])
    settings = [*_APT_OPTIONS, *apt.carried_settings(dump.stdout.decode(errors="replace"))]
    scratch = directory / ".scratch"
    await in_thread(scratch.mkdir, 0o700)
    try:
        argv = command(recipe, architecture, directory / "rootfs", entries, settings)
        await _run(argv, scratch, progress)
    finally:
        await in_thread(shutil.rmtree, scratch, ignore_errors=True)
    progress(92, "Cleaning up")
    await in_thread(_finish, recipe, architecture, directory)


def command(
    recipe: Recipe, architecture: Architecture, rootfs: Path, entries: Sequence[apt.Entry], settings: Sequence[str]
) -> list[str]:
    """mmdebstrap's argv. Its hooks are shell lines, made of constants alone."""
    units = " ".join(_MASKED if recipe.has_cloud_init else (*_MASKED, _WAIT_ONLINE))
    return [
        *_NAMESPACES,
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        "--format=directory",
        "--verbose",
        f"--architectures={architecture.debian}",
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        *(f"--aptopt={option}" for option in settings),
        f"--include={','.join(recipe.packages)}",
        '--customize-hook=chroot "$1" systemctl enable systemd-networkd.service systemd-resolved.service',
        f'--customize-hook=chroot "$1" systemctl mask {units}',
        recipe.release,
        str(rootfs),
        *(line for entry in entries for line in entry.lines()),
    ]


async def _run(argv: Sequence[str], scratch: Path, progress: Progress) -> None:
    child = await process.start(argv, stderr=asyncio.subprocess.STDOUT, env={"TMPDIR": str(scratch)})
    meter = Meter(progress)
    last: deque[str] = deque(maxlen=15)
    assert child.stdout is not None  # start() makes a pipe of it
    try:
        async for line in child.stdout:
            text = line.decode(errors="replace").rstrip()
            last.append(text)
            meter.line(text)
        code = await child.wait()
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await asyncio.shield(child.wait())
    if code:
        raise HostError("mmdebstrap failed: " + "\n".join(last)[-2000:])


class Meter:
    """Turns mmdebstrap's output into a percentage: each stage has a span, which its packages fill one by one."""

    _STAGES = {
        "running apt-get update": (2, 10, "Reading package lists"),
        "downloading packages": (10, 25, "Downloading packages"),
        "extracting archives": (25, 30, "Unpacking the essential packages"),
        "installing essential packages": (30, 65, "Installing the essential packages"),
        "installing remaining packages": (65, 88, "Installing packages"),
        "cleaning package lists": (90, 92, "Cleaning up"),
    }
    _COUNT = re.compile(r"\d+ upgraded, (\d+) newly installed")
    _STEP = re.compile(r"(?:Get:\d+ .* \[|Unpacking |Setting up )")

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._start, self._end, self._text = 0, 2, "Preparing"
        self._packages = 60
        self._steps = 0
        self._told = -1

    def line(self, text: str) -> None:
        """Take note of a line of output."""
        if text.startswith("I: "):
            for words, stage in self._STAGES.items():
                if words in text:
                    self._start, self._end, self._text = stage
                    self._steps = 0
        elif count := self._COUNT.match(text):
            self._packages = max(1, int(count[1]))
        elif self._STEP.match(text):
            self._steps += 1
        # each package makes two lines at installing, one at downloading: a stage never claims more than its span
        share = min(1.0, self._steps / (2 * self._packages))
        percent = round(self._start + (self._end - self._start) * share)
        if percent > self._told:
            self._told = percent
            self._progress(percent, self._text)


def _finish(recipe: Recipe, architecture: Architecture, directory: Path) -> None:
    """Take this host's traces and the build's own out of the tree, and put in what makes it a container's. Blocking."""
    rootfs = directory / "rootfs"
    for name in _LEFTOVERS:
        path = rootfs / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in _KEPT_FOLDERS:
        (rootfs / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, text in {**_FILES, **(_CLOUD_FILES if recipe.has_cloud_init else _PLAIN_FILES)}.items():
        template.write(rootfs, name, text)
    lines = [line for entry in apt.official(recipe, architecture.debian) for line in entry.lines()]
    template.write(rootfs, "etc/apt/sources.list", "\n".join(lines) + "\n")
    _link(rootfs / "etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
    _link(rootfs / "var/lib/dbus/machine-id", "/etc/machine-id")
    template.write_templates(directory, has_cloud_init=recipe.has_cloud_init)


def _link(path: Path, to: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(to)
