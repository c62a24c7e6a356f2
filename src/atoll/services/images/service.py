"""Images of projects: looking, changing, deleting, taking a new one into the store.

Several projects may have the same image: each has a row, the files and the unpacked volumes are shared and go with the last row.
Order of locks: an image's own here, then those of its volumes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from atoll.db import images as rows
from atoll.db.engine import Database, Transaction
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.entities import Image, ImageSource
from atoll.domain.errors import BadRequest, Conflict, Forbidden, NotFound
from atoll.domain.paths import Paths
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import Fill, VolumeId
from atoll.host import archive
from atoll.services import budgets
from atoll.services.events import EventHub
from atoll.services.images.files import ImageFiles
from atoll.services.images.model import DEFAULT_PROFILES, Candidate, Changes, Wishes, check_properties
from atoll.services.images.unpacked import UnpackedImages
from atoll.services.locks import KeyedLocks
from atoll.services.operations import Operation
from atoll.services.projects import ProjectService
from atoll.services.storage import StorageService

UNPACK_PROGRESS = "create_instance_from_image_unpack_progress"


class ImageService:
    """Use cases of images. `project` is the one that the client speaks of; whose images those are is found here."""

    def __init__(
        self, database: Database, hub: EventHub, paths: Paths, storage: StorageService, projects: ProjectService
    ) -> None:
        self.files = ImageFiles(paths.images)
        self.unpacked = UnpackedImages(database, storage)
        self._database = database
        self._hub = hub
        self._storage = storage
        self._projects = projects
        self._locks = KeyedLocks()

    # --- looking -------------------------------------------------------------------------------------------------------

    async def owner(self, project: str) -> str:
        """The project whose images that project uses. NotFound for an unknown project."""
        return await self._projects.owner(project, "images")

    async def owner_to_change(self, project: str, caller: Caller) -> str:
        """`owner`, if the caller may change its images: who only borrows them may not."""
        owner = await self.owner(project)
        if not caller.may_use(owner):
            raise Forbidden(f"Not authorized: project {project!r} uses the images of another project")
        return owner

    async def _view(self, project: str) -> tuple[str, str]:
        """(whose images a project uses, whose profiles they bring there)"""
        owner, profiles_of = await self._projects.owners(project, "images", "profiles")
        return owner, profiles_of

    async def find_all(self, project: str, *, public_only: bool = False) -> list[Image]:
        """All images of a project. With `public_only`, as a stranger sees it, an unknown project has none."""
        try:
            owner, profiles_of = await self._view(project)
        except NotFound:
            if public_only:
                return []
            raise
        async with self._database.read() as tx:
            found = await rows.find_all(tx, owner, profiles_of=profiles_of)
        return [image for image in found if image.public or not public_only]

    async def find(self, project: str, fingerprint: str, *, public_only: bool = False) -> Image:
        """The image of that fingerprint, or of the one that begins so, with the profiles it brings in the project. What is not
        there and what may not be seen is alike NotFound."""
        if public_only:
            prefix = _prefix(fingerprint)
            return _only(
                [image for image in await self.find_all(project, public_only=True) if image.fingerprint.startswith(prefix)]
            )
        owner, profiles_of = await self._view(project)
        async with self._database.read() as tx:
            return await rows.find(tx, owner, _prefix(fingerprint), profiles_of=profiles_of)

    async def find_cached(self, project: str, source: ImageSource) -> Image | None:
        """The image of the project that is kept up to date from that source, for instances; None if there is none."""
        owner, profiles_of = await self._view(project)
        async with self._database.read() as tx:
            found = await rows.cached_from(tx, owner, source)
            return await rows.find(tx, owner, found[0], profiles_of=profiles_of) if found else None

    async def resolve(
        self, project: str, *, alias: str = "", fingerprint: str = "", properties: Mapping[str, str] | None = None
    ) -> Image:
        """The image that an instance is to be made of: by alias, else by fingerprint, else the newest with those properties."""
        if alias:
            names.image_alias(alias)
            owner, profiles_of = await self._view(project)
            async with self._database.read() as tx:
                try:
                    target = (await rows.find_alias(tx, owner, alias)).target
                except NotFound as error:
                    raise _not_found() from error
                return await rows.find(tx, owner, target, profiles_of=profiles_of)
        if fingerprint:
            return await self.find(project, fingerprint)
        if not properties:
            raise BadRequest("Must specify one of alias, fingerprint or properties for init from image")
        wanted = properties.items()
        matching = [image for image in await self.find_all(project) if wanted <= dict(image.properties).items()]
        if not matching:
            raise NotFound("No matching image could be found")
        return max(matching, key=lambda image: (image.creation_date, image.id))

    # --- changing ------------------------------------------------------------------------------------------------------

    async def update(self, project: str, image: Image, changes: Changes, *, caller: Caller) -> None:
        """Replace what may be changed; a property with an empty value is removed, and the profiles are those that it brings in
        `project`. BadRequest for an unknown one."""
        check_properties(changes.properties)
        await self.owner_to_change(project, caller)
        profiles_of = await self._projects.owner(project, "profiles")
        async with self._database.write() as tx:
            await rows.find(tx, image.project, image.fingerprint)
            await rows.update(
                tx,
                image.id,
                public=changes.public,
                auto_update=changes.auto_update,
                expiry_date=changes.expires_at,
                properties={key: value for key, value in changes.properties.items() if value},
            )
            await rows.set_profiles(tx, image.id, profiles_of, changes.profiles)
        self.tell("image-updated", project, image.fingerprint, caller)

    async def delete(self, project: str, image: Image, *, caller: Caller) -> None:
        """Remove it from its project with its aliases; its files and volumes go if no other project has it."""
        await self.owner_to_change(project, caller)
        fingerprint = image.fingerprint
        async with self._locks.hold(fingerprint):
            async with self._database.read() as tx:
                await rows.find(tx, image.project, fingerprint)
                last = await rows.projects_with(tx, fingerprint) == [image.project]
            if last:
                # First: what cannot be removed now leaves a whole image, whose removal can be tried again.
                await self.unpacked.forget(fingerprint)
            async with self._database.write() as tx:
                await rows.delete(tx, image.id)
            if last:
                await self.files.remove(fingerprint)
                # Again: an instance made of it meanwhile may have unpacked it once more.
                await self.unpacked.forget(fingerprint)
        self.tell("image-deleted", project, fingerprint, caller)

    async def touch(self, tx: Transaction, image: Image) -> None:
        """Note that an instance was made of the image. `tx` is the transaction that makes the instance whole."""
        await rows.touch(tx, image.id, int(time.time()))

    async def unpack(self, image: Image, pool: str, operation: Operation | None = None) -> VolumeId:
        """The image's volume in a pool, unpacked now unless it is there; `operation` shows how far that is."""
        return await self.unpacked.ensure(pool, image.fingerprint, self._fill(image, pool, operation))

    def _fill(self, image: Image, pool: str, operation: Operation | None) -> Fill:
        """Unpacks the image into a volume of that pool, to no more than the pool has room for, but for a reserve."""

        def report(read: int) -> None:
            if operation is not None and image.size:
                operation.progress(UNPACK_PROGRESS, f"Unpack: {min(100, read * 100 // image.size)}%")

        async def unpack(data: Path) -> None:
            meta, rootfs = self.files.of(image)
            budget = await budgets.of_pool(self._storage.driver(pool))
            try:
                await archive.unpack_image(meta, rootfs, data, budget=budget, progress=report)
            except FileNotFoundError as error:
                raise NotFound(f"The files of image {image.fingerprint[:12]} are not on this server") from error

        return unpack

    # --- a new one -----------------------------------------------------------------------------------------------------

    async def check_wishes(self, project: str, wishes: Wishes, *, caller: Caller) -> None:
        """What can be refused before the work begins: names, properties, rights, and aliases that are taken."""
        wishes.check()
        owner = await self.owner_to_change(project, caller)
        async with self._database.read() as tx:
            taken = {alias.name for alias in await rows.aliases(tx, owner)} if wishes.aliases else set()
        for alias in wishes.aliases:
            if alias.name in taken:
                raise Conflict(f"Alias {alias.name!r} already exists")

    async def add(self, project: str, new: Candidate, wishes: Wishes, *, caller: Caller) -> dict[str, str]:
        """Take a validated image into the store. Conflict if the project has it already. Returns the operation's metadata."""
        row = _row(await self.owner_to_change(project, caller), new, wishes)
        check_properties(row.properties)
        async with self._locks.hold(new.fingerprint), Reverter(f"add image {new.fingerprint[:12]}") as undo:
            if not await self._is_shared(row.project, new):
                undo.add(self.files.remove, new.fingerprint)
                await self.files.install(new)
            await self._insert(project, row, wishes)
            undo.success()
        self.tell("image-created", project, new.fingerprint, caller, type="container")
        return {"fingerprint": new.fingerprint, "size": str(new.size)}

    async def _is_shared(self, owner: str, new: Candidate) -> bool:
        """Whether another project has the same image and its files are there."""
        async with self._database.read() as tx:
            same = [image for image in await rows.find_all(tx) if image.fingerprint == new.fingerprint]
        if any(image.project == owner for image in same):
            raise _already_exists()
        # The same bytes, cut in two elsewhere, are another file system: nobody may make others use their cut.
        if any(image.format != new.format for image in same):
            raise Conflict("Image with same fingerprint but another format already exists")
        return bool(same) and await self.files.present(new.fingerprint, new.format)

    async def adopt(self, project: str, source: Image, wishes: Wishes, *, caller: Caller) -> dict[str, str]:
        """Give a project an image that another project of this server has."""
        owner = await self.owner_to_change(project, caller)
        async with self._locks.hold(source.fingerprint):
            async with self._database.read() as tx:
                source = await rows.find(tx, source.project, source.fingerprint)
                if owner in await rows.projects_with(tx, source.fingerprint):
                    raise _already_exists()
            await self._insert(project, _row_of_copy(owner, source, wishes), wishes)
        self.tell("image-created", project, source.fingerprint, caller, type=source.type)
        return {"fingerprint": source.fingerprint, "size": str(source.size)}

    async def keep(self, project: str, fingerprint: str, wishes: Wishes, *, caller: Caller) -> dict[str, str]:
        """Give an image that the project has what is wished of it; one that was cached for instances is there for itself from
        now on. Conflict for a taken alias. Returns the operation's metadata."""
        owner, profiles_of = await self._view(project)
        async with self._database.write() as tx:
            image = await rows.find(tx, owner, fingerprint)
            await rows.update(
                tx,
                image.id,
                public=wishes.public or (image.public and not image.cached),
                auto_update=wishes.auto_update or (image.auto_update and not image.cached),
                expiry_date=wishes.expires_at or image.expiry_date,
                properties={**image.properties, **(wishes.properties or {})},
            )
            await rows.set_cached(tx, image.id, cached=False)
            for alias in wishes.aliases:
                await rows.create_alias(tx, image.project, alias.name, alias.description, image.id)
            if wishes.profiles is not None:
                await rows.set_profiles(tx, image.id, profiles_of, wishes.profiles)
            if wishes.source is not None and (wishes.auto_update or image.source is None):
                await rows.set_source(tx, image.id, wishes.source)
        self.tell("image-updated", image.project, image.fingerprint, caller)
        return {"fingerprint": image.fingerprint, "size": str(image.size)}

    async def supersede(self, project: str, image: Image, newer: Image, *, is_new: bool, caller: Caller) -> None:
        """Unpack a newer version of an image wherever the image is unpacked, give it the aliases and what else was said of the
        image, and delete that. NotFound if the image was deleted meanwhile, by whoever wants no newer one either.

        What was said of an image that was here before (not `is_new`) stays, unless it has come for this and a kill cut it off.
        """
        await self.owner_to_change(project, caller)
        for pool in await self.unpacked.pools_with(image.fingerprint):
            await self.unpack(newer, pool)
        async with self._database.write() as tx:
            came_for_this = is_new or (newer.source == image.source and not newer.aliases)
            there = await rows.replace(tx, image.id, newer.id, wholly=came_for_this)
        if not there:
            if is_new:
                await self.delete(project, newer, caller=caller)
            raise _not_found()
        self.tell("image-refreshed", project, newer.fingerprint, caller)
        await self.delete(project, image, caller=caller)

    async def _insert(self, project: str, new: rows.NewImage, wishes: Wishes) -> None:
        """The profiles that are wished for are those of `project`; elsewhere an image brings the default one."""
        profiles_of = await self._projects.owner(project, "profiles")
        async with self._database.write() as tx:
            brought = dict.fromkeys(await self._projects.profiles_beside_images(tx, new.project), DEFAULT_PROFILES)
            if wishes.profiles is not None:
                brought[profiles_of] = wishes.profiles
            image_id = await _create(tx, new)
            for viewer, profiles in brought.items():
                await rows.set_profiles(tx, image_id, viewer, profiles)
            for alias in wishes.aliases:
                await rows.create_alias(tx, new.project, alias.name, alias.description, image_id)
            if wishes.source is not None:
                await rows.set_source(tx, image_id, wishes.source)

    # --- on start ------------------------------------------------------------------------------------------------------

    async def repair(self) -> list[str]:
        """Remove what a kill left of uploads, builds and deletions. One sentence for each."""
        async with self._database.read() as tx:
            known = await rows.fingerprints(tx)
        found = await self.files.leftovers(known)
        for path in found:
            await self.files.discard(path)
        return [f"removed {path.name} of the images: its making or deletion was cut off" for path in found]

    # --- telling -------------------------------------------------------------------------------------------------------

    def tell(self, action: str, project: str, fingerprint: str, caller: Caller, **context: str) -> None:
        """A lifecycle event of an image."""
        self._hub.lifecycle(action, f"/1.0/images/{fingerprint}", project=project, context=context, caller=caller)


def _prefix(fingerprint: str) -> str:
    """What fingerprints may begin with. NotFound, not BadRequest, for other text: an alias is tried as a fingerprint too."""
    try:
        return names.fingerprint(fingerprint.lower())
    except BadRequest as error:
        raise _not_found() from error


def _only(found: list[Image]) -> Image:
    if not found:
        raise _not_found()
    if len(found) > 1:
        raise BadRequest("More than one image matches the fingerprint", hint="give more of its digits")
    return found[0]


def _not_found() -> NotFound:
    return NotFound("Image not found")


def _already_exists() -> Conflict:
    return Conflict("Image with same fingerprint already exists")


async def _create(tx: Transaction, new: rows.NewImage) -> int:
    try:
        return await rows.create(tx, new)
    except Conflict as error:
        raise _already_exists() from error


def _row(owner: str, new: Candidate, wishes: Wishes) -> rows.NewImage:
    return rows.NewImage(
        project=owner,
        fingerprint=new.fingerprint,
        type="container",
        filename=wishes.filename,
        size=new.size,
        public=wishes.public,
        architecture=new.metadata.architecture,
        creation_date=new.metadata.creation_date,
        expiry_date=wishes.expires_at or new.metadata.expiry_date,
        upload_date=int(time.time()),
        auto_update=wishes.auto_update,
        format=new.format,
        properties={**new.metadata.properties, **(wishes.properties or {})},
        cached=wishes.cached,
    )


def _row_of_copy(owner: str, source: Image, wishes: Wishes) -> rows.NewImage:
    return rows.NewImage(
        project=owner,
        fingerprint=source.fingerprint,
        type=source.type,
        filename=wishes.filename or source.filename,
        size=source.size,
        public=wishes.public,
        architecture=source.architecture,
        creation_date=source.creation_date,
        expiry_date=wishes.expires_at or source.expiry_date,
        upload_date=int(time.time()),
        auto_update=wishes.auto_update,
        format=source.format,
        properties={**source.properties, **(wishes.properties or {})},
    )
