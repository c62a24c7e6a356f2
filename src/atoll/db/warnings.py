"""Warnings in the database: one row per member, project, entity and type, counted when it happens again."""

from __future__ import annotations

from typing import Any

from atoll.db.engine import Transaction
from atoll.domain.entities import Warning
from atoll.domain.errors import NotFound

_SELECT = """SELECT warnings.uuid, COALESCE(nodes.name, ''), warnings.project, warnings.entity_url, warnings.type,
    warnings.severity, warnings.status, warnings.first_seen_at, warnings.last_seen_at, warnings.count, warnings.last_message
    FROM warnings LEFT JOIN nodes ON nodes.id = warnings.node_id"""


async def find_all(tx: Transaction, project: str | None = None) -> list[Warning]:
    """All warnings, or those of a project."""
    where, parameters = ("1", ()) if project is None else ("warnings.project IN ('', ?)", (project,))
    return [Warning(*row) for row in await tx.query(f"{_SELECT} WHERE {where} ORDER BY warnings.id", *parameters)]


async def find(tx: Transaction, uuid: str) -> Warning:
    """One warning. NotFound if there is none."""
    row = await tx.one(f"{_SELECT} WHERE warnings.uuid = ?", uuid)
    if row is None:
        raise NotFound("Warning not found")
    return Warning(*row)


async def raise_(
    tx: Transaction,
    *,
    uuid: str,
    type: str,
    severity: str,
    message: str,
    now: str,
    project: str = "",
    entity_url: str = "",
    node_id: int = 1,
) -> None:
    """It happened (again)."""
    values: tuple[Any, ...] = (node_id, project, entity_url, type)
    touched = await tx.execute(
        """UPDATE warnings SET last_seen_at = ?, count = count + 1, last_message = ?,
        status = CASE status WHEN 'resolved' THEN 'new' ELSE status END
        WHERE node_id = ? AND project = ? AND entity_url = ? AND type = ?""",
        now,
        message,
        *values,
    )
    if not touched:
        await tx.insert(
            """INSERT INTO warnings (uuid, node_id, project, entity_url, type, severity, status, first_seen_at, last_seen_at,
            last_message) VALUES (?, ?, ?, ?, ?, ?, 'new', ?, ?, ?)""",
            uuid,
            *values,
            severity,
            now,
            now,
            message,
        )


async def resolve(tx: Transaction, *, type: str, project: str = "", entity_url: str = "", node_id: int = 1) -> None:
    """It is over."""
    await tx.execute(
        "UPDATE warnings SET status = 'resolved' WHERE node_id = ? AND project = ? AND entity_url = ? AND type = ?",
        node_id,
        project,
        entity_url,
        type,
    )


async def set_status(tx: Transaction, uuid: str, status: str) -> None:
    """A person said so."""
    await tx.execute("UPDATE warnings SET status = ? WHERE uuid = ?", status, uuid)


async def delete(tx: Transaction, uuid: str) -> None:
    """Remove it."""
    await tx.execute("DELETE FROM warnings WHERE uuid = ?", uuid)
