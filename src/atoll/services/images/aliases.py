"""Aliases: names for images, which can be pointed at others."""

from __future__ import annotations

from urllib.parse import quote

from atoll.db import images as rows
from atoll.db.engine import Database
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.entities import ImageAlias
from atoll.domain.errors import BadRequest, Conflict, NotFound
from atoll.services.events import EventHub
from atoll.services.images.service import ImageService


def alias_url(name: str) -> str:
    """An alias's address; slashes of the name are quoted."""
    return f"/1.0/images/aliases/{quote(name, safe='')}"


class ImageAliases:
    """Use cases of aliases. `project` is the one that the client speaks of."""

    def __init__(self, database: Database, hub: EventHub, images: ImageService) -> None:
        self._database = database
        self._hub = hub
        self._images = images

    async def find_all(self, project: str, *, public_only: bool = False) -> list[ImageAlias]:
        """All aliases by name; with `public_only` those of public images."""
        if public_only:
            images = await self._images.find_all(project, public_only=True)
            return sorted((alias for image in images for alias in image.aliases), key=lambda alias: alias.name)
        owner = await self._images.owner(project)
        async with self._database.read() as tx:
            return await rows.aliases(tx, owner)

    async def find(self, project: str, name: str, *, public_only: bool = False) -> ImageAlias:
        """One alias. What is not there and what may not be seen is alike NotFound."""
        names.image_alias(name)
        if not public_only:
            owner = await self._images.owner(project)
            async with self._database.read() as tx:
                return await rows.find_alias(tx, owner, name)
        for alias in await self.find_all(project, public_only=True):
            if alias.name == name:
                return alias
        raise NotFound("Image alias not found")

    async def create(self, project: str, name: str, description: str, target: str, *, caller: Caller) -> None:
        """A new name. Conflict if it is taken, NotFound if there is no such image."""
        if not name or not target:
            raise BadRequest("Alias name and target are required")
        names.image_alias(name)
        owner = await self._images.owner_to_change(project, caller)
        image = await self._images.find(project, target)
        async with self._database.write() as tx:
            try:
                await rows.create_alias(tx, owner, name, description, image.id)
            except Conflict as error:
                raise _taken(name) from error
        self._tell("image-alias-created", project, name, caller, target=image.fingerprint)

    async def update(self, project: str, name: str, description: str, target: str, *, caller: Caller) -> None:
        """Point it at that image, with that description."""
        if not target:
            raise BadRequest("The target field is required")
        owner = await self._images.owner_to_change(project, caller)
        image = await self._images.find(project, target)
        async with self._database.write() as tx:
            await rows.find_alias(tx, owner, name)
            await rows.update_alias(tx, owner, name, description=description, image_id=image.id)
        self._tell("image-alias-updated", project, name, caller, target=image.fingerprint)

    async def rename(self, project: str, name: str, new: str, *, caller: Caller) -> None:
        """Change its name. Conflict if that is taken."""
        names.image_alias(name)
        names.image_alias(new)
        owner = await self._images.owner_to_change(project, caller)
        async with self._database.write() as tx:
            await rows.find_alias(tx, owner, name)
            if new in {alias.name for alias in await rows.aliases(tx, owner)}:
                raise _taken(new)
            await rows.rename_alias(tx, owner, name, new)
        self._tell("image-alias-renamed", project, new, caller, old_name=name)

    async def delete(self, project: str, name: str, *, caller: Caller) -> None:
        """Forget the name; the image stays."""
        names.image_alias(name)
        owner = await self._images.owner_to_change(project, caller)
        async with self._database.write() as tx:
            alias = await rows.find_alias(tx, owner, name)
            await rows.delete_alias(tx, owner, name)
        self._tell("image-alias-deleted", project, name, caller, target=alias.target)

    def _tell(self, action: str, project: str, name: str, caller: Caller, **context: str) -> None:
        self._hub.lifecycle(action, alias_url(name), project=project, context=context, caller=caller)


def _taken(name: str) -> Conflict:
    return Conflict(f"Alias {name!r} already exists")
