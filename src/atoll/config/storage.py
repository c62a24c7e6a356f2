"""The keys of storage pools and storage volumes, per driver."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

from atoll.config import hostvalues, timevalues, units
from atoll.config.server import USER
from atoll.config.table import Key, KeyTable, Scope
from atoll.config.values import BOOL, NATURAL, SIZE, TEXT, UINT32, ValueType, list_of, matching, one_of, or_word, quoted
from atoll.domain.content_types import ContentType
from atoll.domain.errors import BadRequest

DRIVERS = ("overlay", "dir", "btrfs", "zfs", "lvm", "ceph", "cephfs")
CONTENT_TYPES = tuple(ContentType)

_LOCAL = Scope.LOCAL
_BLOCK_BACKED = ("lvm", "ceph")
_LOOP_SIZE = "20% of the free space, between 5GiB and 30GiB"
_UNKNOWN, _INVALID = 'Invalid option "{key}"', 'Invalid value for option "{key}": {why}'
_ENTITY = matching("name", r"(?!\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,127}")
_ZFS_DATASET = matching("ZFS dataset", r"[A-Za-z0-9_][A-Za-z0-9_.:-]*(/[A-Za-z0-9_][A-Za-z0-9_.:-]*)*")
_SOURCE = ValueType("source", hostvalues.parse_path)
_CUSTOM = "custom volume"


def _check_zfs_blocksize(text: str) -> None:
    size = units.parse_size(text)
    if not 512 <= size <= 16 * 1024**2 or size & (size - 1):
        raise ValueError(f"Invalid block size {quoted(text)}: it must be a power of two between 512 and 16MiB")


def _check_stripe_size(text: str) -> None:
    size = units.parse_size(text)
    if size < 4096 or size % 512:
        raise ValueError(f"Invalid stripe size {quoted(text)}: it must be at least 4096 and a multiple of 512")


_POOL_COMMON = (
    Key("rsync.bwlimit", hostvalues.RSYNC_RATE, "0", "Rate of copies from and to other servers by rsync, at most; 0 for no limit",
        live=True, since="storage_rsync_bwlimit"),
    Key("rsync.compression", BOOL, "true", "Whether copies from and to other servers by rsync are compressed",
        live=True, since="storage_rsync_compression"),
    Key("volatile.initial_source", TEXT, "", "Source as it was given when the pool was created", scope=_LOCAL,
        since="storage_volatile_initial_source"),
)  # fmt: skip

_SOURCES = {
    "overlay": "Path of an existing directory",
    "dir": "Path of an existing directory",
    "btrfs": "Path of an existing block device, loop file or subvolume",
    "zfs": "Existing block device, loop file or dataset",
    "lvm": "Existing block device, loop file or volume group",
    "ceph": "Existing OSD storage pool",
    "cephfs": "Existing CephFS file system, or a path in one",
}

_SIZE = Key("size", SIZE, "", "Size of the loop file, for pools in one", scope=_LOCAL, shown_default=_LOOP_SIZE)

_POOL: dict[str, tuple[Key, ...]] = {
    "overlay": (),
    "dir": (),
    "btrfs": (
        _SIZE,
        Key("btrfs.mount_options", hostvalues.MOUNT_OPTIONS, "user_subvol_rm_allowed", "Mount options of the pool",
            live=True, since="storage_btrfs_mount_options"),
    ),
    "zfs": (
        _SIZE,
        Key("zfs.clone_copy", or_word(BOOL, "rebase"), "true",
            "Whether copies are clones; `rebase` copies from the image", since="storage_zfs_clone_copy"),
        Key("zfs.export", BOOL, "true", "Whether the zpool is exported when it is unmounted",
            since="storage_zfs_export"),
        Key("zfs.pool_name", _ZFS_DATASET, "", "Name of the zpool", scope=_LOCAL, shown_default="name of the pool"),
    ),
    "lvm": (
        _SIZE,
        Key("lvm.thinpool_metadata_size", SIZE, "0", "Size of the thin pool's metadata; 0 lets LVM choose",
            since="storage_lvm_thinpool_metadata_size"),
        Key("lvm.thinpool_name", _ENTITY, "LXDThinPool", "Thin pool in which volumes are created", scope=_LOCAL,
            since="storage_lvm_thinpool_rename"),
        Key("lvm.use_thinpool", BOOL, "true", "Whether volumes are in a thin pool"),
        Key("lvm.vg.force_reuse", BOOL, "false", "Whether a volume group that is not empty may be used"),
        Key("lvm.vg_name", _ENTITY, "", "Name of the volume group", scope=_LOCAL, since="storage_lvm_vg_rename",
            shown_default="name of the pool"),
    ),
    "ceph": (
        Key("ceph.cluster_name", _ENTITY, "ceph", "Name of the Ceph cluster", since="storage_driver_ceph"),
        Key("ceph.osd.data_pool_name", _ENTITY, "", "Name of the OSD data pool", since="ceph_data_pool_name"),
        Key("ceph.osd.force_reuse", BOOL, "", "Whether an OSD pool that another server uses may be used",
            since="storage_ceph_force_osd_reuse"),
        Key("ceph.osd.pg_num", UINT32, "32", "Placement groups of the OSD pool", since="storage_driver_ceph"),
        Key("ceph.osd.pool_name", _ENTITY, "", "Name of the OSD pool", since="storage_driver_ceph",
            shown_default="name of the pool"),
        Key("ceph.rbd.clone_copy", BOOL, "true", "Whether copies are clones", since="storage_driver_ceph"),
        Key("ceph.rbd.du", BOOL, "true", "Whether to use `rbd du` for the usage of stopped instances",
            since="ceph_rbd_du"),
        Key("ceph.rbd.features", list_of(_ENTITY), "layering", "RBD features of new volumes",
            since="storage_ceph_features"),
        Key("ceph.user.name", _ENTITY, "admin", "Ceph user", since="storage_ceph_user_name"),
        Key("volatile.pool.pristine", BOOL, "true", "Whether the OSD pool was empty when it was taken"),
    ),
    "cephfs": (
        Key("cephfs.cluster_name", _ENTITY, "ceph", "Name of the Ceph cluster", since="storage_cephfs"),
        Key("cephfs.fscache", BOOL, "false", "Whether to use the kernel's fscache and cachefilesd",
            since="storage_cephfs_fscache"),
        Key("cephfs.path", hostvalues.ABSOLUTE_PATH, "/", "Base path of the mount", since="storage_cephfs"),
        Key("cephfs.user.name", _ENTITY, "admin", "Ceph user", since="storage_cephfs"),
        Key("volatile.pool.pristine", BOOL, "true", "Whether the file system was empty when it was taken"),
    ),
}  # fmt: skip

_VOLUME_SIZE = Key("size", SIZE, "", "Size or quota of the volume", live=True, shown_default="`volume.size` of the pool")

_VOLUME_SNAPSHOTS = (
    Key("snapshots.expiry", timevalues.EXPIRY, "", "When snapshots are deleted, like `1M 2H 3d 4w 5m 6y`", live=True,
        condition=_CUSTOM, since="custom_volume_snapshot_expiry"),
    Key("snapshots.pattern", timevalues.PATTERN, "snap%d", "Template of the names of snapshots", live=True, condition=_CUSTOM,
        since="volume_snapshot_scheduling"),
    Key("snapshots.schedule", timevalues.VOLUME_SCHEDULE, "", "Cron line or `@` aliases by which snapshots are taken",
        live=True, condition=_CUSTOM, since="volume_snapshot_scheduling"),
)  # fmt: skip

_VOLUME_FILESYSTEM = (
    Key("security.shifted", BOOL, "false", "Whether isolated instances may share the volume",
        condition=_CUSTOM, since="storage_shifted"),
    Key("security.unmapped", BOOL, "false", "Whether ids are stored unmapped", condition=_CUSTOM,
        since="storage_unmapped"),
)  # fmt: skip

_VOLUME_BLOCK = (
    Key("security.shared", BOOL, "false", "Whether several instances may use the volume at the same time",
        condition="custom block volume", since="custom_block_volumes"),
)  # fmt: skip

_VOLUME_BLOCK_BACKED = (
    Key("block.filesystem", one_of("btrfs", "ext4", "xfs"), "ext4", "File system of the volume"),
    Key("block.mount_options", hostvalues.MOUNT_OPTIONS, "discard", "Mount options of the volume", live=True),
)

_VOLUME_VOLATILE = (
    Key("volatile.idmap.last", TEXT, "", "Map of the files on disk, as JSON"),
    Key("volatile.idmap.next", TEXT, "", "Map of the next use, as JSON"),
    Key("volatile.rootfs.size", SIZE, "", "Size of the unpacked image, for image volumes"),
)

_VOLUME: dict[str, tuple[Key, ...]] = {
    "zfs": (
        Key("zfs.blocksize", SIZE, "", "Size of a block, a power of two from 512 to 16MiB",
            since="storage_zfs_blocksize", check=_check_zfs_blocksize),
        Key("zfs.remove_snapshots", BOOL, "false", "Whether snapshots may be removed as needed"),
        Key("zfs.reserve_space", BOOL, "false", "Whether to reserve the space besides the quota",
            since="storage_zfs_reserve_space"),
        Key("zfs.use_refquota", BOOL, "false", "Whether to use `refquota` in place of `quota`"),
    ),
    "lvm": (
        Key("lvm.stripes", NATURAL, "", "Stripes of new volumes", since="storage_lvm_stripes"),
        Key("lvm.stripes.size", SIZE, "", "Size of a stripe, at least 4096 and a multiple of 512",
            since="storage_lvm_stripes", check=_check_stripe_size),
    ),
}  # fmt: skip


def _require_thin_pool(config: Mapping[str, str]) -> None:
    if config.get("lvm.use_thinpool", "").lower() in ("false", "0", "no", "off") and (
        config.get("lvm.thinpool_name") or config.get("lvm.thinpool_metadata_size")
    ):
        raise BadRequest("The keys lvm.thinpool_* cannot be used when lvm.use_thinpool is false")


def _require_one_way_of_ids(config: Mapping[str, str]) -> None:
    if all(BOOL.read(config.get(key) or "false") for key in ("security.shifted", "security.unmapped")):
        raise BadRequest("security.shifted and security.unmapped are mutually exclusive")


def _volume_keys(driver: str, content_type: str) -> tuple[Key, ...]:
    """What a volume may set and a pool may give a default for; the volatile and user keys are not among them."""
    filesystem = content_type == ContentType.FILESYSTEM
    if content_type == ContentType.ISO:
        return (_VOLUME_SIZE,)
    return (
        _VOLUME_SIZE,
        *_VOLUME_SNAPSHOTS,
        *(_VOLUME_FILESYSTEM if filesystem else _VOLUME_BLOCK),
        *(_VOLUME_BLOCK_BACKED if filesystem and driver in _BLOCK_BACKED else ()),
        *_VOLUME.get(driver, ()),
    )


def _known(driver: str) -> str:
    if driver not in DRIVERS:
        raise BadRequest(f"Invalid storage driver {quoted(driver)} (not one of {', '.join(DRIVERS)})")
    return driver


@functools.cache
def pool_table(driver: str) -> KeyTable:
    """The keys of pools of one driver; among them `volume.*`, the defaults of its volumes."""
    _known(driver)
    defaults = (
        replace(key, name=f"volume.{key.name}", default="", condition="",
                doc=f"Default of `{key.name}` for new volumes", live=True, shown_default=key.default)
        for key in _volume_keys(driver, "filesystem")
    )  # fmt: skip
    source = Key("source", _SOURCE, "", _SOURCES[driver], scope=_LOCAL)
    rules = (_require_thin_pool,) if driver == "lvm" else ()
    keys = (source, *_POOL[driver], *_POOL_COMMON, *defaults, USER)
    return KeyTable(f"{driver} storage pool", keys, unknown=_UNKNOWN, invalid=_INVALID, rules=rules)


@functools.cache
def volume_table(driver: str, content_type: str = "filesystem") -> KeyTable:
    """The keys of volumes of one driver and content type."""
    _known(driver)
    if content_type not in CONTENT_TYPES:
        raise BadRequest(f"Invalid content type {quoted(content_type)} (not one of {', '.join(CONTENT_TYPES)})")
    keys = (*_volume_keys(driver, content_type), *_VOLUME_VOLATILE, USER)
    name = f"{driver} {content_type} volume"
    return KeyTable(name, keys, unknown=_UNKNOWN, invalid=_INVALID, rules=(_require_one_way_of_ids,))
