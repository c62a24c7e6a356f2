"""Disks: whose files they show, what a guest may do with them, and what is left of them on the host."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import audit
import pytest
from box import SECONDS, Daemon, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

FILES = "chown 123:456"


@pytest.fixture
def share(daemon: Daemon) -> Iterator[Path]:
    """A folder of the host that everybody may write to, with another file system mounted below, shared as systemd makes it."""
    folder = daemon.dir.parent / "share"
    (folder / "below").mkdir(parents=True)
    folder.chmod(0o777)
    daemon.run("sh", "-c", f"mount --bind {folder} {folder} && mount --make-shared {folder}")
    daemon.run("mount", "-t", "tmpfs", "none", f"{folder}/below")
    yield folder
    daemon.run("sh", "-c", f"umount {folder}/below && umount {folder} && rm -r {folder}")


def add(daemon: Daemon, name: str, *keys: object) -> None:
    daemon.run("atoll", "config", "device", "add", "one", name, "disk", *map(str, keys))


def plugged_and_started(daemon: Daemon) -> Iterator[None]:
    """Twice: as things were plugged in, and as they are after a new start."""
    yield
    daemon.run("atoll", "restart", "--force", "one")
    yield


def pins(daemon: Daemon) -> set[str]:
    """Devices whose sources are mounted on the host."""
    return {Path(place).name for place in audit._mounts(daemon) if place.startswith("devices/")}


def below_root(daemon: Daemon, name: str) -> list[str]:
    """What is mounted in an instance, by place."""
    return [line.split()[1] for line in daemon.inside(name, "cat", "/proc/mounts").splitlines()]


def test_what_is_forbidden_stays_forbidden(one: Daemon, share: Path) -> None:
    """From the first start on and when plugged in; for what is mounted below the source, too; and the host's mounts stay."""
    add(one, "data", f"source={share}", "path=/data", "readonly=true", "recursive=true", "shift=true")
    for _ in plugged_and_started(one):
        for place in ("/data", "/data/below"):
            one.inside("one", "sh", "-c", f"! mount -o remount,bind,rw {place} 2>&1")
            assert "Read-only" in one.try_("atoll", "exec", "one", "--", "touch", f"{place}/x").stderr
        one.inside("one", "mount", "-t", "tmpfs", "none", "/data/below")
    one.run("atoll", "config", "device", "remove", "one", "data")
    mounted = one.run("cat", "/proc/mounts")
    assert mounted.count(f" {share}/below ") == 1
    assert pins(one) == set()


def test_propagation(one: Daemon, share: Path) -> None:
    """What the host mounts below the source later shows if wanted, and what the guest mounts never shows on the host."""
    (share / "later").mkdir()
    add(one, "closed", f"source={share}", "path=/closed")
    add(one, "open", f"source={share}", "path=/open", "propagation=rslave")
    for _ in plugged_and_started(one):
        one.run("mount", "-t", "tmpfs", "none", f"{share}/later")
        one.inside("one", "mount", "-t", "tmpfs", "none", "/open/below")
        there = below_root(one, "one")
        assert ("/open/later" in there, "/closed/later" in there) == (True, False)
        assert one.run("cat", "/proc/mounts").count(f" {share}/below ") == 1
        one.run("umount", f"{share}/later")


def test_links_in_the_guest(one: Daemon, share: Path) -> None:
    """They are followed below its root, in a start as in a hotplug."""
    one.inside("one", "sh", "-c", "mkdir -p /srv/real; ln -s ../../../srv/real /var/link; ln -s /tmp /srv/away")
    add(one, "link", f"source={share}", "path=/var/link/in")
    add(one, "away", f"source={share}", "path=/srv/away/evil")
    for _ in plugged_and_started(one):
        assert {"/srv/real/in", "/tmp/evil"} <= set(below_root(one, "one"))
        assert not os.path.lexists("/tmp/evil")
    one.run("atoll", "config", "device", "remove", "one", "away")
    assert "/tmp/evil" not in below_root(one, "one")


def test_disks_within_each_other(one: Daemon, share: Path) -> None:
    """In whatever order they are named, and when the outer one changes."""
    (share / "outer/inner").mkdir(parents=True)
    (share / "file").touch()
    add(one, "z", f"source={share}/outer", "path=/nest")
    add(one, "a", f"source={share}", "path=/nest/inner")
    assert one.inside("one", "ls", "/nest/inner/file")
    one.run("atoll", "config", "device", "set", "one", "z", "readonly=true")
    assert one.inside("one", "ls", "/nest/inner/file")
    one.run("atoll", "restart", "--force", "one")
    assert one.inside("one", "ls", "/nest/inner/file")


def test_a_volume_of_instances_with_other_ids(one: Daemon) -> None:
    """Only if it is said to be for several; then its files are everybody's."""
    one.run("atoll", "launch", "tiny", "two", "-c", "security.idmap.isolated=true")
    one.run("atoll", "storage", "volume", "create", "default", "own")
    one.run("atoll", "storage", "volume", "create", "default", "common", "security.shifted=true")
    try:
        one.run("atoll", "storage", "volume", "attach", "default", "own", "one", "/own")
        refused = one.try_("atoll", "storage", "volume", "attach", "default", "own", "two", "/own").stderr
        assert 'Idmaps of container "one" and storage volume "own" are not identical' in refused
        for name in ("one", "two"):
            one.run("atoll", "storage", "volume", "attach", "default", "common", name, "/common")
            one.inside("one", "sh", "-c", f"touch /common/{name} && {FILES} /common/{name}")
        for name in ("one", "two"):
            assert one.inside(name, "sh", "-c", "stat -c '%n %u:%g' /common/*") == "/common/one 123:456\n/common/two 123:456"
        audit.check(one)
    finally:
        one.run("atoll", "delete", "--force", "one", "two")
        for volume in ("own", "common"):
            one.run("atoll", "storage", "volume", "delete", "default", volume)


def test_a_block_device(one: Daemon) -> None:
    """Several instances have the file system on it, and it is let go of with the last of them."""
    image = one.dir.parent / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    device = one.run("losetup", "--show", "--find", str(image)).strip()
    try:
        one.run("atoll", "init", "tiny", "two")
        add(one, "block", f"source={device}", "path=/block", "shift=true", "raw.mount.options=noexec")
        one.run("atoll", "config", "device", "add", "two", "block", "disk", f"source={device}", "path=/block", "readonly=true")
        one.run("atoll", "start", "two")
        one.inside("one", "touch", "/block/file")
        assert one.inside("two", "ls", "/block/file")
        assert "Read-only" in one.try_("atoll", "exec", "two", "--", "touch", "/block/x").stderr
        one.run("atoll", "config", "device", "remove", "one", "block")
        one.run("atoll", "delete", "--force", "two")
        assert device not in one.run("cat", "/proc/mounts")
    finally:
        one.run("losetup", "--detach", device)
        image.unlink()


def test_a_guest_that_reboots_unseen(one: Daemon, share: Path) -> None:
    """It has its disks and interfaces again with the next daemon, and none that was taken from it."""
    one.run("atoll", "config", "device", "add", "one", "eth8", "nic", "nictype=p2p", "name=eth8")
    one.run("atoll", "restart", "--force", "one")
    one.run("atoll", "config", "device", "remove", "one", "eth8")
    add(one, "data", f"source={share}", "path=/data")
    one.run("atoll", "config", "device", "add", "one", "eth9", "nic", "nictype=p2p", "name=eth9")
    before = one.init_pid("one")
    one.kill()
    one.try_("nsenter", "--target", str(before), "--all", "--", "/bin/busybox", "reboot", "-f")  # may be killed by it itself
    one.start()
    wait_until(lambda: one.init_pid("one") not in (before, 0, -1), "it is up again")
    wait_until(lambda: "/data" in below_root(one, "one"), "it has its disk")
    wait_until(lambda: "eth9" in one.inside("one", "ls", "/sys/class/net"), "it has its interface")
    wait_until(lambda: "eth8" not in one.inside("one", "ls", "/sys/class/net"), "what was taken from it is gone")
    audit.check(one)


def test_killed_while_a_disk_comes_and_goes(one: Daemon, share: Path) -> None:
    """The instance has the disk wholly or not at all, as its configuration says, once another daemon has looked at it."""
    disk = f'{{"type": "disk", "source": "{share}", "path": "/data"}}'
    for devices in (f'{{"data": {disk}}}', "{}"):
        argv = ["curl", "-sS", "--unix-socket", str(one.dir / "unix.socket"), "-X", "PUT", "http://a/1.0/instances/one"]
        body = f'{{"profiles": ["default"], "devices": {devices}}}'
        client = subprocess.Popen(one.box.enter([*argv, "-d", body]), stdout=subprocess.DEVNULL)
        time.sleep(0.03)
        one.kill()
        client.wait(SECONDS)
        one.start()
        wanted = {"disk.data"} if "data" in one.query("/1.0/instances/one")["devices"] else set()

        def is_whole(wanted: set[str] = wanted) -> bool:
            return pins(one) == wanted and ("/data" in below_root(one, "one")) == bool(wanted)

        wait_until(is_whole, "it has the disk, or not")
        audit.check(one)
