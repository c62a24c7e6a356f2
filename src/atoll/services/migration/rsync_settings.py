"""How rsync goes over the link, as the pools of both ends want it: `rsync.compression` and `rsync.bwlimit`.

Files are compressed only if neither pool refuses, and go as fast as the slower one of both limits: each end keeps its own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from atoll import config as keys
from atoll.domain.migration_header import ALL_FEATURES, Header, RsyncFeatures
from atoll.host.rsync import Options
from atoll.services.storage import StorageService


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a pool. `rate`: bytes a second, at most; 0 for no limit."""

    compress: bool = True
    rate: int = 0

    @property
    def features(self) -> RsyncFeatures:
        """What this end can do and wants."""
        return dataclasses.replace(ALL_FEATURES, compress=self.compress)

    def common(self, offer: Header) -> RsyncFeatures:
        """The features that the source has, too."""
        return self.features.common(offer.rsync_features or RsyncFeatures())

    def options(self, answer: Header) -> Options:
        """How rsync is run after that answer."""
        agreed = answer.rsync_features or RsyncFeatures()
        return Options(
            xattrs=bool(agreed.xattrs),
            delete=bool(agreed.delete),
            compress=bool(agreed.compress),
            whole=bool(agreed.whole),
            rate=self.rate,
        )


async def of_pool(storage: StorageService, name: str) -> Settings:
    """NotFound if there is no such pool."""
    pool = await storage.find(name)
    table = keys.pool_table(pool.driver)
    return Settings(table.flag(pool.config, "rsync.compression"), table.number(pool.config, "rsync.bwlimit") or 0)
