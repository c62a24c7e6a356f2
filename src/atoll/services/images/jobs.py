"""Work on images that runs as operations: new ones by upload, copy, publishing and building; deletion; refresh; tokens."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.db import settings
from atoll.db.engine import Database
from atoll.domain import clock, compression, image_metadata, names
from atoll.domain.caller import Caller
from atoll.domain.compression import Compression
from atoll.domain.entities import Image
from atoll.domain.errors import BadRequest, Forbidden, NotFound, Unsupported
from atoll.domain.image_metadata import ImageMetadata
from atoll.host import archive
from atoll.host.imagebuild import build, recipe
from atoll.host.threads import in_thread
from atoll.services.events import with_project
from atoll.services.images import candidates
from atoll.services.images.model import TOKEN_SECONDS, Staged, Wishes
from atoll.services.images.pull import ImagePuller
from atoll.services.images.service import ImageService
from atoll.services.images.sources import Source
from atoll.services.operations import Operation, OperationClass, OperationRegistry, OperationSpec, Work, new_secret
from atoll.services.projects import ProjectService


@dataclass(frozen=True, slots=True)
class Publishable:
    """What an image is made of: the text of metadata.yaml, the root file system (plain ids), and a folder that may have
    `templates/`."""

    metadata: bytes
    rootfs: Path
    folder: Path


PublishSource = Callable[[str, str, str], AbstractAsyncContextManager[Publishable]]
"""(project, instance, snapshot or "") -> what nobody changes while it is entered. BadRequest for an instance that runs."""

PACK_PROGRESS = "create_image_from_container_pack_progress"


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """An image to build of a distribution's packages. `release` and `variant` may be left out where there is one only."""

    distribution: str
    release: str = ""
    variant: str = ""
    packages: tuple[str, ...] = ()

    def recipe(self) -> recipe.Recipe:
        """How. BadRequest if there is no recipe for it."""
        if self.variant not in ("", "default", recipe.CLOUD):
            known = f"known are default and {recipe.CLOUD}"
            raise BadRequest(f"There is no variant {self.variant[:40]!r} of {self.distribution[:40]}", hint=known)
        variant = recipe.CLOUD if self.variant == recipe.CLOUD else ""
        return recipe.find("/".join(filter(None, (self.distribution, self.release, variant))), packages=self.packages)


class ImageJobs:
    """Starts operations; each method returns it at once. What can be refused is refused before it starts."""

    def __init__(
        self,
        database: Database,
        images: ImageService,
        projects: ProjectService,
        operations: OperationRegistry,
        *,
        puller: ImagePuller | None = None,
        publish_source: PublishSource | None = None,
    ) -> None:
        self._database = database
        self._puller = puller
        self._images = images
        self._projects = projects
        self._operations = operations
        self._publish_source = publish_source
        self._heavy = asyncio.Lock()  # packing and building take all that the host has: one after the other, as LXD does

    # --- new images ----------------------------------------------------------------------------------------------------

    def upload(
        self, project: str, staged: Staged, wishes: Wishes, *, expected: str, caller: Caller, watched: bool = False
    ) -> Operation:
        """An image whose files have come in, after `ImageService.check_wishes`. `expected` is the fingerprint that the sender
        stated, or empty. `watched`: by a stranger, who gets a secret for that."""

        async def work(operation: Operation) -> dict[str, str]:
            async with self._images.files.using(staged.folder):
                if expected not in ("", staged.fingerprint):
                    raise BadRequest(f"The fingerprints don't match, got {staged.fingerprint} expected {expected}")
                named = replace(wishes, filename=wishes.filename or staged.filename)
                return await self._images.add(project, await candidates.received(staged), named, caller=caller)

        private = {"secret": new_secret()} if watched else {}
        return self._start("Downloading image", project, caller, work, private=private)

    async def copy(self, project: str, source: Image, wishes: Wishes, *, caller: Caller) -> Operation:
        """The image of another project, which the caller may see. One that the project has already gets what is wished of it."""
        await self._images.check_wishes(project, wishes, caller=caller)

        async def work(operation: Operation) -> dict[str, str]:
            try:
                present = await self._images.find(project, source.fingerprint)
            except NotFound:
                return await self._images.adopt(project, source, wishes, caller=caller)
            return await self._images.keep(project, present.fingerprint, wishes, caller=caller)

        return self._start("Downloading image", project, caller, work)

    async def pull(self, project: str, source: Source, wishes: Wishes, *, caller: Caller) -> Operation:
        """An image of another server. Conflict, when it is known which one it is, if the project has it."""
        if self._puller is None:
            raise Unsupported("This server does not fetch images")
        source.check()
        await self._images.check_wishes(project, wishes, caller=caller)
        puller = self._puller

        async def work(operation: Operation) -> dict[str, str]:
            return await puller.pull(project, source, wishes, operation, caller=caller)

        return self._start("Downloading image", project, caller, work, cancellable=True)

    async def publish(self, project: str, name: str, snapshot: str, wishes: Wishes, *, caller: Caller) -> Operation:
        """An instance of the project, or one of its snapshots, as an image."""
        if self._publish_source is None:
            raise Unsupported("This server has no instances to publish")
        names.instance(name)
        if snapshot:
            names.snapshot(snapshot)
        await self._images.check_wishes(project, wishes, caller=caller)
        packing = await self._compression(project, wishes)
        source = self._publish_source(project, name, snapshot)

        async def work(operation: Operation) -> dict[str, str]:
            files = self._images.files
            async with self._heavy, source as found, files.using(await files.stage()) as stage:
                metadata = _published(found.metadata, wishes)
                packed = await archive.pack_image(
                    found.folder,
                    stage / "meta",
                    metadata,
                    rootfs=found.rootfs,
                    compression=packing,
                    progress=_pack_report(operation),
                )
                candidate = candidates.packed(packed, metadata, stage / "meta", packing)
                return await self._images.add(project, candidate, replace(wishes, properties=None), caller=caller)

        url = f"/1.0/instances/{name}" + (f"/snapshots/{snapshot}" if snapshot else "")
        return self._start("Downloading image", project, caller, work, instances=[with_project(url, project)], cancellable=True)

    async def build(self, project: str, order: BuildOrder, wishes: Wishes, *, caller: Caller) -> Operation:
        """An image made here of a distribution's packages. Cancelling it ends the programs that build.

        Packages run scripts of theirs as the host's root while they are installed, so only an administrator chooses them.
        """
        if order.packages and not caller.is_admin:
            raise Forbidden("Not authorized: only an administrator may choose the packages of an image")
        how = order.recipe()
        packing = compression.parse(wishes.compression) if wishes.compression else compression.ZSTD
        await self._images.check_wishes(project, wishes, caller=caller)

        async def work(operation: Operation) -> dict[str, str]:
            files = self._images.files
            operation.progress("build_progress", "Waiting for other builds" if self._heavy.locked() else "Starting")
            async with self._heavy, files.using(await files.stage()) as stage:
                tree, output = stage / "tree", stage / "meta"
                await in_thread(tree.mkdir, 0o700)
                built = await build.build(how, tree, output, compress=packing, progress=_build_report(operation))
                candidate = candidates.packed(built.packed, built.metadata, output, packing)
                return await self._images.add(project, candidate, wishes, caller=caller)

        return self._start("Building image", project, caller, work, cancellable=True)

    async def _compression(self, project: str, wishes: Wishes) -> Compression:
        """What is wished for, else what the project says, else the server, else gzip."""
        key = "images.compression_algorithm"
        if wishes.compression:
            return compression.parse(wishes.compression)
        configured = (await self._projects.find(project)).config.get(key)
        if not configured:
            async with self._database.read() as tx:
                configured = (await settings.load(tx)).get(key)
        return compression.parse(configured) if configured else compression.GZIP

    # --- others --------------------------------------------------------------------------------------------------------

    async def delete(self, project: str, image: Image, *, caller: Caller) -> Operation:
        """Remove it from the project."""
        await self._images.owner_to_change(project, caller)

        async def work(operation: Operation) -> None:
            await self._images.delete(project, image, caller=caller)

        return self._start("Deleting image", project, caller, work, images=_urls(project, image))

    async def refresh(self, project: str, image: Image, *, caller: Caller) -> Operation:
        """Look for a newer version at the image's source. Fails for an image of this server alone, which has none."""
        await self._images.owner_to_change(project, caller)
        puller = self._puller

        async def work(operation: Operation) -> dict[str, bool]:
            if image.source is None:
                raise NotFound("Image source not found")
            newer = puller is not None and await puller.refresh(project, image, operation, caller=caller, at_once=True)
            return {"refreshed": newer}

        return self._start("Refreshing image", project, caller, work, images=_urls(project, image))

    async def make_secret(self, project: str, image: Image, *, caller: Caller) -> Operation:
        """A token with a secret that lets anybody download the image once."""
        spec = OperationSpec(
            "Image download token",
            cls=OperationClass.TOKEN,
            project=project,
            resources={"images": _urls(project, image)},
            private={"secret": new_secret()},
            seconds=TOKEN_SECONDS,
            caller=caller,
        )
        token = self._operations.start(spec)
        self._images.tell("image-secret-created", project, image.fingerprint, caller)
        return token

    def token(self, project: str, fingerprint: str, secret: str) -> Operation | None:
        """The token that opens the image of exactly that fingerprint, if the secret is right. Ends with `use`."""
        for operation in self._operations.find_all(project):
            stored = operation.spec.private.get("secret", "")
            about = any(url.split("?")[0] == f"/1.0/images/{fingerprint}" for url in operation.spec.resources.get("images", ()))
            if about and operation.may_cancel and hmac.compare_digest(stored.encode(), secret.encode(errors="replace")):
                return operation
        return None

    def use(self, token: Operation) -> bool:
        """Spend it on a download; False if another was faster."""
        return self._operations.complete_token(token)

    def _start(
        self,
        description: str,
        project: str,
        caller: Caller,
        work: Work,
        *,
        cancellable: bool = False,
        images: Sequence[str] = (),
        instances: Sequence[str] = (),
        private: Mapping[str, str] | None = None,
    ) -> Operation:
        resources = {kind: list(urls) for kind, urls in (("images", images), ("instances", instances)) if urls}
        spec = OperationSpec(description, work, project=project, resources=resources, caller=caller, cancellable=cancellable)
        return self._operations.start(replace(spec, private=private or {}))


def _urls(project: str, image: Image) -> list[str]:
    return [with_project(f"/1.0/images/{image.fingerprint}", project)]


def _published(text: bytes, wishes: Wishes) -> ImageMetadata:
    """The instance's metadata as the new image's. Properties that the client gives replace all that were there, as in LXD."""
    metadata = image_metadata.parse(text)
    properties = metadata.properties if wishes.properties is None else wishes.properties
    return replace(
        metadata, creation_date=int(clock.parse(clock.rfc3339())), expiry_date=wishes.expires_at, properties=properties
    )


def _pack_report(operation: Operation) -> Callable[[int], None]:
    return lambda written: operation.progress(PACK_PROGRESS, f"Image pack: {written / 1e6:.2f}MB")


def _build_report(operation: Operation) -> Callable[[int, str], None]:
    return lambda percent, text: operation.progress("build_progress", f"{text}: {percent}%", percent=percent)
