"""What must hold of every row, and of every key that LXD 5.0 documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll import config
from atoll.config import catalog, storage
from atoll.config.table import Guard, Key, KeyTable, Scope
from atoll.domain import names
from atoll.domain.errors import BadRequest

DOCUMENTED = [line.split() for line in (Path(__file__).parent / "lxd_5_0_keys.txt").read_text().splitlines()]
TABLES: dict[str, KeyTable] = {
    "server": config.SERVER,
    "cluster": config.CLUSTER_MEMBER,
    "project": config.PROJECT,
    "instance": config.INSTANCE,
    **{f"storage-{driver}/pool": config.pool_table(driver) for driver in storage.DRIVERS},
    **{f"storage-{driver}/volume": config.volume_table(driver) for driver in storage.DRIVERS},
    **{f"network-{kind}": config.network_table(kind) for kind in ("bridge", "macvlan", "sriov", "physical", "ovn")},
    "network-acl": config.NETWORK_ACL,
    "network-forward": config.NETWORK_FORWARD,
    "network-peer": config.NETWORK_PEER,
    "network-zone": config.NETWORK_ZONE,
    "network-zone-record": config.NETWORK_ZONE_RECORD,
    **{f"device-{name}": table for name, table in catalog.device_tables().items()},
}
ROWS = [pytest.param(table, key, id=f"{name}:{key.name}") for name, table in TABLES.items() for key in table.rows()]
MULTILINE_NAMES = ("user.", "cloud-init.", "raw.", "image.", "security.syscalls.")


def sample(key: Key) -> str:
    """A name that the row stands for."""
    return key.name.replace("*", "nofile" if key.name.startswith("limits.kernel") else "x")


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_names_are_unique_in_a_table(table: KeyTable) -> None:
    names = [key.name for key in table.rows()]
    assert len(names) == len(set(names))


def test_every_key_that_lxd_documents_is_declared() -> None:
    missing = [f"{entity}: {name}" for entity, name in DOCUMENTED if TABLES[entity].find(name) is None]
    assert missing == []
    assert len(DOCUMENTED) > 600


@pytest.mark.parametrize(("table", "key"), ROWS)
def test_a_row_is_found_documented_and_has_a_valid_default(table: KeyTable, key: Key) -> None:
    assert key.doc and not key.doc.endswith(".")
    assert table.find(sample(key)) is not None
    if key.default:
        assert table.get({}, key.name if not key.is_family else sample(key)) is not None


@pytest.mark.parametrize(("table", "key"), ROWS)
def test_no_row_takes_a_second_line_that_is_not_documented_to(table: KeyTable, key: Key) -> None:
    if key.type.multiline:
        assert key.name.startswith(MULTILINE_NAMES)
        return
    for bad in ("a\nlxc.hook.pre-start = /bin/sh", "1\r", "true\n", "\0"):
        with pytest.raises(BadRequest):
            table.validate({sample(key): bad})


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("bad", ["", "x\ny", "x y", "x\0", "x=y", "x\r", "x" * 300])
def test_no_family_takes_a_name_that_would_break_a_file(table: KeyTable, bad: str) -> None:
    for key in table.rows():
        # A device name in a volatile key may have spaces, `=` and dots: these names never reach a generated file.
        if key.is_family and not (key.name.startswith("volatile.") and bad in ("", "x y", "x=y")):
            assert table.find(key.name.replace("*", bad)) is None


@pytest.mark.parametrize("device", ["eth0", "eth0.100", "my disk", "a=b", "/a/../b", "größe"])
def test_volatile_keys_take_every_valid_device_name(device: str) -> None:
    assert names.device(device) == device
    assert config.INSTANCE.find(f"volatile.{device}.host_name") is not None


FORBIDDEN_TO_RESTRICTED = (
    "raw.lxc", "raw.idmap", "raw.apparmor", "raw.seccomp", "raw.qemu", "raw.qemu.conf", "security.idmap.base",
    "security.idmap.size", "linux.kernel_modules", "linux.sysctl.net.ipv4.ip_forward", "security.syscalls.allow",
    "security.syscalls.intercept.mount", "security.syscalls.intercept.mount.allowed", "volatile.idmap.next", "volatile.uuid",
    "volatile.eth0.hwaddr", "security.syscalls.intercept.mount.fuse", "security.devlxd.images", "nvidia.runtime",
    "limits.kernel.memlock", "something.new",
)  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN_TO_RESTRICTED)
def test_dangerous_and_unknown_keys_are_low_level(name: str) -> None:
    assert config.INSTANCE.guard(name) is Guard.LOW_LEVEL


def test_guards_of_the_keys_with_a_restriction_of_their_own() -> None:
    assert config.INSTANCE.guard("security.nesting") is Guard.NESTING
    assert config.INSTANCE.guard("security.privileged") is Guard.PRIVILEGE
    assert config.INSTANCE.guard("security.idmap.isolated") is Guard.PRIVILEGE
    assert config.INSTANCE.guard("security.syscalls.intercept.mknod") is Guard.INTERCEPTION
    assert {config.INSTANCE.guard(name) for name in ("limits.memory", "user.x", "boot.autostart")} == {Guard.OPEN}


def test_what_is_secret_and_what_is_local() -> None:
    assert [key.name for key in config.SERVER.rows() if key.secret] == ["core.trust_password"]
    local = {key.name for key in config.SERVER.rows() if key.scope is Scope.LOCAL}
    assert {"core.https_address", "cluster.https_address", "storage.images_volume", "maas.machine"} <= local
    assert "core.trust_password" not in local


@pytest.mark.parametrize(
    ("table", "name", "good", "bad"),
    [
        (config.SERVER, "cluster.max_voters", ["3", "5"], ["1", "4", "x"]),
        (config.SERVER, "cluster.images_minimal_replica", ["-1", "1"], ["0", "-2"]),
        (config.SERVER, "cluster.offline_threshold", ["11"], ["10", "0"]),
        (config.SERVER, "cluster.https_address", ["10.1.1.101:8448"], ["0.0.0.0:8448"]),
        (config.SERVER, "core.remote_token_expiry", ["5S", "1d"], ["5"]),
        (config.SERVER, "storage.images_volume", ["default/images"], ["images"]),
        (config.SERVER, "images.compression_algorithm", ["none", "zstd -3"], ["sh"]),
        (config.PROJECT, "limits.containers", ["0", "2"], ["xxx", "-1"]),
        (config.PROJECT, "limits.memory", ["3GB"], ["10%"]),
        (config.PROJECT, "restricted.networks.subnets", ["block", "up:192.0.2.0/24,up:2001:db8::/64"], ["192.0.2.0/24"]),
        (config.PROJECT, "restricted.idmap.uid", ["1000", "1000-1999,5"], ["x"]),
        (config.INSTANCE, "limits.memory", ["10%", "512MB"], ["0%", "1Gib"]),
        (config.INSTANCE, "limits.processes", ["1"], ["0", "-1"]),
        (config.INSTANCE, "volatile.uuid", ["6f3a2f5e-98fb-4d4b-9a5f-1d2a2f0f7b11"], ["foo"]),
        (config.INSTANCE, "volatile.eth0.100.hwaddr", ["00:16:3e:00:00:01"], ["a\nb"]),
        (config.INSTANCE, "snapshots.schedule", ["* * * * *", "@daily,@startup", "@never"], ["often"]),
        (config.network_table("bridge"), "ipv4.address", ["auto", "none", "192.0.2.1/24"], ["192.0.2.1", "2001:db8::1/64"]),
        (config.network_table("bridge"), "tunnel.a.protocol", ["gre"], ["ipip"]),
        (config.network_table("bridge"), "dns.domain", ["lxd"], ["a\naddn-hosts=/etc/shadow", "a b", "a/b"]),
        (config.pool_table("zfs"), "zfs.clone_copy", ["true", "rebase"], ["maybe"]),
        (config.pool_table("zfs"), "volume.zfs.blocksize", ["4KiB"], ["3KiB", "256", "32MiB"]),
        (config.pool_table("dir"), "rsync.bwlimit", ["10", "1.5m"], ["fast", "1 -e sh"]),
        (config.volume_table("lvm"), "lvm.stripes.size", ["4096"], ["512", "4100"]),
    ],
)
def test_samples(table: KeyTable, name: str, good: list[str], bad: list[str]) -> None:
    for text in good:
        table.validate({name: text})
    for text in bad:
        with pytest.raises(BadRequest):
            table.validate({name: text})


@pytest.mark.parametrize(
    ("driver", "name"),
    [("btrfs", "lvm.vg_name"), ("btrfs", "volume.block.filesystem"), ("dir", "size"), ("dir", "volume.zfs.use_refquota"),
     ("zfs", "volume.block.mount_options"), ("lvm", "volume.zfs_use_refquota"), ("ceph", "lvm.use_thinpool"),
     ("overlay", "volume.block.filesystem")],
)  # fmt: skip
def test_a_pool_refuses_the_keys_of_other_drivers(driver: str, name: str) -> None:
    with pytest.raises(BadRequest, match="Invalid option"):
        config.pool_table(driver).validate({name: "1"})


def test_combinations() -> None:
    with pytest.raises(BadRequest, match="cannot be used when"):
        config.pool_table("lvm").validate({"lvm.use_thinpool": "false", "lvm.thinpool_name": "x"})
    with pytest.raises(BadRequest, match="mutually exclusive"):
        config.INSTANCE.validate({"security.syscalls.allow": "read", "security.syscalls.deny_default": "true"})
    with pytest.raises(BadRequest, match="mutually exclusive"):
        config.INSTANCE.validate({"raw.seccomp": "2", "security.syscalls.intercept.mknod": "true"})
    with pytest.raises(BadRequest, match="mutually exclusive"):
        config.SERVER.validate({"candid.api.url": "https://a", "rbac.api.url": "https://b"})


def test_content_types_and_instance_types_have_their_own_keys() -> None:
    assert config.volume_table("lvm", "block").find("block.filesystem") is None
    assert config.volume_table("dir", "block").find("security.shifted") is None
    assert config.instance_table("container").find("raw.qemu") is None
    assert config.instance_table("virtual-machine").find("security.privileged") is None
    assert config.instance_table("virtual-machine").find("raw.idmap") is None
    assert config.instance_table("container").find("limits.memory") is not None


def test_unknown_kinds_are_bad_requests() -> None:
    for lookup in (config.pool_table, config.volume_table, config.network_table, config.device_table):
        with pytest.raises(BadRequest):
            lookup("nonsense")
    with pytest.raises(BadRequest):
        config.volume_table("dir", "nonsense")
