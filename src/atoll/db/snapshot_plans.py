"""Which snapshots are to be taken and which to go, of all instances and custom volumes: one statement for each question."""

from __future__ import annotations

from typing import NamedTuple

from atoll.db.engine import Transaction

_KEY = "snapshots.schedule"
_WHOLE_AND_EXPIRED = "s.phase = '' AND s.expires_at > '1970-01-02' AND s.expires_at <= ?"
"""Times are kept as texts that sort; what never expires is empty, or Go's zero time in rows of other origin."""


class InstancePlan(NamedTuple):
    """An instance's schedule, its own or that of the last of its profiles that has one."""

    project: str
    name: str
    schedule: str


class VolumePlan(NamedTuple):
    """A custom volume's schedule."""

    pool: str
    project: str
    name: str
    schedule: str


class InstanceExpired(NamedTuple):
    """A snapshot of an instance whose time is over."""

    project: str
    instance: str
    name: str


class VolumeExpired(NamedTuple):
    """A snapshot of a custom volume whose time is over."""

    pool: str
    project: str
    volume: str
    name: str


async def scheduled_instances(tx: Transaction) -> list[InstancePlan]:
    """Instances that have a schedule."""
    rows = await tx.query(
        """SELECT project, name, schedule FROM (
            SELECT projects.name AS project, i.name AS name, COALESCE(own.value, (
                SELECT c.value FROM instances_profiles ip JOIN profiles_config c ON c.profile_id = ip.profile_id AND c.key = ?
                WHERE ip.instance_id = i.id ORDER BY ip.apply_order DESC LIMIT 1)) AS schedule
            FROM instances i JOIN projects ON projects.id = i.project_id
            LEFT JOIN instances_config own ON own.instance_id = i.id AND own.key = ? WHERE i.phase = '') plans
        WHERE schedule IS NOT NULL ORDER BY project, name""",
        _KEY,
        _KEY,
    )
    return [InstancePlan(*row) for row in rows]


async def scheduled_volumes(tx: Transaction) -> list[VolumePlan]:
    """Custom volumes that have a schedule."""
    rows = await tx.query(
        """SELECT storage_pools.name, projects.name, v.name, c.value FROM storage_volumes v
        JOIN storage_volumes_config c ON c.storage_volume_id = v.id AND c.key = ?
        JOIN storage_pools ON storage_pools.id = v.storage_pool_id JOIN projects ON projects.id = v.project_id
        WHERE v.type = 'custom' AND v.phase = '' ORDER BY 1, 2, 3""",
        _KEY,
    )
    return [VolumePlan(*row) for row in rows]


async def expired_of_instances(tx: Transaction, now: str) -> list[InstanceExpired]:
    """Snapshots of instances that expired by `now`, oldest first."""
    rows = await tx.query(
        f"""SELECT projects.name, i.name, s.name FROM instances_snapshots s JOIN instances i ON i.id = s.instance_id
        JOIN projects ON projects.id = i.project_id WHERE {_WHOLE_AND_EXPIRED} ORDER BY s.created_at, s.id""",
        now,
    )
    return [InstanceExpired(*row) for row in rows]


async def expired_of_volumes(tx: Transaction, now: str) -> list[VolumeExpired]:
    """Snapshots of custom volumes that expired by `now`, oldest first."""
    rows = await tx.query(
        f"""SELECT storage_pools.name, projects.name, v.name, s.name FROM storage_volumes_snapshots s
        JOIN storage_volumes v ON v.id = s.storage_volume_id AND v.type = 'custom'
        JOIN storage_pools ON storage_pools.id = v.storage_pool_id JOIN projects ON projects.id = v.project_id
        WHERE {_WHOLE_AND_EXPIRED} ORDER BY s.created_at, s.id""",
        now,
    )
    return [VolumeExpired(*row) for row in rows]
