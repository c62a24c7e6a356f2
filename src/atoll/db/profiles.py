"""Profiles in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from atoll.db import tables
from atoll.db.engine import Row, Transaction
from atoll.domain.entities import Devices, Profile
from atoll.domain.errors import NotFound

_SELECT = """SELECT profiles.id, projects.name, profiles.name, profiles.description
    FROM profiles JOIN projects ON projects.id = profiles.project_id"""
_IN_PROJECT = "profiles.project_id = (SELECT id FROM projects WHERE name = ?)"


async def find_all(tx: Transaction, project: str | None = None) -> list[Profile]:
    """All profiles of a project, or of all projects."""
    where, parameters = (_IN_PROJECT, (project,)) if project is not None else ("1", ())
    return await _find(tx, where, *parameters)


async def find(tx: Transaction, project: str, name: str) -> Profile:
    """One profile. NotFound if there is none."""
    found = await _find(tx, f"{_IN_PROJECT} AND profiles.name = ?", project, name)
    if not found:
        raise NotFound("Profile not found")
    return found[0]


async def _find(tx: Transaction, where: str, *parameters: str) -> list[Profile]:
    return collect(await tx.queries(*_select(where, *parameters)))


def select(project: str) -> tuple[tables.Statement, ...]:
    """The statements whose results `collect` makes a project's profiles of: to run them beside others in one hop."""
    return _select(_IN_PROJECT, project)


def _select(where: str, *parameters: str) -> tuple[tables.Statement, ...]:
    return (
        (f"{_SELECT} WHERE {where} ORDER BY projects.name, profiles.name", *parameters),
        tables.select_config("profiles", "profile", where, *parameters),
        tables.select_devices("profiles", "profile", where, *parameters),
    )


def collect(results: Sequence[list[Row]]) -> list[Profile]:
    """Profiles from the results of the statements of `select`."""
    rows, config_rows, device_rows = results
    config, devices = tables.config_of(config_rows), tables.devices_of(device_rows)
    return [Profile(*(*row, config.get(row[0], {}), devices.get(row[0], {}))) for row in rows]


async def create(tx: Transaction, project: str, name: str, description: str, config: Mapping[str, str], devices: Devices) -> int:
    """Insert; Conflict if the name is taken."""
    profile_id = await tx.insert(
        "INSERT INTO profiles (project_id, name, description) VALUES ((SELECT id FROM projects WHERE name = ?), ?, ?)",
        project,
        name,
        description,
    )
    await tables.replace_config(tx, "profiles", "profile", profile_id, config)
    await tables.replace_devices(tx, "profiles", "profile", profile_id, devices)
    return profile_id


async def update(tx: Transaction, profile_id: int, description: str, config: Mapping[str, str], devices: Devices) -> None:
    """Replace all but the name."""
    await tx.execute("UPDATE profiles SET description = ? WHERE id = ?", description, profile_id)
    await tables.replace_config(tx, "profiles", "profile", profile_id, config)
    await tables.replace_devices(tx, "profiles", "profile", profile_id, devices)


async def rename(tx: Transaction, profile_id: int, name: str) -> None:
    """Change the name; Conflict if it is taken."""
    await tx.execute("UPDATE profiles SET name = ? WHERE id = ?", name, profile_id)


async def delete(tx: Transaction, profile_id: int) -> None:
    """Remove; Conflict while an instance has it."""
    await tx.execute("DELETE FROM profiles WHERE id = ?", profile_id)


async def users(tx: Transaction, profile_ids: list[int] | None = None) -> dict[int, list[tuple[str, str]]]:
    """By profile id, the (project, name) of instances that have it."""
    where = "1" if profile_ids is None else f"ip.profile_id IN ({', '.join(map(str, map(int, profile_ids)))})"
    rows = await tx.query(
        f"""SELECT ip.profile_id, projects.name, instances.name FROM instances_profiles ip
        JOIN instances ON instances.id = ip.instance_id JOIN projects ON projects.id = instances.project_id
        WHERE {where} ORDER BY projects.name, instances.name"""
    )
    found: dict[int, list[tuple[str, str]]] = {}
    for profile_id, project, name in rows:
        found.setdefault(profile_id, []).append((project, name))
    return found
