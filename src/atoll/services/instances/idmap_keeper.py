"""Keeps the id map of each instance in its `volatile.idmap.*` keys, so that an isolated one has the same ids at every start.

    volatile.idmap.base    first host id of an instance's own range; 0 for one that shares the common range or is privileged
    volatile.idmap.next    the map that the next start takes, as JSON; chosen when the configuration is written
    volatile.idmap.current the map of the last start, which a running machine has

A choice reads what others have and writes its own in one transaction, so two at once never choose the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping

from atoll.db import instances as rows
from atoll.db.engine import Transaction
from atoll.domain.idmap import IdMap
from atoll.drivers.instance.contract import MachineId
from atoll.services.instances import idmaps
from atoll.services.instances.core import InstanceCore, Loaded

BASE, NEXT, CURRENT = "volatile.idmap.base", "volatile.idmap.next", "volatile.idmap.current"


class IdmapKeeper:
    """Chooses maps and remembers them."""

    def __init__(self, core: InstanceCore) -> None:
        self._core = core

    async def choose(self, tx: Transaction, machine: MachineId, config: Mapping[str, str]) -> dict[str, str]:
        """`volatile.idmap.base` and `.next` for an instance with that expanded configuration; whoever calls writes them in the
        same transaction. An isolated instance keeps its range as long as that has the right size. Conflict when no ids are left,
        BadRequest for a `raw.idmap` that cannot be."""
        if idmaps.is_privileged(config):
            return {BASE: "0", NEXT: "[]"}
        host = self._core.host_idmap()
        isolated = idmaps.is_isolated(config)
        taken = await self._taken(tx, machine) if isolated else []
        base = config.get(BASE, "0")
        idmap = idmaps.choose(config, host, taken, kept=int(base) if base.isdecimal() else 0)
        return {BASE: str(idmaps.base_of(config, idmap)), NEXT: idmaps.to_json(idmap)}

    async def of_next_start(self, loaded: Loaded) -> IdMap | None:
        """The map for a start that is about to be; None for a privileged instance."""
        if not idmaps.is_isolated(loaded.expanded.config):
            if idmaps.is_privileged(loaded.expanded.config):
                return None
            return idmaps.choose(loaded.expanded.config, self._core.host_idmap(), [])
        async with self._core.database.write() as tx:
            volatile = await self.choose(tx, loaded.machine, loaded.expanded.config)
            if any(loaded.record.config.get(key) != value for key, value in volatile.items()):
                await rows.patch_config(tx, loaded.record.id, volatile)
        return idmaps.from_json(volatile[NEXT])

    def volatile_of_start(self, loaded: Loaded, idmap: IdMap | None) -> dict[str, str]:
        """What a start with that map writes down. Files are never shifted, so the map of those on disk is empty."""
        text = idmaps.to_json(idmap)
        return {
            BASE: str(idmaps.base_of(loaded.expanded.config, idmap)),
            NEXT: text,
            CURRENT: text,
            "volatile.last_state.idmap": "[]",
        }

    async def _taken(self, tx: Transaction, machine: MachineId) -> list[IdMap]:
        """The ranges of all others that have one to themselves: for their next start, and where they run, of this one."""
        common = self._core.host_idmap().outside
        texts = []
        for (project, name), values in (await rows.values_of(tx, BASE, NEXT, CURRENT)).items():
            other = MachineId(project, name)
            if other == machine:
                continue
            if values.get(BASE, "0") not in ("0", str(common)):
                texts.append(values.get(NEXT, ""))
            if self._core.driver.status(other).is_running:
                texts.append(values.get(CURRENT, ""))
        maps = (idmaps.from_json(text) for text in texts)
        return [idmap for idmap in maps if idmap is not None and not _is_shifted_by(idmap, common)]


def _is_shifted_by(idmap: IdMap, base: int) -> bool:
    """Whether it is (raw entries aside) the range that begins there: the one that is shared."""
    return any(entry.outside - entry.inside == base for entry in idmap.ranges)
