"""`type: none`: a device that stops one of a profile from being inherited, and is nothing itself."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.drivers.device.contract import DeviceContext, Prepared


class NoneDevice:
    """Has nothing to do."""

    live: frozenset[str] = frozenset()
    hotplug = True

    def validate(self, context: DeviceContext) -> None:
        """Anything goes."""

    async def prepare(self, context: DeviceContext) -> Prepared:
        """Nothing to prepare."""
        return Prepared()

    async def started(self, context: DeviceContext) -> None:
        """Nothing to do."""

    def attached(self, context: DeviceContext) -> Prepared:
        """Nothing was attached."""
        return Prepared()

    async def update(self, context: DeviceContext, old: Mapping[str, str]) -> None:
        """Nothing to change."""

    async def release(self, context: DeviceContext) -> Mapping[str, str]:
        """Nothing to undo."""
        return {}
