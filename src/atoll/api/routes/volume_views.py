"""Storage volumes and their snapshots on the wire, and what routes of both have in common."""

from __future__ import annotations

import dataclasses

import msgspec

from atoll.api.request import Request
from atoll.api.schema import objects as schema
from atoll.domain import clock, entities, names
from atoll.domain.errors import BadRequest
from atoll.services.events import with_project
from atoll.services.volume_urls import volume_path, volume_url
from atoll.services.volumes import CUSTOM, VolumeService


async def find(request: Request, volumes: VolumeService) -> entities.StorageVolume:
    """The volume that the path names."""
    name = names.volume(request.path("volume"))
    return await volumes.find(names.storage_pool(request.path("pool")), request.project, request.path("type"), name)


def custom(volume: entities.StorageVolume) -> entities.StorageVolume:
    """BadRequest for a volume of another type."""
    if volume.type != CUSTOM:
        raise BadRequest(f"Storage volumes of type {volume.type!r} are managed with what they belong to")
    return volume


def volume(found: entities.StorageVolume, used_by: list[str]) -> schema.Volume:
    """As it is shown."""
    return schema.Volume(
        name=found.name,
        type=found.type,
        content_type=found.content_type,
        description=found.description,
        config=dict(found.config),
        used_by=used_by,
        location=found.member,
        project=found.project,
        created_at=found.created_at or clock.NEVER,
    )


def listed_snapshot(of: entities.StorageVolume, found: entities.VolumeSnapshot) -> schema.Volume:
    """A snapshot among volumes; that of an instance's is used by the instance's."""
    owner = volume_url(of.pool, of.type, f"{of.name}/snapshots/{found.name}", of.project)
    described = dataclasses.replace(
        of,
        name=f"{of.name}/{found.name}",
        description=found.description,
        config=found.config,
        created_at=found.created_at,
    )
    return volume(described, [owner] if of.type not in (CUSTOM, "image") else [])


def listed_url(pool: str, listed: schema.Volume) -> str:
    """Of a volume, or a snapshot among volumes."""
    return with_project(volume_path(pool, listed.type, listed.name.replace("/", "/snapshots/")), listed.project)


def snapshot(of: entities.StorageVolume, found: entities.VolumeSnapshot) -> schema.VolumeSnapshot:
    """As it is shown by itself."""
    return schema.VolumeSnapshot(
        name=found.name,
        description=found.description,
        config=dict(found.config),
        content_type=of.content_type,
        expires_at=clock.shown(found.expires_at),
        created_at=found.created_at or clock.NEVER,
    )


def one_of_snapshots(of: entities.StorageVolume, found: entities.VolumeSnapshot) -> schema.VolumeSnapshot:
    """As it is shown among the snapshots of its volume."""
    shown = snapshot(of, found)
    expires_at = shown.expires_at if found.expires_at else None
    return msgspec.structs.replace(shown, name=f"{of.name}/{found.name}", expires_at=expires_at)
