"""What two servers tell each other before and after an instance's files: LXD 5.0's messages, field by field.

Numbers are those of LXD's migrate.proto. Fields of ours, `whole` and `layers`, have numbers that LXD passes over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from atoll.domain.protobuf import flag, message, number, text


class FsType(IntEnum):
    """How the files come."""

    RSYNC = 0
    BTRFS = 1
    ZFS = 2
    RBD = 3
    BLOCK_AND_RSYNC = 4


class Criu(IntEnum):
    """How the processes come. NONE, from LXD: they do not, though they run, and the files come once more at last."""

    RSYNC = 0
    PHAUL = 1
    NONE = 2


@dataclass(frozen=True, slots=True)
class IdMapping:
    """A range of ids: what is `hostid` and above on the source's disk is `nsid` and above in the instance."""

    isuid: bool = flag(1, required=True)
    isgid: bool = flag(2, required=True)
    hostid: int = number(3, required=True)
    nsid: int = number(4, required=True)
    maprange: int = number(5, required=True)


@dataclass(frozen=True, slots=True)
class Config:
    """One key."""

    key: str = text(1, required=True)
    value: str = text(2, required=True)


@dataclass(frozen=True, slots=True)
class Device:
    """One device."""

    name: str = text(1, required=True)
    config: tuple[Config, ...] = message(2, Config, repeated=True)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot's record. Times are seconds since 1970, absent or 0 for none."""

    name: str = text(1, required=True)
    config: tuple[Config, ...] = message(2, Config, repeated=True)
    profiles: tuple[str, ...] = text(3, repeated=True)
    ephemeral: bool = flag(4, required=True)
    devices: tuple[Device, ...] = message(5, Device, repeated=True)
    architecture: int = number(6, required=True)
    stateful: bool = flag(7, required=True)
    created_at: int | None = number(8)
    last_used_at: int | None = number(9)
    expires_at: int | None = number(10)


@dataclass(frozen=True, slots=True)
class RsyncFeatures:
    """Options that both ends have to give rsync alike. `whole` is ours: hard links and access control lists too."""

    xattrs: bool | None = flag(1)
    delete: bool | None = flag(2)
    compress: bool | None = flag(3)
    bidirectional: bool | None = flag(4)
    whole: bool | None = flag(1000)

    def common(self, other: RsyncFeatures) -> RsyncFeatures:
        """What both have."""
        return RsyncFeatures(
            xattrs=bool(self.xattrs and other.xattrs),
            delete=bool(self.delete and other.delete),
            compress=bool(self.compress and other.compress),
            bidirectional=bool(self.bidirectional and other.bidirectional),
            whole=bool(self.whole and other.whole) or None,
        )


@dataclass(frozen=True, slots=True)
class BtrfsFeatures:
    """Of streams of subvolumes: a list of all of them comes first; nested ones are among them; it has their uuids, so that a
    refresh can say which are there already. `refresh` is ours: it can do so, however often."""

    migration_header: bool | None = flag(1)
    header_subvolumes: bool | None = flag(2)
    header_subvolume_uuids: bool | None = flag(3)
    refresh: bool | None = flag(1000)

    def common(self, other: BtrfsFeatures) -> BtrfsFeatures:
        """What both have."""
        return BtrfsFeatures(
            migration_header=bool(self.migration_header and other.migration_header),
            header_subvolumes=bool(self.header_subvolumes and other.header_subvolumes),
            header_subvolume_uuids=bool(self.header_subvolume_uuids and other.header_subvolume_uuids),
            refresh=bool(self.refresh and other.refresh) or None,
        )

    @property
    def can_refresh(self) -> bool:
        """Whether a refresh says what is there already."""
        return bool(self.header_subvolume_uuids or self.refresh)


@dataclass(frozen=True, slots=True)
class LayerFeatures:
    """Of streams of layers, which are ours alone. `image`: the fingerprint of an image whose layer need not be sent, if both have
    unpacked it alike."""

    version: int | None = number(1)
    image: str | None = text(2)


ALL_BTRFS_FEATURES = BtrfsFeatures(migration_header=True, header_subvolumes=True, header_subvolume_uuids=True, refresh=True)
OFFERED_BTRFS_FEATURES = replace(ALL_BTRFS_FEATURES, header_subvolume_uuids=None)
"""An LXD that is refreshed by streams does not know again what it got by one, and the next refresh fails: "file exists". Without
the uuids it takes files one by one for refreshes. As a source it may well have them."""

ALL_FEATURES = RsyncFeatures(xattrs=True, delete=True, compress=True, bidirectional=True, whole=True)


@dataclass(frozen=True, slots=True)
class Header:
    """The source's offer, and the target's answer to it."""

    fs: int = number(1, required=True)
    criu: int | None = number(2)
    idmap: tuple[IdMapping, ...] = message(3, IdMapping, repeated=True)
    snapshot_names: tuple[str, ...] = text(4, repeated=True)
    snapshots: tuple[Snapshot, ...] = message(5, Snapshot, repeated=True)
    predump: bool | None = flag(7)
    rsync_features: RsyncFeatures | None = message(8, RsyncFeatures)  # noqa: RUF009 - it declares the field
    refresh: bool | None = flag(9)
    volume_size: int | None = number(11)
    btrfs_features: BtrfsFeatures | None = message(12, BtrfsFeatures)  # noqa: RUF009 - it declares the field
    index_version: int | None = number(13)
    layers: LayerFeatures | None = message(1000, LayerFeatures)  # noqa: RUF009 - it declares the field


@dataclass(frozen=True, slots=True)
class Control:
    """How it went, said by either."""

    success: bool = flag(1, required=True)
    message: str | None = text(2)
