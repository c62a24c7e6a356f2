"""Builds a container of one program: busybox, with an init that brings up the network, in two megabytes and no time.

It is there to try things with and for mass tests. Its init is busybox's own: it reaps orphans, halts on SIGPWR, and knows
`poweroff` and `reboot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atoll.domain.errors import Unsupported
from atoll.host import process
from atoll.host.imagebuild import template
from atoll.host.threads import in_thread

_FOLDERS = ("bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sbin", "sys", "usr/bin", "usr/sbin", "var/log", "var/run")

_INITTAB = """\
::sysinit:/etc/init.d/rcS
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/true
"""

_START = """\
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
ip link set lo up
if [ -d /sys/class/net/eth0 ]; then
    ip link set eth0 up
    udhcpc -i eth0 -s /etc/udhcpc.script -x hostname:"$(hostname)" -b -S >/dev/null 2>&1 &
fi
exit 0
"""

_LEASE = """\
#!/bin/sh
# Called by udhcpc with the event; the lease's values are in the environment.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
case "$1" in
deconfig)
    ip addr flush dev "$interface" scope global
    ip link set "$interface" up
    ;;
bound | renew)
    ip addr flush dev "$interface" scope global
    ip addr add "$ip/${mask:-24}" dev "$interface"
    for gateway in $router; do
        ip route replace default via "$gateway" dev "$interface"
        break
    done
    : >/etc/resolv.conf.new
    [ -z "$domain" ] || echo "search $domain" >>/etc/resolv.conf.new
    for server in $dns; do
        echo "nameserver $server" >>/etc/resolv.conf.new
    done
    mv /etc/resolv.conf.new /etc/resolv.conf
    ;;
esac
"""

_FILES = {
    "etc/fstab": "",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hostname": "busybox\n",
    "etc/inittab": _INITTAB,
    "etc/os-release": 'ID=busybox\nNAME="Busybox"\nPRETTY_NAME="Busybox"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/resolv.conf": "",
}
_SCRIPTS = {"etc/init.d/rcS": _START, "etc/udhcpc.script": _LEASE}


async def build_tree(directory: Path) -> None:
    """Fill `directory` with rootfs/ and templates/. Unsupported, naming the package, without a static busybox."""
    program = await in_thread(_find)
    listed = await process.run([str(program), "--list-full"])
    applets = [name for name in listed.stdout.decode().split() if "/" in name and name != "bin/busybox"]
    await in_thread(_fill, directory, program, applets)


def _fill(directory: Path, program: Path, applets: Sequence[str]) -> None:
    rootfs = directory / "rootfs"
    rootfs.mkdir(mode=0o755, exist_ok=True)
    for name in _FOLDERS:
        (rootfs / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    (rootfs / "tmp").mkdir(exist_ok=True)
    (rootfs / "tmp").chmod(0o1777)
    template.write(rootfs, "bin/busybox", program.read_bytes(), mode=0o755)
    for name in applets:
        (rootfs / name).symlink_to("/bin/busybox")
    for name, text in _FILES.items():
        template.write(rootfs, name, text)
    for name, text in _SCRIPTS.items():
        template.write(rootfs, name, text, mode=0o755)
    template.write(rootfs, "etc/shadow", "root:*:19000:0:99999:7:::\n", mode=0o600)
    template.write_templates(directory)


def _find() -> Path:
    """The host's busybox, which must need no libraries: it is all there is in the image."""
    path = Path(process.find("busybox"))
    with path.open("rb") as file:
        if b"/ld-" in file.read(4096):  # the program header that names a dynamic loader
            raise Unsupported("The program 'busybox' is not linked statically", hint="install the package 'busybox-static'")
    return path
