"""Profiles: create, change, rename, delete. A change reaches the instances that have the profile, see `profile_change`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from urllib.parse import quote

from atoll.db import profiles as rows
from atoll.db.engine import Database
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.entities import Devices, Profile
from atoll.domain.errors import BadRequest, Conflict, Forbidden, HostError
from atoll.services.events import EventHub, with_project
from atoll.services.instances import records
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.profile_change import Failures, ProfileChanger
from atoll.services.projects import ProjectService


def profile_path(name: str) -> str:
    """A profile's address; spaces and the like are quoted."""
    return f"/1.0/profiles/{quote(name, safe='')}"


class ProfileService:
    """Use cases of profiles. Projects without profiles of their own use those of the default project."""

    def __init__(
        self,
        database: Database,
        hub: EventHub,
        projects: ProjectService,
        devices: DeviceService,
        changer: ProfileChanger,
    ) -> None:
        self._database = database
        self._hub = hub
        self._projects = projects
        self._devices = devices
        self._changer = changer

    async def find_all(self, project: str) -> list[tuple[Profile, list[str]]]:
        """All profiles of a project, each with URLs of the instances that have it."""
        owner = await self._projects.owner(project, "profiles")
        async with self._database.read() as tx:
            found = await rows.find_all(tx, owner)
            users = await rows.users(tx, [profile.id for profile in found])
        return [(profile, _urls(users.get(profile.id, []))) for profile in found]

    async def find(self, project: str, name: str) -> tuple[Profile, list[str]]:
        """One profile with its users. NotFound if there is none."""
        owner = await self._projects.owner(project, "profiles")
        async with self._database.read() as tx:
            profile = await rows.find(tx, owner, name)
            users = await rows.users(tx, [profile.id])
        return profile, _urls(users.get(profile.id, []))

    async def create(
        self, project: str, name: str, description: str, config: Mapping[str, str], devices: Devices, *, caller: Caller
    ) -> None:
        """A new one."""
        names.profile(name)
        owner = await self._projects.owner(project, "profiles")
        self._changer.check(config)
        config, devices = records.without_empty(config), records.whole_devices(devices)
        async with self._database.write() as tx:
            await self._devices.validate(tx, owner, devices)
            try:
                await rows.create(tx, owner, name, description, config, devices)
            except Conflict as error:
                raise Conflict(f"The profile {name!r} already exists") from error
        self._hub.lifecycle("profile-created", profile_path(name), project=owner, caller=caller)

    async def update(
        self, project: str, name: str, description: str, config: Mapping[str, str], devices: Devices, *, caller: Caller
    ) -> None:
        """Replace it, for running instances too. HostError, when it has been replaced, that names the instances which cannot have
        it so."""
        owner = await self._projects.owner(project, "profiles")
        self._changer.check(config)
        config, devices = records.without_empty(config), records.whole_devices(devices)
        async with self._database.read() as tx:
            profile = await rows.find(tx, owner, name)
            await self._devices.validate(tx, owner, devices)
        new = dataclasses.replace(profile, description=description, config=config, devices=devices)
        failed = await self._changer.change(profile, new)
        self._hub.lifecycle("profile-updated", profile_path(name), project=owner, caller=caller)
        if failed:
            raise HostError(_failures(failed))

    async def rename(self, project: str, name: str, new: str, *, caller: Caller) -> None:
        """Change its name."""
        names.profile(new)
        if name == "default":
            raise Forbidden('The "default" profile cannot be renamed')
        owner = await self._projects.owner(project, "profiles")
        async with self._database.write() as tx:
            profile = await rows.find(tx, owner, name)
            try:
                await rows.rename(tx, profile.id, new)
            except Conflict as error:
                raise Conflict(f"Name {new!r} already in use") from error
        self._hub.lifecycle("profile-renamed", profile_path(new), project=owner, context={"old_name": name}, caller=caller)

    async def delete(self, project: str, name: str, *, caller: Caller) -> None:
        """Only an unused one."""
        if name == "default":
            raise Forbidden('The "default" profile cannot be deleted')
        owner = await self._projects.owner(project, "profiles")
        async with self._database.write() as tx:
            profile = await rows.find(tx, owner, name)
            if (await rows.users(tx, [profile.id])).get(profile.id):
                raise BadRequest("Profile is currently in use")
            await rows.delete(tx, profile.id)
        self._hub.lifecycle("profile-deleted", profile_path(name), project=owner, caller=caller)


def _urls(users: list[tuple[str, str]]) -> list[str]:
    return [with_project(f"/1.0/instances/{name}", project) for project, name in users]


def _failures(failed: Failures) -> str:
    named = sorted((each.project, each.name, str(error)) for each, error in failed.items())
    lines = [f" - Project: {project}, Instance: {name}: {reason}" for project, name, reason in named]
    return "\n".join(("The following instances failed to update (profile change still saved):", *lines))
