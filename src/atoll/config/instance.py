"""The keys of instances and profiles, without the volatile ones (see `volatile`).

Each row says which project restriction rules over it (`guard`); the default of a row is the strictest.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from atoll.config import hostvalues, timevalues, volatile
from atoll.config.server import USER
from atoll.config.table import Guard, Key, KeyTable
from atoll.config.values import (
    BLOB,
    BOOL,
    INTEGER,
    NATURAL,
    PRIORITY,
    SIZE,
    SIZE_OR_PERCENT,
    TEXT,
    UINT32,
    integer,
    list_of,
    matching,
    one_of,
)  # fmt: skip
from atoll.domain.errors import BadRequest

CONTAINER = "container"
UNPRIVILEGED = "unprivileged container"
VIRTUAL_MACHINE = "virtual machine"
CLOUD_INIT_IMAGE = "if supported by image"

_OPEN = Guard.OPEN
_ENVIRONMENT_NAME = r"[A-Za-z_][A-Za-z0-9_.]{0,127}"
_SYSCTL_NAME = r"[A-Za-z0-9_][A-Za-z0-9_/-]*(\.[A-Za-z0-9_/-]+)*"
_SYSCALL_POLICY = "container_syscall_filtering"
_VERSION_EXPRESSION = matching("version expression", r"[A-Za-z0-9_.,<>=! |-]{1,256}")
# Limits that bear on the instance's own processes alone; others (memlock, nice, rtprio, …) take from the host.
_OWN_RESOURCES = {
    "as": "Size of a process's virtual memory",
    "core": "Size of a core dump",
    "cpu": "CPU seconds that a process may use",
    "data": "Size of a process's data segment",
    "fsize": "Size of files that a process may create",
    "locks": "File locks that a process may hold",
    "nofile": "Open files of a process",
    "nproc": "Processes of a user",
    "sigpending": "Signals queued for a user",
}

_MISCELLANEOUS = (
    Key("agent.nic_config", BOOL, "false", "Whether the agent gives network interfaces the devices' names and MTU",
        condition=VIRTUAL_MACHINE, since="agent_nic_config", guard=_OPEN),
    Key("cluster.evacuate", one_of("auto", "migrate", "live-migrate", "stop"), "auto",
        "What happens to the instance when its member is evacuated", since="clustering_evacuation", guard=_OPEN),
    Key("environment.*", TEXT, "", "Environment variable of the instance and of what is executed in it", live=True,
        guard=_OPEN, wild=_ENVIRONMENT_NAME),
    Key("image.*", BLOB, "", "Property of the image the instance was created from",
        since="container_image_properties", guard=_OPEN),
    Key("linux.kernel_modules", hostvalues.KERNEL_MODULES, "", "Kernel modules to load before the instance starts",
        live=True, condition=CONTAINER),
    Key("linux.sysctl.*", TEXT, "", "Value of a kernel parameter in the container", condition=CONTAINER,
        since="linux_sysctl", wild=_SYSCTL_NAME),
)  # fmt: skip

_BOOT = (
    Key("boot.autostart", BOOL, "", "Whether to start the instance when the server starts", guard=_OPEN,
        shown_default="restore the last state"),
    Key("boot.autostart.delay", NATURAL, "0", "Seconds to wait after it started before the next one is started",
        guard=_OPEN),
    Key("boot.autostart.priority", INTEGER, "0", "Order in which instances are started, highest first", guard=_OPEN),
    Key("boot.host_shutdown_timeout", NATURAL, "30", "Seconds to wait for it to shut down before it is stopped by force",
        live=True, since="container_host_shutdown_timeout"),
    Key("boot.stop.priority", INTEGER, "0", "Order in which instances are stopped, highest first",
        since="container_stop_priority", guard=_OPEN),
)  # fmt: skip


def _seed(name: str, doc: str, *, shown_default: str = "", since: str = "cloud_init") -> Key:
    return Key(name, BLOB, "", doc, condition=CLOUD_INIT_IMAGE, since=since, guard=_OPEN, shown_default=shown_default)


_CLOUD_INIT = (
    _seed("cloud-init.network-config", "Network configuration for cloud-init", shown_default="DHCP on eth0"),
    _seed("cloud-init.user-data", "User data for cloud-init", shown_default="`#cloud-config`"),
    _seed("cloud-init.vendor-data", "Vendor data for cloud-init", shown_default="`#cloud-config`"),
    _seed("user.meta-data", "Meta data for cloud-init, appended to the generated", since="1.0"),
    _seed("user.network-config", "Former name of `cloud-init.network-config`", since="1.0"),
    _seed("user.user-data", "Former name of `cloud-init.user-data`", since="1.0"),
    _seed("user.vendor-data", "Former name of `cloud-init.vendor-data`", since="1.0"),
)

_LIMITS = (
    Key("limits.cpu", hostvalues.CPU_LIMIT, "", "Number of CPUs (`4`), or the very CPUs (`0-3,5`, `1-1`)", live=True,
        guard=_OPEN, shown_default="all; 1 for virtual machines"),
    Key("limits.cpu.allowance", hostvalues.CPU_ALLOWANCE, "100%",
        "Share of the CPUs under load (`50%`), or a hard quota (`25ms/100ms`)", live=True, condition=CONTAINER,
        guard=_OPEN),
    Key("limits.cpu.priority", PRIORITY, "10", "Precedence among instances on the same CPUs, 0 to 10", live=True,
        condition=CONTAINER, guard=_OPEN),
    Key("limits.disk.priority", PRIORITY, "5", "Precedence of its disk requests under load, 0 to 10", live=True,
        guard=_OPEN),
    *(
        Key(f"limits.hugepages.{size}", SIZE, "", f"Memory in huge pages of {size}, at most", live=True,
            condition=CONTAINER, since="limits_hugepages", guard=_OPEN)
        for size in ("64KB", "1MB", "2MB", "1GB")
    ),
    *(
        Key(f"limits.kernel.{name}", hostvalues.RLIMIT, "", f"{doc}: `<soft>[:<hard>]` or `unlimited`",
            condition=CONTAINER, since="kernel_limits", guard=_OPEN)
        for name, doc in _OWN_RESOURCES.items()
    ),
    Key("limits.kernel.*", hostvalues.RLIMIT, "", "Another resource limit of the kernel, by its name in small letters",
        condition=CONTAINER, since="kernel_limits", wild=r"[a-z]{1,32}"),
    Key("limits.memory", SIZE_OR_PERCENT, "", "Memory, in bytes or as a percentage of the host's", live=True,
        guard=_OPEN, shown_default="all; 1GiB for virtual machines"),
    Key("limits.memory.enforce", one_of("hard", "soft"), "hard",
        "Whether the limit holds always, or only while the host is short of memory", live=True, condition=CONTAINER,
        guard=_OPEN),
    Key("limits.memory.hugepages", BOOL, "false", "Whether to back the memory with huge pages",
        condition=VIRTUAL_MACHINE),
    Key("limits.memory.swap", BOOL, "true", "Whether less used pages may be swapped out", live=True,
        condition=CONTAINER, guard=_OPEN),
    Key("limits.memory.swap.priority", PRIORITY, "10", "How late it is swapped out, 0 to 10", live=True,
        condition=CONTAINER, guard=_OPEN),
    Key("limits.network.priority", PRIORITY, "0", "Precedence of its network traffic under load, 0 to 10", live=True,
        guard=_OPEN),
    Key("limits.processes", integer(1), "", "Processes, at most", live=True, condition=CONTAINER, guard=_OPEN,
        shown_default="no limit"),
)  # fmt: skip

_MIGRATION = (
    Key("migration.incremental.memory", BOOL, "false", "Whether to send the memory in rounds, for a shorter pause",
        live=True, condition=CONTAINER, since="migration_pre_copy", guard=_OPEN),
    Key("migration.incremental.memory.goal", integer(0, 100), "70", "Percentage of memory in step before the pause",
        live=True, condition=CONTAINER, since="migration_pre_copy", guard=_OPEN),
    Key("migration.incremental.memory.iterations", integer(1, 999), "10", "Rounds before the pause, at most",
        live=True, condition=CONTAINER, since="migration_pre_copy", guard=_OPEN),
    Key("migration.stateful", BOOL, "false", "Whether to allow stateful stop, start and snapshots",
        condition=VIRTUAL_MACHINE, since="migration_stateful", guard=_OPEN),
)  # fmt: skip

_NVIDIA = (
    Key("nvidia.driver.capabilities", list_of(matching("driver capability", r"[a-z0-9]{1,32}")), "compute,utility",
        "Driver capabilities the instance needs", condition=CONTAINER, since="nvidia_runtime_config"),
    Key("nvidia.require.cuda", _VERSION_EXPRESSION, "", "CUDA version the instance needs", condition=CONTAINER,
        since="nvidia_runtime_config"),
    Key("nvidia.require.driver", _VERSION_EXPRESSION, "", "Driver version the instance needs", condition=CONTAINER,
        since="nvidia_runtime_config"),
    Key("nvidia.runtime", BOOL, "false", "Whether to pass in the host's NVIDIA and CUDA libraries",
        condition=CONTAINER, since="nvidia_runtime"),
)  # fmt: skip

_RAW = (
    Key("raw.apparmor", BLOB, "", "Lines appended to the generated AppArmor profile", live=True),
    Key("raw.idmap", hostvalues.IDMAP, "", "Host ids to pass through, like `both 1000 1000`", condition=UNPRIVILEGED,
        since="id_map"),
    Key("raw.lxc", BLOB, "", "Lines appended to the generated LXC configuration", condition=CONTAINER),
    Key("raw.qemu", BLOB, "", "Words appended to the generated QEMU command line", condition=VIRTUAL_MACHINE,
        since="virtual-machines"),
    Key("raw.qemu.conf", BLOB, "", "Changes to the generated `qemu.conf`", condition=VIRTUAL_MACHINE,
        since="qemu_raw_conf"),
    Key("raw.seccomp", BLOB, "", "The seccomp policy, in place of the generated", condition=CONTAINER,
        since="container_syscall_filtering"),
)  # fmt: skip


def _intercept(name: str, doc: str, *, since: str = "container_syscall_intercept", guard: Guard) -> Key:
    key = f"security.syscalls.intercept.{name}"
    return Key(key, BOOL, "false", doc, condition=CONTAINER, since=since, guard=guard)


_INTERCEPTION = (
    _intercept("bpf", "Whether to handle `bpf`", since="container_syscall_intercept_bpf_devices",
               guard=Guard.INTERCEPTION),
    _intercept("bpf.devices", "Whether to allow `bpf` programs for the devices cgroup",
               since="container_syscall_intercept_bpf_devices", guard=Guard.INTERCEPTION),
    _intercept("mknod", "Whether to handle `mknod`, for a few harmless devices", guard=Guard.INTERCEPTION),
    # Mounting a file system hands untrusted data to the kernel: it stays low-level where interception is allowed.
    _intercept("mount", "Whether to handle `mount`", since="container_syscall_intercept_mount", guard=Guard.LOW_LEVEL),
    Key("security.syscalls.intercept.mount.allowed", hostvalues.FILESYSTEMS, "",
        "File systems that processes of the instance may mount", live=True, condition=CONTAINER,
        since="container_syscall_intercept_mount"),
    Key("security.syscalls.intercept.mount.fuse", hostvalues.FUSE_FILESYSTEMS, "",
        "File systems to mount by a FUSE program instead, like `ext4=fuse2fs`", live=True, condition=CONTAINER,
        since="container_syscall_intercept_mount_fuse"),
    Key("security.syscalls.intercept.mount.shift", BOOL, "false", "Whether to shift the ids of such mounts", live=True,
        condition=CONTAINER, since="container_syscall_intercept_mount"),
    _intercept("sched_setscheduler", "Whether to handle `sched_setscheduler`, to raise priorities",
               since="container_syscall_intercept_sched_setscheduler", guard=Guard.INTERCEPTION),
    _intercept("setxattr", "Whether to handle `setxattr`, for a few harmless attributes", guard=Guard.INTERCEPTION),
)  # fmt: skip

_SECURITY = (
    Key("security.agent.metrics", BOOL, "true", "Whether to ask the agent for state and metrics",
        condition=VIRTUAL_MACHINE, since="qemu_metrics", guard=_OPEN),
    Key("security.devlxd", BOOL, "true", "Whether `/dev/lxd` is present in the instance", since="restrict_devlxd",
        guard=_OPEN),
    Key("security.devlxd.images", BOOL, "false", "Whether `/1.0/images` is offered over `/dev/lxd`",
        condition=CONTAINER, since="devlxd_images"),
    Key("security.idmap.base", UINT32, "", "First host id of the map", condition=UNPRIVILEGED, since="id_map_base",
        shown_default="chosen by the server"),
    Key("security.idmap.isolated", BOOL, "false", "Whether the map is shared with no other isolated instance",
        condition=UNPRIVILEGED, since="id_map", guard=Guard.PRIVILEGE),
    Key("security.idmap.size", integer(1, 2**32 - 1), "", "Size of the map", condition=UNPRIVILEGED, since="id_map",
        shown_default="chosen by the server"),
    Key("security.nesting", BOOL, "false", "Whether containers may be run inside", live=True, condition=CONTAINER,
        guard=Guard.NESTING),
    Key("security.privileged", BOOL, "false", "Whether to run without a user namespace", condition=CONTAINER,
        guard=Guard.PRIVILEGE),
    Key("security.protection.delete", BOOL, "false", "Whether to refuse to delete the instance", live=True,
        since="container_protection_delete", guard=_OPEN),
    Key("security.protection.shift", BOOL, "false", "Whether to refuse to change the ids of its files on start",
        live=True, condition=CONTAINER, since="container_protection_shift", guard=_OPEN),
    Key("security.secureboot", BOOL, "true", "Whether UEFI secure boot is on", condition=VIRTUAL_MACHINE,
        since="virtual-machines", guard=_OPEN),
    Key("security.syscalls.allow", hostvalues.SYSCALLS, "", "System calls to allow, one a line; all others are denied",
        condition=CONTAINER, since=_SYSCALL_POLICY),
    Key("security.syscalls.deny", hostvalues.SYSCALLS, "", "System calls to deny, one a line", condition=CONTAINER,
        since=_SYSCALL_POLICY),
    Key("security.syscalls.deny_compat", BOOL, "false",
        "Whether to deny the system calls that only 32-bit programs make, on x86_64", condition=CONTAINER,
        since=_SYSCALL_POLICY),
    Key("security.syscalls.deny_default", BOOL, "true", "Whether to deny the default list of system calls",
        condition=CONTAINER, since=_SYSCALL_POLICY),
    *_INTERCEPTION,
)  # fmt: skip

_SNAPSHOTS = (
    Key("snapshots.expiry", timevalues.EXPIRY, "", "When snapshots are deleted, like `1M 2H 3d 4w 5m 6y`",
        since="snapshot_expiry", guard=_OPEN, shown_default="never"),
    Key("snapshots.pattern", timevalues.PATTERN, "snap%d", "Template of the names of snapshots", since="snapshot_scheduling",
        guard=_OPEN),
    Key("snapshots.schedule", timevalues.SCHEDULE, "", "Cron line or `@` aliases by which snapshots are taken",
        since="snapshot_scheduling", guard=_OPEN, shown_default="no snapshots"),
    Key("snapshots.schedule.stopped", BOOL, "false", "Whether to take snapshots of a stopped instance too",
        since="snapshot_scheduling", guard=_OPEN),
)  # fmt: skip


def _refuse_two_syscall_policies(config: Mapping[str, str]) -> None:
    policies = [name for name, text in config.items() if text and name.startswith("security.syscalls.")]
    if config.get("security.syscalls.allow") and any(name.startswith("security.syscalls.deny") for name in policies):
        raise BadRequest("security.syscalls.allow is mutually exclusive with security.syscalls.deny*")
    if config.get("raw.seccomp") and policies:
        raise BadRequest("raw.seccomp is mutually exclusive with security.syscalls*")


INSTANCE = KeyTable(
    "instance",
    (
        *_BOOT, *_CLOUD_INIT, *_MISCELLANEOUS, *_LIMITS, *_MIGRATION, *_NVIDIA, *_RAW, *_SECURITY, *_SNAPSHOTS,
        *volatile.KEYS, USER,
    ),
    rules=(_refuse_two_syscall_policies,),
)  # fmt: skip


@functools.cache
def instance_table(instance_type: str) -> KeyTable:
    """The keys that an instance of one type ("container" or "virtual-machine") may have. Profiles take INSTANCE."""
    other = CONTAINER if instance_type == "virtual-machine" else VIRTUAL_MACHINE
    keys = (key for key in INSTANCE.rows() if not key.condition.endswith(other))
    return KeyTable(instance_type, keys, rules=(_refuse_two_syscall_policies,))
