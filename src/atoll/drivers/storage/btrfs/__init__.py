"""Driver `btrfs`: a volume is a subvolume, a copy is a snapshot.

driver       the contract, put together
pool         where the pool is: a loop file, a block device or a directory
folders      the layout of a pool's folder, with subvolumes for volumes
subvolumes   copying and removing them with what guests nested in them
quotas       sizes
sending, receiving   volumes as streams, for backups
"""

from atoll.drivers.storage.btrfs.driver import BtrfsDriver

__all__ = ["BtrfsDriver"]
