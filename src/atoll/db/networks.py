"""Managed networks in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.db import tables
from atoll.db.engine import Transaction
from atoll.domain.entities import Network
from atoll.domain.errors import NotFound

_SELECT = """SELECT networks.id, projects.name, networks.name, networks.type, networks.description, networks.state
    FROM networks JOIN projects ON projects.id = networks.project_id"""
_IN_PROJECT = "networks.project_id = (SELECT id FROM projects WHERE name = ?)"


async def find_all(tx: Transaction, project: str | None = None) -> list[Network]:
    """All networks of a project, or of all projects."""
    return await (_find(tx, "1") if project is None else _find(tx, _IN_PROJECT, project))


async def find(tx: Transaction, project: str, name: str) -> Network:
    """One network. NotFound if there is none."""
    found = await _find(tx, f"{_IN_PROJECT} AND networks.name = ?", project, name)
    if not found:
        raise NotFound("Network not found")
    return found[0]


async def _find(tx: Transaction, where: str, *parameters: Any) -> list[Network]:
    rows, config_rows = await tx.queries(
        (f"{_SELECT} WHERE {where} ORDER BY projects.name, networks.name", *parameters),
        tables.select_config("networks", "network", where, *parameters),
    )
    config = tables.config_of(config_rows)
    return [Network(*(*row, config.get(row[0], {}))) for row in rows]


async def create(
    tx: Transaction,
    project: str,
    name: str,
    type: str,
    description: str,
    config: Mapping[str, str],
    *,
    state: str,
    node_id: int = 1,
) -> int:
    """Insert; Conflict if the name is taken."""
    network_id = await tx.insert(
        """INSERT INTO networks (project_id, name, type, description, state)
        VALUES ((SELECT id FROM projects WHERE name = ?), ?, ?, ?, ?)""",
        project,
        name,
        type,
        description,
        state,
    )
    await tx.insert("INSERT INTO networks_nodes (network_id, node_id) VALUES (?, ?)", network_id, node_id)
    await tables.replace_config(tx, "networks", "network", network_id, config)
    return network_id


async def update(tx: Transaction, network_id: int, description: str, config: Mapping[str, str]) -> None:
    """Replace description and configuration."""
    await tx.execute("UPDATE networks SET description = ? WHERE id = ?", description, network_id)
    await tables.replace_config(tx, "networks", "network", network_id, config)


async def rename(tx: Transaction, network_id: int, name: str) -> None:
    """Change the name; Conflict if it is taken."""
    await tx.execute("UPDATE networks SET name = ? WHERE id = ?", name, network_id)


async def delete(tx: Transaction, network_id: int) -> None:
    """Remove it."""
    await tx.execute("DELETE FROM networks WHERE id = ?", network_id)
