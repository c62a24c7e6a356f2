"""Projects in the database."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.db import tables
from atoll.db.engine import Transaction
from atoll.domain.entities import Project
from atoll.domain.errors import NotFound


async def find_all(tx: Transaction) -> list[Project]:
    """All projects, by name."""
    rows, config_rows = await tx.queries(
        ("SELECT id, name, description FROM projects ORDER BY name",),
        ("SELECT project_id, key, value FROM projects_config",),
    )
    config = tables.config_of(config_rows)
    return [Project(*(*row, config.get(row[0], {}))) for row in rows]


async def find(tx: Transaction, name: str) -> Project:
    """One project. NotFound if there is none."""
    rows, config_rows = await tx.queries(
        ("SELECT id, name, description FROM projects WHERE name = ?", name),
        tables.select_config("projects", "project", "projects.name = ?", name),
    )
    if not rows:
        raise NotFound("Project not found")
    return Project(*(*rows[0], tables.config_of(config_rows).get(rows[0][0], {})))


async def create(tx: Transaction, name: str, description: str, config: Mapping[str, str]) -> int:
    """Insert; Conflict if the name is taken."""
    project_id = await tx.insert("INSERT INTO projects (name, description) VALUES (?, ?)", name, description)
    await tables.replace_config(tx, "projects", "project", project_id, config)
    return project_id


async def update(tx: Transaction, project_id: int, description: str, config: Mapping[str, str]) -> None:
    """Replace description and configuration."""
    await tx.execute("UPDATE projects SET description = ? WHERE id = ?", description, project_id)
    await tables.replace_config(tx, "projects", "project", project_id, config)


async def rename(tx: Transaction, project_id: int, name: str) -> None:
    """Change the name; Conflict if it is taken."""
    await tx.execute("UPDATE projects SET name = ? WHERE id = ?", name, project_id)


async def delete(tx: Transaction, project_id: int) -> None:
    """Remove; Conflict if anything still refers to it."""
    await tx.execute("DELETE FROM profiles WHERE project_id = ? AND name = 'default'", project_id)
    await tx.execute("DELETE FROM projects WHERE id = ?", project_id)


_USERS = """SELECT kind, name, extra FROM (
    SELECT 1 AS ord, 'instances' AS kind, name, '' AS extra, project_id FROM instances
    UNION ALL SELECT 2, 'profiles', name, '', project_id FROM profiles
    UNION ALL SELECT 3, 'images', fingerprint, '', project_id FROM images
    UNION ALL SELECT 4, 'networks', name, '', project_id FROM networks
    UNION ALL SELECT 5, 'volumes', v.name, p.name, v.project_id FROM storage_volumes v
        JOIN storage_pools p ON p.id = v.storage_pool_id WHERE v.type = 'custom')
    WHERE project_id = ? ORDER BY ord, name"""


async def users(tx: Transaction, project_id: int) -> list[tuple[str, str, str]]:
    """What is in a project: (kind, name, pool for a volume)."""
    return [(kind, name, extra) for kind, name, extra in await tx.query(_USERS, project_id)]
