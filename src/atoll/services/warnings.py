"""Warnings: what a person should know of. Raising one never fails its caller."""

from __future__ import annotations

import uuid

from atoll.db import warnings as rows
from atoll.db.engine import Database
from atoll.domain import clock
from atoll.domain.caller import Caller
from atoll.domain.entities import Warning
from atoll.domain.errors import BadRequest
from atoll.services.events import EventHub


class WarningService:
    """Use cases of warnings."""

    def __init__(self, database: Database, hub: EventHub) -> None:
        self._database = database
        self._hub = hub

    async def find_all(self, project: str | None) -> list[Warning]:
        """Warnings of a project and of none, or all."""
        async with self._database.read() as tx:
            return await rows.find_all(tx, project)

    async def find(self, warning_id: str) -> Warning:
        """One warning. NotFound if there is none."""
        async with self._database.read() as tx:
            return await rows.find(tx, warning_id)

    async def raise_(self, type: str, severity: str, message: str, *, project: str = "", entity_url: str = "") -> None:
        """It happened, perhaps again. `severity` is low, moderate or high."""
        async with self._database.write() as tx:
            await rows.raise_(
                tx,
                uuid=str(uuid.uuid4()),
                type=type,
                severity=severity,
                message=message,
                now=clock.rfc3339(),
                project=project,
                entity_url=entity_url,
            )

    async def resolve(self, type: str, *, project: str = "", entity_url: str = "") -> None:
        """It is over; nothing wrong if it never was."""
        async with self._database.write() as tx:
            await rows.resolve(tx, type=type, project=project, entity_url=entity_url)

    async def set_status(self, warning_id: str, status: str, *, caller: Caller) -> None:
        """A person acknowledges it, or takes that back."""
        if status not in ("new", "acknowledged"):
            raise BadRequest("A warning's status can only be set to 'new' or 'acknowledged'")
        async with self._database.write() as tx:
            warning = await rows.find(tx, warning_id)
            await rows.set_status(tx, warning.uuid, status)
        action = "warning-acknowledged" if status == "acknowledged" else "warning-reset"
        self._hub.lifecycle(action, f"/1.0/warnings/{warning_id}", caller=caller)

    async def delete(self, warning_id: str, *, caller: Caller) -> None:
        """Remove it."""
        async with self._database.write() as tx:
            await rows.find(tx, warning_id)
            await rows.delete(tx, warning_id)
        self._hub.lifecycle("warning-deleted", f"/1.0/warnings/{warning_id}", caller=caller)
