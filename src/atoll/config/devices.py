"""The keys of devices, per type, and what a device's keys ask of one another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from atoll.config import hostvalues, netvalues, nic
from atoll.config.server import USER
from atoll.config.table import Key, KeyTable
from atoll.config.values import BOOL, DISK_RATE, NATURAL, SIZE, UINT32, ValueType, matching, one_of, parse_bool, quoted
from atoll.domain import names
from atoll.domain.errors import BadRequest

TYPES = (
    "none", "nic", "disk", "unix-char", "unix-block", "usb", "gpu", "infiniband", "proxy", "unix-hotplug", "tpm", "pci",
)  # fmt: skip
"""In the order of their ids in the database, from 0."""
NICTYPES = tuple(nic.KEYS)
GPUTYPES = ("physical", "mdev", "mig", "sriov")
_INFINIBAND_TYPES = ("physical", "sriov")
_PROPAGATIONS = ("private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable")
_VM = "virtual machine"
_CONTAINER = "container"

_OWNER = (
    Key("gid", UINT32, "0", "GID of the owner in the instance", condition=_CONTAINER),
    Key("uid", UINT32, "0", "UID of the owner in the instance", condition=_CONTAINER),
)
_MODE = Key("mode", hostvalues.MODE, "0660", "Mode in the instance", condition=_CONTAINER)
_VENDOR = (
    Key("productid", hostvalues.HEX4, "", "Product id"),
    Key("vendorid", hostvalues.HEX4, "", "Vendor id"),
)

_SOURCE = ValueType("source", hostvalues.parse_path)

_DISK = (
    Key("boot.priority", UINT32, "", "Order of booting from it, highest first", condition=_VM,
        since="vm_boot_priority"),
    Key("ceph.cluster_name", netvalues.NAME, "ceph", "Ceph cluster", since="container_disk_ceph",
        condition="ceph or cephfs source"),
    Key("ceph.user_name", netvalues.NAME, "admin", "Ceph user", since="container_disk_ceph",
        condition="ceph or cephfs source"),
    Key("limits.max", DISK_RATE, "", "Reads and writes, in bytes a second or `iops`, at most", live=True),
    Key("limits.read", DISK_RATE, "", "Reads, in bytes a second or `iops`, at most", live=True),
    Key("limits.write", DISK_RATE, "", "Writes, in bytes a second or `iops`, at most", live=True),
    Key("path", hostvalues.PATH, "", "Path in the instance; `/` is the root disk"),
    Key("pool", netvalues.NAME, "", "Storage pool of the volume", since="storage"),
    Key("propagation", one_of(*_PROPAGATIONS), "", "How mounts beneath are shared with the host",
        since="container_mount_propagation", shown_default="private"),
    Key("raw.mount.options", hostvalues.MOUNT_OPTIONS, "", "Mount options of the file system",
        since="container_raw_mount"),
    Key("readonly", BOOL, "false", "Whether to mount it read-only"),
    Key("recursive", BOOL, "false", "Whether to mount what is mounted beneath the source too"),
    Key("required", BOOL, "true", "Whether a missing source is an error"),
    Key("shift", BOOL, "false", "Whether to shift the source's ids to those of the instance", condition=_CONTAINER,
        since="container_disk_shift"),
    Key("size", SIZE, "", "Size of the disk; of the root disk alone", live=True),
    Key("size.state", SIZE, "", "Size of the volume for the runtime state of a virtual machine",
        since="disk_state_quota"),
    Key("source", _SOURCE, "", "Path on the host, name of a volume, `ceph:`, `cephfs:` or `cloud-init:config`"),
)  # fmt: skip

_UNIX = (
    *_OWNER,
    Key("major", NATURAL, "", "Major number", shown_default="the host's"),
    Key("minor", NATURAL, "", "Minor number", shown_default="the host's"),
    _MODE,
    Key("path", hostvalues.PATH, "", "Path in the instance"),
    Key("required", BOOL, "true", "Whether a missing device is an error", since="unix_device_hotplug"),
    Key("source", hostvalues.ABSOLUTE_PATH, "", "Path on the host", since="unix_device_rename"),
)  # fmt: skip

_HOTPLUG = (
    *_OWNER,
    _MODE,
    *_VENDOR,
    Key("required", BOOL, "false", "Whether a missing device is an error"),
)

_PROXY = (
    Key("bind", one_of("host", "instance", "guest", "container"), "host", "Side that listens", since="proxy"),
    Key("connect", netvalues.PROXY_ADDRESS, "", "Where to connect: `<type>:<addr>:<port>[-<port>][,<port>]`",
        since="proxy"),
    Key("gid", UINT32, "0", "GID of the owner of the socket", since="proxy_unix_dac_properties"),
    Key("listen", netvalues.PROXY_ADDRESS, "", "Where to listen: `<type>:<addr>:<port>[-<port>][,<port>]`",
        since="proxy"),
    Key("mode", hostvalues.MODE, "0644", "Mode of the socket", since="proxy_unix_dac_properties"),
    Key("nat", BOOL, "false", "Whether to use NAT in place of a process", since="proxy_nat"),
    Key("proxy_protocol", BOOL, "false", "Whether to send the client's address in a PROXY header",
        since="proxy_haproxy_protocol"),
    Key("security.gid", UINT32, "0", "GID to run as", since="unix_priv_drop"),
    Key("security.uid", UINT32, "0", "UID to run as", since="unix_priv_drop"),
    Key("uid", UINT32, "0", "UID of the owner of the socket", since="proxy_unix_dac_properties"),
)  # fmt: skip

_GPU_CARD = (
    Key("id", matching("card id", r"[0-9]{1,4}"), "", "Card id"),
    Key("pci", hostvalues.PCI_ADDRESS, "", "PCI address"),
    *_VENDOR,
)
_GPU: dict[str, tuple[Key, ...]] = {
    "physical": (*_OWNER, _MODE, *_GPU_CARD),
    "mdev": (
        Key("mdev", matching("mdev profile", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"), "", "Profile of the virtual GPU",
            since="gpu_mdev"),
        *_GPU_CARD,
    ),
    "mig": (
        Key("mig.ci", NATURAL, "", "Compute instance", since="gpu_mig"),
        Key("mig.gi", NATURAL, "", "GPU instance", since="gpu_mig"),
        Key("mig.uuid", matching("MIG UUID", r"(MIG-)?[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"), "",
            "Identity of the MIG device; `MIG-` may be left out", since="gpu_mig_uuid"),
        *_GPU_CARD,
    ),
    "sriov": _GPU_CARD,
}  # fmt: skip

_INFINIBAND = (
    Key("hwaddr", netvalues.INFINIBAND_MAC, "", "Address, of 20 bytes or the last 8", shown_default="random"),
    Key("mtu", netvalues.MTU, "", "MTU of the interface", shown_default="the parent's"),
    Key("name", netvalues.INTERFACE, "", "Name of the interface in the instance", shown_default="by the kernel"),
    Key("parent", netvalues.INTERFACE, "", "Interface of the host", since="infiniband"),
)

_KEYS: dict[str, tuple[Key, ...]] = {
    "none": (),
    "disk": _DISK,
    "unix-char": _UNIX,
    "unix-block": _UNIX,
    "usb": _HOTPLUG,
    "infiniband": (Key("nictype", one_of(*_INFINIBAND_TYPES), "", "Kind of device", since="infiniband"), *_INFINIBAND),
    "proxy": _PROXY,
    "unix-hotplug": _HOTPLUG,
    "tpm": (
        Key("path", hostvalues.PATH, "", "Path in the container", condition=_CONTAINER, since="tpm_device_type"),
        Key("pathrm", hostvalues.PATH, "", "Path of the resource manager in the container", condition=_CONTAINER,
            since="tpm_device_type"),
    ),
    "pci": (Key("address", hostvalues.PCI_ADDRESS, "", "PCI address", since="pci_device_type"),),
}  # fmt: skip

_TYPE = Key("type", one_of(*TYPES), "", "Type of the device")
_NICTYPE = Key("nictype", one_of(*NICTYPES), "", "Kind of NIC, where no `network` is named")
_GPUTYPE = Key("gputype", one_of(*GPUTYPES), "physical", "Kind of GPU", since="gpu_mdev")


@functools.cache
def device_table(device_type: str, nictype: str = "") -> KeyTable:
    """The keys of one type of device. `nictype` is that of a NIC ("": it names a network), or the gputype of a GPU."""
    keys: tuple[Key, ...]
    if device_type == "nic":
        if nictype and nictype not in NICTYPES:
            raise BadRequest(f"Unsupported device type: NIC type {quoted(nictype)}")
        keys = (_NICTYPE, *(nic.KEYS[nictype] if nictype else nic.managed_keys()))
    elif device_type == "gpu":
        keys = (_GPUTYPE, *_gpu_keys(nictype or "physical"))
    elif device_type in _KEYS:
        keys = _KEYS[device_type]
    else:
        raise BadRequest(f"Unsupported device type {quoted(device_type)}")
    name = f"{device_type} device" if not nictype else f"{nictype} {device_type} device"
    return KeyTable(
        name,
        (_TYPE, *keys, USER),
        unknown='Invalid device option "{key}"',
        invalid='Invalid value for device option "{key}": {why}',
    )


def validate_device(name: str, device: Mapping[str, str], *, nictype: str = "") -> None:
    """Raise BadRequest unless the name, every key and value, and their combination are valid.

    `nictype` is what the network of a NIC makes it (a caller that has looked the network up passes it); a NIC's own
    `nictype` comes first. Whether the host has what a device names is the driver's matter.
    """
    names.device(name)
    device_type = device.get("type", "")
    if not device_type:
        raise BadRequest(f"Missing device type in config for device {quoted(name)}")
    kind = device.get("gputype", "") if device_type == "gpu" else (device.get("nictype") or nictype)
    kind = kind if device_type in ("nic", "gpu") else ""
    if device_type == "nic" and not kind and not device.get("network"):
        raise BadRequest(f"Device {quoted(name)} of type nic needs a nictype or a network")
    device_table(device_type, kind).validate(device)
    if device_type == "nic":
        nic.check(device, kind)
    elif (check := _CHECKS.get(device_type)) is not None:
        check(device)


def _gpu_keys(gputype: str) -> tuple[Key, ...]:
    if gputype not in _GPU:
        raise BadRequest(f"Unsupported device type: GPU type {quoted(gputype)}")
    return _GPU[gputype]


def _is_true(device: Mapping[str, str], name: str) -> bool:
    text = device.get(name)
    return parse_bool(text) if text else False


def _check_disk(device: Mapping[str, str]) -> None:
    path, source, pool = (device.get(name, "") for name in ("path", "source", "pool"))
    if pool and _is_true(device, "recursive"):
        raise BadRequest("The recursive option is only supported for additional bind-mounted paths")
    if path == "/":
        _check_root_disk(device)
        return
    if not source:
        raise BadRequest('Disk entry is missing the required "source" property')
    if device.get("size") or device.get("size.state"):
        raise BadRequest("Only the root disk may have a size quota")
    if pool and source.startswith("/"):
        raise BadRequest("Storage volumes cannot be specified as absolute paths")
    if pool and _is_true(device, "shift"):
        raise BadRequest('The "shift" property cannot be used with custom storage volumes')
    if (device.get("ceph.cluster_name") or device.get("ceph.user_name")) and not source.startswith(("ceph:", "cephfs:")):
        raise BadRequest("Invalid options ceph.cluster_name/ceph.user_name for a source that is not of Ceph")


def _check_root_disk(device: Mapping[str, str]) -> None:
    if device.get("source"):
        raise BadRequest('Root disk entry may not have a "source" property set')
    if not device.get("pool"):
        raise BadRequest('Root disk entry must have a "pool" property set')


def _check_unix(device: Mapping[str, str]) -> None:
    if not device.get("source") and not device.get("path"):
        raise BadRequest('Unix device entry is missing the required "source" or "path" property')
    if bool(device.get("major")) != bool(device.get("minor")):
        raise BadRequest('Both "major" and "minor" must be supplied for devices')


def _check_hotplug(device: Mapping[str, str]) -> None:
    if not device.get("vendorid") and not device.get("productid"):
        raise BadRequest("Unix hotplug devices require a vendorid or a productid")


def _check_proxy(device: Mapping[str, str]) -> None:
    _require(device, "Proxy", "listen", "connect")
    listen = netvalues.parse_proxy_address(device["listen"])
    connect = netvalues.parse_proxy_address(device["connect"])
    if max(1, len(connect.ports)) not in (1, len(listen.ports)):
        raise BadRequest("Mismatch between listen port(s) and connect port(s) count")
    proxy_protocol = _is_true(device, "proxy_protocol")
    if proxy_protocol and (not connect.protocol.startswith("tcp") or _is_true(device, "nat")):
        raise BadRequest("The PROXY header can only be sent to tcp servers in non-nat mode")
    if (listen.protocol != "unix" or listen.abstract) and any(device.get(name) for name in ("uid", "gid", "mode")):
        raise BadRequest("Only proxy devices for non-abstract unix sockets can carry uid, gid, or mode properties")
    if _is_true(device, "nat"):
        _check_proxy_nat(device, listen, connect)


def _check_proxy_nat(device: Mapping[str, str], listen: netvalues.ProxyAddress, connect: netvalues.ProxyAddress) -> None:
    if device.get("bind", "") not in ("", "host"):
        raise BadRequest("Only host-bound proxies can use NAT")
    if listen.protocol != connect.protocol or listen.protocol == "unix":
        raise BadRequest("Proxying in NAT mode is only supported between tcp and tcp, or udp and udp")
    if listen.host in ("0.0.0.0", "::"):
        raise BadRequest("Cannot listen on a wildcard address in NAT mode")
    if (":" in listen.host) != (":" in connect.host):
        raise BadRequest("Cannot mix IPv4 and IPv6 between listen and connect in NAT mode")


def _check_gpu(device: Mapping[str, str]) -> None:
    for chosen, others in (("pci", ("id", "productid", "vendorid")), ("id", ("productid", "vendorid"))):
        for name in others:
            if device.get(chosen) and device.get(name):
                raise BadRequest(f'Cannot use "{name}" when "{chosen}" is set')
    kind = device.get("gputype", "physical")
    if kind == "mdev":
        _require(device, "mdev GPU", "mdev")
    if kind == "mig":
        if device.get("mig.uuid") and (device.get("mig.gi") or device.get("mig.ci")):
            raise BadRequest('Cannot use "mig.gi" or "mig.ci" when "mig.uuid" is set')
        if not device.get("mig.uuid"):
            _require(device, "MIG GPU", "mig.gi", "mig.ci")


def _require(device: Mapping[str, str], kind: str, *keys: str) -> None:
    for name in keys:
        if not device.get(name):
            raise BadRequest(f'{kind} entry is missing the required "{name}" property')


_CHECKS: dict[str, Callable[[Mapping[str, str]], None]] = {
    "disk": _check_disk,
    "unix-char": _check_unix,
    "unix-block": _check_unix,
    "unix-hotplug": _check_hotplug,
    "proxy": _check_proxy,
    "gpu": _check_gpu,
    "infiniband": lambda device: _require(device, "Infiniband", "nictype", "parent"),
    "pci": lambda device: _require(device, "PCI", "address"),
}
