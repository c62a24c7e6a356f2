"""Projects: create, change, rename, delete; which project owns what."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from atoll import config as keys
from atoll.db import images as image_rows
from atoll.db import profiles as profile_rows
from atoll.db import projects as rows
from atoll.db.engine import Database, Transaction
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.entities import DEFAULT_PROJECT, Project
from atoll.domain.errors import BadRequest, Conflict, Forbidden, Unsupported
from atoll.services.events import EventHub
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

NEW_DEFAULTS = {
    "features.images": "true",
    "features.profiles": "true",
    "features.storage.volumes": "true",
}
"""What a new project gets where its creator says nothing, as in LXD 5.0."""

_URLS = {
    "instances": "/1.0/instances/{name}",
    "profiles": "/1.0/profiles/{name}",
    "images": "/1.0/images/{name}",
    "networks": "/1.0/networks/{name}",
    "volumes": "/1.0/storage-pools/{extra}/volumes/custom/{name}",
}


class ProjectService:
    """Use cases of projects."""

    def __init__(self, database: Database, hub: EventHub, operations: OperationRegistry) -> None:
        self._database = database
        self._hub = hub
        self._operations = operations

    async def find_all(self) -> list[Project]:
        """All projects."""
        async with self._database.read() as tx:
            return await rows.find_all(tx)

    async def find(self, name: str) -> Project:
        """One project. NotFound if there is none."""
        async with self._database.read() as tx:
            return await rows.find(tx, name)

    async def used_by(self, project: Project) -> list[str]:
        """URLs of what is in it."""
        async with self._database.read() as tx:
            return await _used_by(tx, project)

    async def create(self, name: str, description: str, config: Mapping[str, str], *, caller: Caller) -> None:
        """Make it, with a default profile if it has profiles of its own."""
        names.project(name)
        full = {**NEW_DEFAULTS, **config}
        keys.PROJECT.validate(full)
        _refuse_unenforced(full)
        async with self._database.write() as tx:
            await rows.create(tx, name, description, full)
            if keys.PROJECT.get(full, "features.profiles"):
                await self._make_default_profile(tx, name)
            await _lend_images(tx, None, await rows.find(tx, name))
        self._tell("project-created", name, caller)

    @staticmethod
    async def _make_default_profile(tx: Transaction, project: str) -> None:
        await profile_rows.create(tx, project, "default", f"Default LXD profile for project {project}", {}, {})

    async def update(self, name: str, description: str, config: Mapping[str, str], *, caller: Caller) -> None:
        """Replace; features can only change while nothing is in it."""
        keys.PROJECT.validate(config)
        _refuse_unenforced(config)
        async with self._database.write() as tx:
            project = await rows.find(tx, name)
            await self._check_features(tx, project, config)
            await rows.update(tx, project.id, description, config)
            await _lend_images(tx, project, await rows.find(tx, name))
        self._tell("project-updated", name, caller)

    async def _check_features(self, tx: Transaction, project: Project, config: Mapping[str, str]) -> None:
        changed = [
            key
            for key in {*project.config, *config}
            if key.startswith("features.") and config.get(key, "") != project.config.get(key, "")
        ]
        if not changed:
            return
        if project.name == DEFAULT_PROJECT:
            raise BadRequest("You can't change the features of the default project")
        if await _in_use(tx, project):
            raise BadRequest("Features can only be changed on empty projects")
        if "features.profiles" in changed:
            if keys.PROJECT.get(config, "features.profiles"):
                await self._make_default_profile(tx, project.name)
            else:
                default = await profile_rows.find(tx, project.name, "default")
                await profile_rows.delete(tx, default.id)

    async def rename_later(self, name: str, new: str, *, caller: Caller) -> Operation:
        """The operation that renames an empty one: its name is part of names on disk."""
        names.project(new)

        async def work(_: Operation) -> None:
            await self._rename(name, new, caller=caller)

        if name == DEFAULT_PROJECT:
            raise _default_is_kept("renamed")
        resources = {"projects": [f"/1.0/projects/{name}"]}
        return self._operations.start(OperationSpec("Renaming project", work, project=name, resources=resources, caller=caller))

    async def _rename(self, name: str, new: str, *, caller: Caller) -> None:
        async with self._database.write() as tx:
            project = await rows.find(tx, name)
            if await _in_use(tx, project):
                raise BadRequest("Only empty projects can be renamed")
            try:
                await rows.rename(tx, project.id, new)
            except Conflict as error:
                raise Conflict(f'A project named "{new}" already exists') from error
        self._tell("project-renamed", new, caller, old_name=name)

    async def delete(self, name: str, *, caller: Caller) -> None:
        """Only an empty one."""
        if name == DEFAULT_PROJECT:
            raise _default_is_kept("deleted")
        async with self._database.write() as tx:
            project = await rows.find(tx, name)
            if await _in_use(tx, project):
                raise BadRequest("Only empty projects can be removed")
            await rows.delete(tx, project.id)
        self._tell("project-deleted", name, caller)

    def _tell(self, action: str, name: str, caller: Caller, **context: str) -> None:
        url = f"/1.0/projects/{name}"
        self._hub.lifecycle(action, url, project=name, is_project=True, context=context, caller=caller)

    async def resources(self, project: Project) -> dict[str, dict[str, int]]:
        """How much of each limited thing a project uses; a limit of -1 is none."""
        async with self._database.read() as tx:
            users = await rows.users(tx, project.id)
        kinds = [kind for kind, _, _ in users]
        counted = {"containers": "instances", "instances": "instances", "networks": "networks"}
        found = {name: {"Limit": _limit(project, name), "Usage": kinds.count(kind)} for name, kind in counted.items()}
        found["virtual-machines"] = {"Limit": _limit(project, "virtual-machines"), "Usage": 0}
        return found

    async def owner(self, name: str, feature: str) -> str:
        """The project whose objects of a feature that project uses. NotFound for an unknown project."""
        return (await self.owners(name, feature))[0]

    async def owners(self, name: str, *features: str) -> tuple[str, ...]:
        """`owner` for each of the features."""
        if name == DEFAULT_PROJECT:
            return (name,) * len(features)
        project = await self.find(name)
        return tuple(project.owner_of(feature) for feature in features)

    async def profiles_beside_images(self, tx: Transaction, name: str) -> set[str]:
        """Projects whose profiles the images of that project may bring: of all that use those images."""
        return {project.owner_of("profiles") for project in await rows.find_all(tx) if project.owner_of("images") == name}


async def _lend_images(tx: Transaction, before: Project | None, project: Project) -> None:
    """To a project that gets profiles of its own but uses the images of another they bring its default profile at first."""
    borrowed = before is not None and before.borrows_images
    if project.borrows_images and not borrowed:
        await image_rows.lend(tx, DEFAULT_PROJECT, project.name)
    elif borrowed and not project.borrows_images:
        await image_rows.take_back(tx, DEFAULT_PROJECT, project.name)


def _refuse_unenforced(config: Mapping[str, str]) -> None:
    """A restriction that nobody enforces is worse than none: its owner would rely on it."""
    for key, value in config.items():
        if value and (key.startswith("limits.") or (key == "restricted" and keys.PROJECT.flag(config, key))):
            raise Unsupported(f"Project key {key!r} is not supported in this release: it would not be enforced")


def _limit(project: Project, name: str) -> int:
    return int(project.config.get(f"limits.{name}") or -1)


def _default_is_kept(what: str) -> Forbidden:
    """The default project is for ever."""
    return Forbidden(f"The 'default' project cannot be {what}")


async def _used_by(tx: Transaction, project: Project) -> list[str]:
    suffix = "" if project.name == DEFAULT_PROJECT else f"?project={project.name}"
    found = await rows.users(tx, project.id)
    return [_URLS[kind].format(name=quote(name), extra=quote(extra)) + suffix for kind, name, extra in found]


async def _in_use(tx: Transaction, project: Project) -> bool:
    users = await rows.users(tx, project.id)
    return any((kind, name) != ("profiles", "default") for kind, name, _ in users)
