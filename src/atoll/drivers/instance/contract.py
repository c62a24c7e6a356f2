"""The contract of instance drivers.

Vocabulary
    machine     what a driver runs: an instance while it has processes. Known to the driver by its MachineId only.
    launch      everything a machine needs to run, decided beforehand by the instance service: root file system already
                mounted, interfaces named, limits parsed. A driver reads no database and takes no decision of policy.
    monitor     the process that holds a machine and outlives the daemon. Killing the daemon never touches a machine.
    adopt       after a daemon start: find the machines that still run and watch them again.

When called
    `start` after the service mounted storage and devices; `stop` ends processes only, the service then unmounts. Events
    (`MachineEvent`) come from the driver at any time, also for what nobody asked for: a guest that powers itself off.
    Methods of different machines may run at the same time; of one machine, the service serialises all but `exec`, `state`.

Errors
    Conflict when the machine is not in the state that a call needs, HostError when the kernel or a tool failed (with the end
    of the machine's log), DeadlineExceeded when a graceful stop took too long, Unsupported for what this host cannot do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from atoll.domain.idmap import IdMap
from atoll.domain.status import InstanceStatus
from atoll.host.file_session import FileSession
from atoll.host.peer import Peer

CONSOLE_LOG_BYTES = 128 << 10


@dataclass(frozen=True, slots=True)
class MachineId:
    """Names a machine for its driver. `key` is unique on the host: `project_name`, or `name` in `default`."""

    project: str
    name: str

    @property
    def key(self) -> str:
        """Safe as a file, cgroup and liblxc name. No project may contain an underscore, so it cannot be ambiguous."""
        return self.name if self.project == "default" else f"{self.project}_{self.name}"


@dataclass(frozen=True, slots=True)
class NicSpec:
    """A virtual ethernet pair. The driver creates it on start: `host_name` outside, `guest_name` inside."""

    device: str
    host_name: str
    guest_name: str
    hwaddr: str
    bridge: str = ""  # interface to attach `host_name` to; empty: attached to nothing (p2p)
    mtu: int = 0  # 0: the kernel's or the bridge's default


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A place of the host that is shown inside the machine too, with the attributes and owners that its mount has on the host.

    `target` is relative to the guest's root; links on the way are followed below that root. `options` are words of mount
    options: `bind` or, with all that is mounted below the source, `rbind`; restrictions; one of `private`, `shared`, `slave`,
    `unbindable`, with an `r` before it for the mounts below too. Nothing that a machine mounts in it ever shows on the host;
    what the host mounts below the source shows in the machine with `shared` and `slave`.
    """

    device: str
    source: str
    target: str
    options: tuple[str, ...] = ("bind",)
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class Plugged:
    """Interfaces and mounts that a running machine should have."""

    nics: Sequence[NicSpec] = ()
    mounts: Sequence[MountSpec] = ()


@dataclass(frozen=True, slots=True)
class DiskLimit:
    """Of the traffic with one disk, a second; 0 means no limit."""

    read_bytes: int = 0
    read_requests: int = 0
    write_bytes: int = 0
    write_requests: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits, parsed. None means no limit."""

    cpu_set: str = ""  # "0-3,5"; empty: all
    cpu_quota_us: int | None = None
    cpu_period_us: int = 100_000
    cpu_shares: int | None = None  # 2..1024-based weight
    memory_bytes: int | None = None
    memory_soft: bool = False
    memory_swap: bool = True
    memory_swap_priority: int | None = None
    processes: int | None = None
    disk_priority: int | None = None
    disks: Mapping[str, DiskLimit] = field(default_factory=dict)  # by the host's number of the disk, "8:0"
    network_priority: int = 0  # 0..10; a driver that cannot hold it says so in the log and runs the machine all the same
    hugepages: Mapping[str, int] = field(default_factory=dict)  # "64KB" -> bytes
    rlimits: Mapping[str, str] = field(default_factory=dict)  # kernel name in lower case -> "soft:hard" or "n" or "unlimited"


@dataclass(frozen=True, slots=True)
class SyscallPolicy:
    """Which system calls a machine may make. Lines are `name` or `name action [index,value,op]…`, checked by the key tables."""

    deny_default: bool = True  # the driver's list of calls that no container needs
    deny_compat: bool = False  # those of another architecture that the CPU also runs
    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()  # if any, all others are denied, and the fields above do not count
    raw: str = ""  # driver-specific text of `raw.seccomp`, in place of all of these


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a machine needs to run."""

    id: MachineId
    uuid: str
    rootfs: Path  # mounted, ids on it already as the machine sees them (or `rootfs_idmap` says liblxc shall shift)
    log_dir: Path
    run_dir: Path  # for the driver's generated files; survives a daemon restart, not a reboot of the host
    hostname: str
    architecture: str
    idmap: IdMap | None  # None: privileged
    rootfs_idmap: bool = False  # True: `rootfs` has plain ids and the driver asks for an idmapped mount of it
    nics: Sequence[NicSpec] = ()
    mounts: Sequence[MountSpec] = ()
    limits: Limits = field(default_factory=Limits)
    environment: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    nesting: bool = False
    syscalls: SyscallPolicy = field(default_factory=lambda: SyscallPolicy())
    raw: str = ""  # driver-specific text of `raw.lxc`
    apparmor: str = ""  # lines of `raw.apparmor`, added to the machine's profile where the host has AppArmor
    autostart_reboot: bool = True


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A command to run inside. The file descriptors are owned by the caller and may be closed once `exec` returned."""

    command: Sequence[str]
    environment: Mapping[str, str]
    user: int
    group: int
    cwd: str
    stdin: int
    stdout: int
    stderr: int
    terminal: bool = False  # the three are one pty's slave: make it the controlling terminal


class ExecProcess(Protocol):
    """A command that runs inside a machine."""

    @property
    def pid(self) -> int:
        """Its process id on the host."""

    async def wait(self) -> int:
        """Its exit status: 0..255, 128+n when killed by signal n, 127 not found, 126 not executable."""

    def signal(self, number: int) -> None:
        """Send a signal to it (and, on a terminal, its foreground group)."""


class Console(Protocol):
    """A hold on a machine's console, the terminal that its init writes to. Nobody else has one meanwhile."""

    @property
    def fd(self) -> int:
        """A terminal's master, close-on-exec: reading gives what the guest writes, EIO when the machine has ended. It is to be
        read all the time, as what shows the console to everybody waits for it."""

    async def resize(self, *, width: int, height: int) -> None:
        """Tell the guest the size of the terminal in characters; nothing wrong where it cannot be told."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True, slots=True)
class Resident:
    """Where a process runs: a machine, and the host's user id of that machine's root."""

    machine: MachineId
    root: int


@dataclass(frozen=True, slots=True)
class NicState:
    """An interface as the guest has it; addresses as (family, address, prefix length, scope)."""

    name: str
    host_name: str
    hwaddr: str
    mtu: int
    up: bool
    kind: str  # LXD's type word: broadcast, loopback, point-to-point
    addresses: Sequence[tuple[str, str, int, str]]
    counters: Mapping[str, int]  # LXD's names: bytes_received, bytes_sent, packets_received, … errors_*, packets_dropped_*


@dataclass(frozen=True, slots=True)
class MachineState:
    """A machine's figures at one moment. Bytes and nanoseconds."""

    status: InstanceStatus
    pid: int = 0
    processes: int = 0
    cpu_ns: int = 0
    memory: int = 0
    memory_peak: int = 0
    swap: int = 0
    swap_peak: int = 0
    nics: Sequence[NicState] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a machine's memory is, in bytes. `limit` is None where only the host's memory limits it."""

    used: int = 0
    limit: int | None = None
    active_anon: int = 0
    active_file: int = 0
    inactive_anon: int = 0
    inactive_file: int = 0
    cached: int = 0
    dirty: int = 0
    mapped: int = 0
    rss: int = 0
    shmem: int = 0
    swap: int = 0
    unevictable: int = 0
    writeback: int = 0
    oom_kills: int = 0  # a count


@dataclass(frozen=True, slots=True)
class DiskTraffic:
    """What went between a machine and one disk of the host since it was started."""

    read_bytes: int = 0
    reads: int = 0
    written_bytes: int = 0
    writes: int = 0


@dataclass(frozen=True, slots=True)
class Measures:
    """What monitoring counts of a machine. Nanoseconds of CPU by (number of the CPU, "user" or "system"), all under "0" where
    the host does not tell them apart; disks by the host's name of them; interfaces as the guest names them, which may be any
    text, with `NicState.counters`."""

    processes: int
    cpu_ns: Mapping[tuple[str, str], int]
    memory: Memory
    disks: Mapping[str, DiskTraffic]
    nics: Mapping[str, Mapping[str, int]]


class MachineEventKind(StrEnum):
    """What happened to a machine."""

    STARTED = "started"
    STOPPED = "stopped"
    REBOOTED = "rebooted"
    FROZEN = "frozen"
    THAWED = "thawed"


@dataclass(frozen=True, slots=True)
class MachineEvent:
    """Told to the subscriber on the event loop, in order for one machine."""

    id: MachineId
    kind: MachineEventKind


Subscriber = Callable[[MachineEvent], None]


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """What a driver says of itself in `environment` of GET /1.0."""

    name: str
    version: str
    features: Mapping[str, str] = field(default_factory=dict)  # LXD's lxc_features and kernel_features, "true"/"false"


class InstanceDriver(Protocol):
    """Runs machines. Constructed with the state directory; `open` is called once before all else, `close` at the end."""

    async def open(self, subscriber: Subscriber) -> DriverInfo:
        """Check the host, start helpers, and from now on tell the subscriber. Unsupported, with a hint, if it cannot work."""

    async def close(self) -> None:
        """Stop helpers and watching; machines go on."""

    async def adopt(self, candidates: Sequence[MachineId], run_dirs: Mapping[MachineId, Path]) -> set[MachineId]:
        """Of the candidates, those that run now; they are watched from here on. One pass over the host, not one fork each."""

    async def start(self, launch: Launch) -> None:
        """Run it; returns when its init runs. On failure nothing of it is left running."""

    async def stop(self, machine: MachineId, *, timeout: float | None) -> None:
        """End its processes; returns when all are gone and STOPPED was told. `timeout=None` kills at once; else init is asked to
        shut down and DeadlineExceeded is raised (the machine still running) when it has not after that many seconds; a
        negative timeout waits without end."""

    async def freeze(self, machine: MachineId) -> None:
        """Stop its processes from running until `thaw`."""

    async def thaw(self, machine: MachineId) -> None:
        """The reverse of `freeze`."""

    def status(self, machine: MachineId) -> InstanceStatus:
        """From memory, at once; STOPPED for a machine not known."""

    async def state(self, machines: Sequence[MachineId]) -> Mapping[MachineId, MachineState]:
        """Figures of all given machines in one pass; without a process started or namespace entered for each."""

    async def measure(self, machines: Sequence[MachineId]) -> Mapping[MachineId, Measures]:
        """What monitoring counts, of those of the given machines that run; in one pass, as cheap as `state`."""

    async def listening(self, machines: Sequence[MachineId]) -> Mapping[MachineId, frozenset[int]]:
        """The TCP ports on which something inside listens for others than itself, of those of the given machines that run; as
        cheap as `state`."""

    async def exec(self, machine: MachineId, spec: ExecSpec) -> ExecProcess:
        """Start a command inside, in all of the machine's namespaces, cgroups and confinement."""

    async def open_terminal(self, machine: MachineId, *, user: int, group: int) -> tuple[int, int]:
        """A fresh pty of the machine's own devpts, owned by that guest user: (master, slave) file descriptors, close-on-exec."""

    async def open_console(self, machine: MachineId) -> Console:
        """Attach to its console. Conflict while somebody else is attached."""

    async def console_log(self, log_dir: Path) -> bytes | None:
        """The end of what a machine with that `Launch.log_dir` showed on its console since it was started last, whether it
        still runs or not, at most CONSOLE_LOG_BYTES. None if nothing was ever kept."""

    async def clear_console_log(self, log_dir: Path) -> None:
        """Forget it."""

    async def set_limits(self, machine: MachineId, limits: Limits) -> None:
        """Apply to a running machine: all of it, or HostError and nothing is changed."""

    async def pin(self, cpus: Mapping[MachineId, str]) -> None:
        """Give running machines other CPUs (`0-2,5`; empty: all) in one pass; those that do not run are passed over."""

    def check_raw(self, text: str) -> None:
        """BadRequest for a `raw.lxc` that `start` would refuse, as far as can be told without a machine."""

    async def attach_nic(self, machine: MachineId, nic: NicSpec, *, userns_root: int) -> None:
        """Hotplug."""

    async def detach_nic(self, machine: MachineId, nic: NicSpec) -> None:
        """Hot-unplug; nothing wrong if the guest already removed it."""

    async def attach_mount(self, machine: MachineId, mount: MountSpec) -> None:
        """Mount into the running machine's mount namespace, confined below its root."""

    async def detach_mount(self, machine: MachineId, mount: MountSpec) -> None:
        """Unmount it there, and let the place go if it is empty; nothing wrong if it is not mounted, or something else is. What
        is open in it stays open."""

    async def lacking(self, wanted: Mapping[MachineId, Plugged]) -> Mapping[MachineId, frozenset[str]]:
        """By machine, of those given that run, the names of the devices that it lacks: a guest that reboots by itself comes up as
        it was launched. One pass over the host; machines that lack nothing are left out."""

    async def surplus(
        self, wanted: Mapping[MachineId, Plugged], run_dirs: Mapping[MachineId, Path]
    ) -> Mapping[MachineId, Sequence[NicSpec]]:
        """The reverse: interfaces that a machine was launched with and has, but should not have any more. They were taken from
        it, and came back when its guest rebooted by itself. No other interface is ever among them."""

    async def open_files(self, machine: MachineId, root: Path | None) -> FileSession:
        """A worker on the files of a running machine, seen and touched as its own root does; or, of one that does not run,
        on the tree `root` with plain ids. The caller ends it; so does the end of the machine."""

    async def init_pid(self, machine: MachineId) -> int:
        """Host pid of the guest's init. Conflict if it does not run."""

    async def find_by_process(self, process: Peer) -> Resident | None:
        """The machine that a process runs in, itself or in something nested in that machine. None for a process of none of the
        machines, and for one that ended meanwhile: the answer is about the process that is held, never about another that
        got its number. From what is kept of each machine; without a look at other processes."""
