"""The `lxc` driver passes the suite, with real containers of busybox. Run it in a network namespace of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import Conflict, HostError
from atoll.domain.idmap import IdMap
from atoll.drivers.instance.conformance import Conformance, run, started
from atoll.drivers.instance.contract import ExecSpec, Launch, Limits, MachineEvent, MachineId, MountSpec
from atoll.drivers.instance.lxc import driver as driver_module
from atoll.drivers.instance.lxc.driver import LxcDriver
from atoll.host import cgroup, lxc_command, mount, pidfd, process, syscalls
from atoll.host.peer import Peer

BASE = 1_000_000
BUSYBOX = Path("/bin/busybox")
INITTAB = "::sysinit:/bin/true\n::respawn:/bin/sleep 1000000\n::ctrlaltdel:/sbin/reboot\n"
STUBBORN = "lxc.init.cmd = /bin/sleep 1000000"

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        os.geteuid() != 0 or not BUSYBOX.exists() or not shutil.which("lxc-start"), reason="needs root, lxc, busybox"
    ),
    pytest.mark.skipif(
        set(os.listdir("/sys/class/net")) - {"lo", "bonding_masters"} != set(), reason="needs a namespace of its own"
    ),
]


def make_rootfs(root: Path) -> None:
    """A small system of busybox alone."""
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root", "run", "mnt", "usr/bin", "usr/sbin"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    subprocess.run(["chroot", str(root), "/bin/busybox", "--install", "-s"], check=True)
    (root / "etc/inittab").write_text(INITTAB)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")


async def _nothing(*_: object) -> None:
    return


def _target(fd: str) -> str:
    """What a descriptor of ours stands for, without the numbers of pipes and sockets."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}").partition(":[")[0]
    except OSError:
        return "the look itself"


class LxcRig:
    """A state directory of its own, and so monitors and control groups of its own."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self.folder = self.scratch = folder
        self.rootfs = rootfs
        self.events: list[MachineEvent] = []
        self.names: set[str] = set()
        self.driver = LxcDriver(folder)
        self.layout = cgroup.detect()

    def launch(self, name: str, *, stubborn: bool = False) -> Launch:
        self.names.add(name)
        for kind in ("log", "run"):
            (self.folder / kind / name).mkdir(parents=True, exist_ok=True)
        return Launch(
            id=MachineId("default", name),
            uuid="",
            rootfs=self.rootfs,
            log_dir=self.folder / "log" / name,
            run_dir=self.folder / "run" / name,
            hostname=name,
            architecture="x86_64",
            idmap=IdMap.plain(BASE, 65536),
            rootfs_idmap=True,
            raw=STUBBORN if stubborn else "",
        )

    async def reopen(self) -> None:
        """A killed daemon closes nothing itself; the kernel closes its descriptors."""
        await self.driver.close()
        self.driver = LxcDriver(self.folder)
        self.events.clear()
        await self.driver.open(self.events.append)

    async def kill_outside(self, machine: MachineId) -> None:
        found = lxc_command.find(str(self.folder), machine.key)
        assert found is not None
        pidfd.send(found.monitor_fd, 9)
        async with asyncio.timeout(30):
            while not (pidfd.is_gone(found.monitor_fd) and pidfd.is_gone(found.init_fd)):  # noqa: ASYNC110 - outside of a test
                await asyncio.sleep(0.01)
        os.close(found.init_fd)
        os.close(found.monitor_fd)

    def hold(self, pid: int) -> Peer:
        return Peer(pid, os.getuid(), pidfd.open(pid))

    def residue(self) -> object:
        children = sum(1 for name in os.listdir("/proc") if name.isdecimal())
        fds = sorted(_target(name) for name in os.listdir("/proc/self/fd"))
        return fds, children, self.groups("/*/*/")

    def groups(self, below: str = "") -> set[str]:
        """The control groups of this rig's daemon."""
        return {str(path) for root in self.layout.roots for path in Path(root).glob(self.group_root + below) if path.is_dir()}

    @property
    def group_root(self) -> str:
        return self.driver._host.group_root

    def limits(self, machine: MachineId) -> tuple[int | None, int | None]:
        group = f"{self.group_root}/payload/{machine.key}"
        file = "memory.limit_in_bytes" if self.layout.version("memory") == 1 else "memory.max"
        memory = cgroup.read_text(f"{self.layout.path('memory', group)}/{file}").strip()
        pids = cgroup.read_text(f"{self.layout.path('pids', group)}/pids.max").strip()
        limited = memory.isdecimal() and int(memory) < 1 << 62
        return int(memory) if limited else None, int(pids) if pids.isdecimal() else None

    async def clean(self) -> None:
        """Leave nothing, whatever the test did."""
        for name in self.names:
            await self.driver._clear(MachineId("default", name), 20.0)
        async with asyncio.timeout(30):  # a monitor stops listening, and then has a group of its own to leave
            for machine in list(self.driver._watcher.machines.values()):
                await machine.gone.wait()
        await self.driver.close()


def open_folder() -> Path:
    """A new folder that the ids of a user namespace can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-lxc-", dir="/tmp"))
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def rootfs() -> Iterator[Path]:
    folder = open_folder()
    make_rootfs(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = open_folder()
    yield made
    shutil.rmtree(made)


class TestLxc(Conformance):
    """All of it, and what only this driver promises."""

    @pytest.fixture
    async def rig(self, folder: Path, rootfs: Path) -> AsyncIterator[LxcRig]:
        rig = LxcRig(folder, rootfs)
        await rig.driver.open(rig.events.append)
        try:
            yield rig
        finally:
            await rig.clean()
        assert rig.groups() == set()

    async def test_commands_have_no_way_out(self, rig: LxcRig) -> None:
        """No capability is inheritable, no descriptor of the host's open, no path of the host's to be seen."""
        machine = await started(rig)
        _, out, _ = await run(rig, machine, "grep", "-E", "CapInh|Seccomp:|NoNewPrivs|Groups", "/proc/self/status")
        lines = dict(line.split(":\t") for line in out.decode().splitlines())
        assert int(lines["CapInh"], 16) == 0
        assert lines["Seccomp"] == "2"
        assert lines["Groups"].strip() == ""
        _, out, _ = await run(rig, machine, "sh", "-c", "ls /proc/$$/fd; true")
        assert set(out.decode().split()) <= {"0", "1", "2"}
        for number in range(3, 20):
            assert (await run(rig, machine, "pwd", cwd=f"/proc/self/fd/{number}"))[1] == b"/\n"

    @pytest.mark.parametrize("way", ["born there", "moved by liblxc"])
    async def test_commands_are_in_the_groups_of_their_machine(
        self, rig: LxcRig, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In every hierarchy, so that its limits hold for them; also where they cannot be born in the groups."""
        machine = await started(rig)
        if way == "moved by liblxc":
            monkeypatch.setattr(cgroup.Layout, "folders", lambda *_: ("/sys/none", ["/sys/none"]))
        reader, writer = os.pipe()
        spec = ExecSpec(["cat"], {}, user=0, group=0, cwd="/", stdin=reader, stdout=reader, stderr=reader)
        command = await rig.driver.exec(machine, spec)
        try:
            groups = cgroup.read_text(f"/proc/{command.pid}/cgroup").splitlines()
        finally:
            os.close(writer)
            os.close(reader)
            await command.wait()
        payload = f"{rig.group_root}/payload/{machine.key}"
        assert len(groups) == len(rig.layout.roots)
        assert [line for line in groups if not line.removesuffix("/.lxc").endswith(f"/{payload}")] == []

    async def test_commands_for_a_machine_that_ends_meanwhile(self, rig: LxcRig) -> None:
        """Each is done, killed, or refused because of that."""
        machine = await started(rig)
        many = [asyncio.ensure_future(run(rig, machine, "true")) for _ in range(60)]
        await many[0]
        await rig.driver.stop(machine, timeout=None)
        many.append(asyncio.ensure_future(run(rig, machine, "true")))
        done = await asyncio.gather(*many, return_exceptions=True)
        assert [each for each in done if not isinstance(each, tuple | Conflict)] == []
        assert isinstance(done[-1], Conflict)

    async def test_a_machine_without_room_for_a_command_says_so(self, rig: LxcRig) -> None:
        machine = await started(rig)
        await rig.driver.set_limits(machine, Limits(processes=2))
        with pytest.raises(HostError, match=r"limits\.processes"):
            await run(rig, machine, "true")
        await rig.driver.set_limits(machine, Limits(processes=100))
        assert (await run(rig, machine, "true"))[0] == 0

    async def test_a_command_that_its_guest_froze_ends_with_the_machine(self, rig: LxcRig, until: Any) -> None:
        """Its worker, which the guest's end does not kill: the machine could not be started again."""
        machine = await started(rig)
        unified = rig.layout.folders(f"{rig.group_root}/payload/{machine.key}")[0]
        assert (await run(rig, machine, "true"))[0] == 0
        cgroup.write(f"{unified}/.lxc/cgroup.freeze", "1")  # as a guest does that made the group before the first command
        frozen = asyncio.ensure_future(run(rig, machine, "true"))
        await until(lambda: cgroup.read_text(f"{unified}/.lxc/cgroup.procs"))
        await rig.driver.stop(machine, timeout=None)
        with pytest.raises(Conflict):
            await frozen
        assert not rig.groups("/payload/c1")
        await started(rig)

    async def test_the_interpreter_is_not_the_hosts_file(self, rig: LxcRig) -> None:
        """What a guest could reach as /proc/PID/exe of a worker is a sealed copy in memory."""
        await run(rig, await started(rig), "true")
        image = os.readlink(f"/proc/{rig.driver._zygote.pid}/exe")
        assert image.startswith("/memfd:")
        with pytest.raises(OSError):
            os.close(os.open(f"/proc/{rig.driver._zygote.pid}/exe", os.O_RDWR))

    async def test_the_hosts_interpreter_stays_as_it_is(self, rig: LxcRig) -> None:
        """A guest that tries to write to what runs its commands, while they start, changes nothing on the host."""
        machine = await started(rig)
        binary = os.path.realpath(sys.executable)  # noqa: ASYNC240 - once, in a test
        before = os.stat(binary)
        script = "for i in $(seq 300); do for p in /proc/[0-9]*/exe; do (echo x >$p) 2>/dev/null; done; done"
        attack = asyncio.ensure_future(run(rig, machine, "timeout", "2", "sh", "-c", script))
        for _ in range(40):
            await run(rig, machine, "true")
        await attack
        after = os.stat(binary)
        assert (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (after.st_size, after.st_mtime_ns, after.st_ctime_ns)

    async def test_mounts_cannot_be_led_out(self, rig: LxcRig) -> None:
        """A link in the guest is followed below the guest's root, and `..` is refused."""
        machine = await started(rig)
        mark = rig.scratch / "mark"
        mark.mkdir()
        await run(rig, machine, "mkdir", "-p", str(rig.scratch))
        await run(rig, machine, "ln", "-s", str(rig.scratch), "/mnt/away")
        spec = MountSpec("m", str(mark), "mnt/away/inside")
        await rig.driver.attach_mount(machine, spec)
        assert not (rig.scratch / "inside").exists()
        assert (await run(rig, machine, "ls", "-d", f"{rig.scratch}/inside"))[0] == 0
        await rig.driver.detach_mount(machine, spec)
        with pytest.raises(HostError):
            await rig.driver.attach_mount(machine, MountSpec("m", str(mark), "mnt/../../etc"))
        await run(rig, machine, "sh", "-c", "rm /mnt/away; rm -r /tmp/*")

    async def test_mounts_below_what_others_own(self, rig: LxcRig) -> None:
        """The guest's root may enter every folder of its own, and so may a mount."""
        machine = await started(rig)
        await run(rig, machine, "sh", "-c", "mkdir -p /home/user && chown 1000:1000 /home/user && chmod 700 /home/user")
        await rig.driver.attach_mount(machine, MountSpec("m", str(rig.scratch), "home/user/deep/inside"))
        assert (await run(rig, machine, "stat", "-c", "%u %g", "/home/user/deep"))[1] == b"0 0\n"
        assert (await run(rig, machine, "ls", "-d", "/home/user/deep/inside/log"))[0] == 0

    async def test_mounts_that_are_plugged_in_keep_their_restrictions(self, rig: LxcRig) -> None:
        """The guest's root cannot lift what the host's mount forbids, nor what the options do; a file can be mounted."""
        shared = rig.scratch / "shared"
        (shared / "below").mkdir(parents=True)
        shared.chmod(0o777)
        (shared / "file").write_text("text")
        machine = await started(rig)
        for number, options in enumerate((("bind", "ro", "noexec"), ("rbind", "ro"))):
            target = f"mnt/{number}"
            await rig.driver.attach_mount(machine, MountSpec("m", str(shared), target, options))
            remount = f"mount -o remount,bind,rw,exec /{target} || touch /{target}/mark"
            assert (await run(rig, machine, "sh", "-c", remount))[0] != 0, options
        await rig.driver.attach_mount(machine, MountSpec("c", str(shared / "file"), "mnt/c/file", is_file=True))
        assert (await run(rig, machine, "cat", "/mnt/c/file"))[1] == b"text"
        assert not (shared / "mark").exists()

    async def test_what_a_guest_mounts_is_its_own(self, rig: LxcRig) -> None:
        """Also in what is shared on the host, as all mounts are where systemd runs it; what the host mounts shows if wanted."""
        shared = rig.scratch / "shared"
        for name in ("mine", "yours", "later"):
            (shared / name).mkdir(parents=True)
        mount.bind(shared, shared)
        syscalls.mount_setattr(shared, 0, propagation=syscalls.MS_SHARED)
        mount.bind(shared / "mine", shared / "yours")
        try:
            machine = await started(rig)
            await rig.driver.attach_mount(machine, MountSpec("p", str(shared), "mnt/p", ("rbind",)))
            await rig.driver.attach_mount(machine, MountSpec("s", str(shared), "mnt/s", ("rbind", "rslave")))
            await run(rig, machine, "sh", "-c", "for way in p s; do mount -t tmpfs none /mnt/$way/mine; done")
            mount.bind(shared / "mine", shared / "later")
            _, seen, _ = await run(rig, machine, "cat", "/proc/mounts")
            assert (b" /mnt/s/later " in seen, b" /mnt/p/later " in seen) == (True, False)
            for device, place in (("p", "mnt/p"), ("s", "mnt/s")):
                await rig.driver.detach_mount(machine, MountSpec(device, str(shared), place))
            there = [entry.target for entry in mount.mounts_below(shared)]
            assert there == [shared, shared / "yours", shared / "later"]
        finally:
            mount.unmount_below(shared)

    async def test_only_what_was_plugged_in_is_taken_out(self, rig: LxcRig) -> None:
        """A guest that puts a link in the way cannot have something else unmounted."""
        machine = await started(rig)
        spec = MountSpec("m", str(rig.scratch), "mnt/m")
        await rig.driver.attach_mount(machine, spec)
        await run(rig, machine, "sh", "-c", "umount /mnt/m && rmdir /mnt/m && ln -s /proc /mnt/m")
        await rig.driver.detach_mount(machine, spec)
        assert (await run(rig, machine, "ls", "/proc/self"))[0] == 0

    async def test_a_place_goes_with_its_mount(self, rig: LxcRig) -> None:
        """Unless there is something in it: where a folder was a file can be, and the other way round."""
        folder, file = rig.scratch / "folder", rig.scratch / "file"
        folder.mkdir()
        file.write_text("text")
        machine = await started(rig)
        await run(rig, machine, "sh", "-c", "mkdir -p /mnt/kept && touch /mnt/kept/own")
        for spec in (
            MountSpec("m", str(folder), "mnt/new/place"),
            MountSpec("m", str(file), "mnt/new/place", is_file=True),
            MountSpec("m", str(folder), "mnt/new/place"),
            MountSpec("m", str(folder), "mnt/kept"),
        ):
            await rig.driver.attach_mount(machine, spec)
            await rig.driver.detach_mount(machine, spec)
        _, left, _ = await run(rig, machine, "find", "/mnt/new", "/mnt/kept")
        assert left.split() == [b"/mnt/new", b"/mnt/kept", b"/mnt/kept/own"]
        assert file.read_text() == "text"

    async def test_a_target_that_is_swapped_all_the_time(self, rig: LxcRig) -> None:
        """Folder, link that leads out, nothing: whatever it is, the host's mounts stay what they are."""
        machine = await started(rig)
        swap = "while :; do mkdir /dev/t; rmdir /dev/t; ln -s ../../../../../dev/shm /dev/t; rm /dev/t; done"
        await run(rig, machine, "sh", "-c", f"mkdir -p /dev/shm; ({swap}) >/dev/null 2>&1 </dev/null &")
        before = mount.mounts_below(Path("/"))
        spec = MountSpec("m", str(rig.scratch), "dev/t/inside")
        done = 0
        for _ in range(30):
            with contextlib.suppress(HostError):  # as the guest made it
                await rig.driver.attach_mount(machine, spec)
                done += 1
            await rig.driver.detach_mount(machine, spec)
        await rig.driver.stop(machine, timeout=None)
        assert done
        assert mount.mounts_below(Path("/")) == before
        assert "inside" not in os.listdir("/dev/shm")

    async def test_mounts_of_a_launch_follow_links(self, rig: LxcRig) -> None:
        """As those that are plugged in do: below the guest's root."""
        launch = rig.launch("c1")
        (launch.rootfs / "lib-link").symlink_to("../../../mnt")
        try:
            await rig.driver.start(replace(launch, mounts=[MountSpec("m", str(rig.scratch), "lib-link/inside")]))
            assert (await run(rig, launch.id, "ls", "-d", "/mnt/inside/log"))[0] == 0
        finally:
            (launch.rootfs / "lib-link").unlink()

    async def test_a_privileged_machine(self, rig: LxcRig) -> None:
        """Runs with the host's ids, and without the capabilities that would reach the host."""
        launch = replace(rig.launch("c1"), idmap=None, rootfs_idmap=False)
        await rig.driver.start(launch)
        _, out, _ = await run(rig, launch.id, "grep", "CapBnd", "/proc/self/status")
        bounding = int(out.split()[1], 16)
        for number in (16, 17, 25, 32, 33):  # sys_module, sys_rawio, sys_time, mac_override, mac_admin
            assert not bounding >> number & 1
        assert (await run(rig, launch.id, "id", "-u"))[1] == b"0\n"

    async def test_commands_get_the_machines_own_limits(self, rig: LxcRig) -> None:
        """Those of `limits.kernel.*`, not the daemon's."""
        machine = await started(rig, limits=Limits(rlimits={"nofile": "512:1024"}))
        assert (await run(rig, machine, "sh", "-c", "ulimit -n; ulimit -Hn"))[1] == b"512\n1024\n"

    async def test_addresses_follow_changes(self, rig: LxcRig) -> None:
        """An address that the guest takes is in the next look, and gone from the one after it let go."""
        machine = await started(rig)
        for action, seen in (("add", True), ("del", False)):
            await run(rig, machine, "ip", "addr", action, "10.9.8.7/24", "dev", "lo")
            (loopback,) = (await rig.driver.state([machine]))[machine].nics
            assert (("inet", "10.9.8.7", 24, "global") in loopback.addresses) is seen

    async def test_an_interface_may_have_any_name(self, rig: LxcRig) -> None:
        """Also one that is no text: it is shown as far as it is, and keeps nothing else from being shown."""
        machine = await started(rig)
        assert (await run(rig, machine, "sh", "-c", r"""ip link add "$(printf '\377"x')" type bridge"""))[0] == 0
        (state,) = (await rig.driver.state([machine])).values()
        (measures,) = (await rig.driver.measure([machine])).values()
        assert '\ufffd"x' in {nic.name for nic in state.nics} & set(measures.nics)

    async def test_a_monitor_that_waits_for_ever(self, rig: LxcRig, monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
        """It is killed: by the start that it is from, or by the next daemon; the machine can be started."""
        for name in ("_START_SECONDS", "_KILL_SECONDS", "_ADOPT_SECONDS"):
            monkeypatch.setattr(driver_module, name, 0.5)
        stuck = replace(rig.launch("c1"), raw="lxc.hook.pre-mount = /bin/sleep 1000")
        with pytest.raises(HostError):
            await rig.driver.start(stuck)
        assert not lxc_command.has_monitor(str(rig.folder), stuck.id.key)
        monkeypatch.setattr(rig.driver, "_clear", _nothing)  # as if killed before
        monkeypatch.setattr(driver_module, "_START_SECONDS", 60.0)
        start = asyncio.ensure_future(rig.driver.start(stuck))
        await until(lambda: lxc_command.has_monitor(str(rig.folder), stuck.id.key))
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        await rig.reopen()
        assert await rig.driver.adopt([stuck.id], {stuck.id: stuck.run_dir}) == set()
        monkeypatch.undo()
        await rig.driver.start(rig.launch("c1"))

    async def test_terminal_is_the_guests(self, rig: LxcRig) -> None:
        """`tty` names it, it belongs to the guest's user, and it is the controlling one."""
        machine = await started(rig)
        _, before, _ = await run(rig, machine, "ls", "/dev/pts")
        master, slave = await rig.driver.open_terminal(machine, user=1000, group=1000)
        assert os.fstat(slave).st_uid == BASE + 1000
        _, after, _ = await run(rig, machine, "ls", "/dev/pts")
        assert len(after.split()) == len(before.split()) + 1
        os.close(slave)
        os.close(master)

    async def test_one_program_per_start_none_for_commands(self, rig: LxcRig) -> None:
        """No hot path starts a program but the start itself; the first one on a host has the zygote started too."""
        first = await started(rig)
        await run(rig, first, "true")
        seen: list[str] = []
        process.observer = lambda argv: seen.append(argv[0])
        try:
            machine = await started(rig, "c2")
            await run(rig, machine, "true")
            await rig.driver.state([machine])
            await rig.driver.freeze(machine)
            await rig.driver.thaw(machine)
            await rig.driver.stop(machine, timeout=None)
        finally:
            process.observer = None
        assert seen == ["lxc-start"]

    async def test_the_zygote_is_started_again(self, rig: LxcRig) -> None:
        """Should it ever end, the next command brings up another."""
        machine = await started(rig)
        await run(rig, machine, "true")
        before = rig.driver._zygote.pid
        os.kill(before, 9)
        os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - so that nobody hears of it before the command
        assert (await run(rig, machine, "true"))[0] == 0
        assert rig.driver._zygote.pid != before

    async def test_times(self, rig: LxcRig, capsys: pytest.CaptureFixture[str]) -> None:
        """Bounds that only something broken exceeds each of several times; the best figures are told."""
        figures = [inf] * 4
        for _ in range(10):
            begun = time.perf_counter()
            machine = await started(rig)
            up = time.perf_counter()
            await run(rig, machine, "true")
            ran = time.perf_counter()
            await rig.driver.state([machine])
            looked = time.perf_counter()
            await rig.driver.stop(machine, timeout=None)
            seconds = (up - begun, ran - up, looked - ran, time.perf_counter() - looked)
            figures = [min(best, 1000 * each) for best, each in zip(figures, seconds, strict=True)]
            if max(figures) < 1000:
                break
        with capsys.disabled():
            print(" start {:.1f} exec {:.1f} state {:.2f} kill {:.1f} ms ".format(*figures), end="")
        assert max(figures) < 1000
