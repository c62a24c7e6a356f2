"""The keys in which the server keeps facts about an instance. Only the server writes them; all are low-level."""

from __future__ import annotations

from atoll.config import netvalues
from atoll.config.table import Key
from atoll.config.values import BOOL, FINGERPRINT, NATURAL, TEXT, UINT32, UUID, ValueType, matching, one_of

_POWER = one_of("RUNNING", "STOPPED", "FROZEN", "ERROR", "BROKEN", "READY")
# What domain.names.device lets through: it may contain dots (`eth0.100`), slashes and spaces.
_DEVICE = r"[^-.\x00-\x1f\x7f\x85\u2028\u2029][^\x00-\x1f\x7f\x85\u2028\u2029]{0,63}"


def _device(suffix: str, kind: ValueType, doc: str, *, since: str = "1.0") -> Key:
    return Key(f"volatile.*.{suffix}", kind, "", doc, since=since, wild=_DEVICE)


_INSTANCE = (
    Key("volatile.apply_nvram", BOOL, "", "Whether to renew the NVRAM on the next start"),
    Key("volatile.apply_template", matching("template trigger", r"[a-z]{1,32}"), "",
        "Template trigger to fire on the next start"),
    Key("volatile.base_image", FINGERPRINT, "", "Fingerprint of the image it was created from"),
    Key("volatile.cloud-init.instance-id", UUID, "", "Instance id that cloud-init sees"),
    Key("volatile.evacuate.origin", netvalues.NAME, "", "Member from which it was evacuated",
        since="clustering_evacuation"),
    Key("volatile.idmap.base", UINT32, "", "First host id of the primary map"),
    Key("volatile.idmap.current", TEXT, "", "Map in use, as JSON", since="id_map_current"),
    Key("volatile.idmap.next", TEXT, "", "Map of the next start, as JSON"),
    Key("volatile.last_state.idmap", TEXT, "", "Map of the files on disk, as JSON"),
    Key("volatile.last_state.power", _POWER, "", "State when the host was last shut down"),
    Key("volatile.uuid", UUID, "", "Identity of the instance, unique across servers"),
    Key("volatile.vm.uuid", UUID, "", "Former name of `volatile.uuid`"),
    Key("volatile.vsock_id", UINT32, "", "Vsock id as of the last start"),
)  # fmt: skip

_DEVICES = (
    _device("last_state.created", BOOL, "Whether the server created the host's interface"),
    _device("last_state.hwaddr", TEXT, "MAC address of the host's interface before it was moved in"),
    _device("last_state.ip_addresses", TEXT, "Addresses the device had when it was last used"),
    _device("last_state.mtu", NATURAL, "MTU of the host's interface before it was moved in"),
    _device("last_state.pci.driver", TEXT, "Driver of the host's PCI device before it was passed in"),
    _device("last_state.pci.parent", TEXT, "Parent of the host's PCI device"),
    _device("last_state.pci.slot.name", TEXT, "Slot of the host's PCI device"),
    _device("last_state.vdpa.name", TEXT, "Name of the VDPA device"),
    _device("last_state.vf.hwaddr", TEXT, "MAC address of the virtual function before it was moved in"),
    _device("last_state.vf.id", NATURAL, "Number of the virtual function"),
    _device("last_state.vf.parent", netvalues.INTERFACE, "Parent of the virtual function"),
    _device("last_state.vf.spoofcheck", BOOL, "Spoof check of the virtual function before it was moved in"),
    _device("last_state.vf.vlan", NATURAL, "VLAN of the virtual function before it was moved in"),
    _device("apply_quota", TEXT, "Size to apply on the next start"),
    _device("ceph_rbd", TEXT, "Path of the RBD device"),
    _device("host_name", netvalues.INTERFACE, "Name of the interface on the host"),
    _device("hwaddr", TEXT, "MAC address, where the device sets none"),
    _device("name", netvalues.INTERFACE, "Name of the interface in the instance, where the device sets none"),
    _device("vgpu.uuid", UUID, "Identity of the virtual GPU"),
)

KEYS = (*_INSTANCE, *_DEVICES)
