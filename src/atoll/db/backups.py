"""Backups of instances in the database."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from atoll.db.engine import Transaction
from atoll.domain.entities import Backup
from atoll.domain.errors import NotFound

_SELECT = """SELECT b.id, projects.name, instances.name, b.name, b.created_at, b.expires_at, b.instance_only,
    b.optimized_storage, b.phase FROM instances_backups b JOIN instances ON instances.id = b.instance_id
    JOIN projects ON projects.id = instances.project_id"""


async def of(tx: Transaction, instance_id: int) -> list[Backup]:
    """All of an instance, oldest first."""
    return await _find(tx, "b.instance_id = ?", instance_id)


async def find(tx: Transaction, instance_id: int, name: str) -> Backup:
    """One. NotFound if there is none."""
    found = await _find(tx, "b.instance_id = ? AND b.name = ?", instance_id, name)
    if not found:
        raise NotFound("Load backup from database: Instance backup not found")
    return found[0]


async def find_all(tx: Transaction, project: str | None = None) -> dict[tuple[str, str], list[Backup]]:
    """By (project, instance), all of a project, or of all projects."""
    found = await (_find(tx, "1") if project is None else _find(tx, "projects.name = ?", project))
    grouped: dict[tuple[str, str], list[Backup]] = defaultdict(list)
    for backup in found:
        grouped[(backup.project, backup.instance)].append(backup)
    return grouped


async def expired(tx: Transaction, now: str) -> list[Backup]:
    """Whole ones that were to be kept until `now` (RFC 3339) at most."""
    return await _find(tx, "b.expires_at != '' AND b.expires_at <= ? AND b.phase = ''", now)


async def unfinished(tx: Transaction) -> list[Backup]:
    """Those to which something was being done."""
    return await _find(tx, "b.phase != ''")


async def _find(tx: Transaction, where: str, *parameters: Any) -> list[Backup]:
    found = await tx.query(f"{_SELECT} WHERE {where} ORDER BY b.created_at, b.id", *parameters)
    return [Backup(*(*head, bool(alone), bool(optimized), phase)) for *head, alone, optimized, phase in found]


@dataclass(frozen=True, slots=True)
class Table:
    """Where the records of one kind of owners' backups are: the column with the owner's id, and the one that says that its
    snapshots are left out."""

    name: str
    owner: str
    alone: str

    async def create(
        self,
        tx: Transaction,
        owner_id: int,
        name: str,
        *,
        created_at: str,
        expires_at: str,
        alone: bool,
        optimized_storage: bool,
        phase: str,
    ) -> int:
        """Insert; Conflict if the name is taken."""
        return await tx.insert(
            f"""INSERT INTO {self.name} ({self.owner}, name, created_at, expires_at, {self.alone}, optimized_storage, phase)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
            owner_id,
            name,
            created_at,
            expires_at,
            int(alone),
            int(optimized_storage),
            phase,
        )

    async def present(self, tx: Transaction, backup_id: int) -> tuple[str, str] | None:
        """Its name and phase as they are now; None: it is gone."""
        found = await tx.one(f"SELECT name, phase FROM {self.name} WHERE id = ?", backup_id)
        return None if found is None else (found[0], found[1])

    async def rename(self, tx: Transaction, backup_id: int, name: str) -> None:
        """Change the name; Conflict if it is taken."""
        await tx.execute(f"UPDATE {self.name} SET name = ? WHERE id = ?", name, backup_id)

    async def set_phase(self, tx: Transaction, backup_id: int, phase: str) -> None:
        """What is being done to it; empty: whole."""
        await tx.execute(f"UPDATE {self.name} SET phase = ? WHERE id = ?", phase, backup_id)

    async def delete(self, tx: Transaction, backup_id: int) -> None:
        """Remove its record."""
        await tx.execute(f"DELETE FROM {self.name} WHERE id = ?", backup_id)


TABLE = Table("instances_backups", owner="instance_id", alone="instance_only")
