"""What goes into a backup's archive, and in which order: what is read first stands first.

backup/index.yaml, then for each snapshot backup/snapshots/NAME/…, then backup/container/…
optimized: backup/index.yaml, backup/optimized_header.yaml, backup/snapshots/NAME.bin, …, backup/container.bin
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from atoll.domain.backup_metadata import HEADER, INDEX, LIMITS
from atoll.domain.errors import BadRequest
from atoll.drivers.storage.contract import StorageDriver, Stream, VolumeId
from atoll.host.archive_backup import INSTANCE, SNAPSHOTS, TOP, VOLUME, Shape
from atoll.host.archive_sandbox import Bind
from atoll.host.threads import in_thread
from atoll.services.instances import backup_index
from atoll.services.instances.backup_index import Subject

_SIDE_FILES = ("metadata.yaml", "templates")


@dataclass(slots=True)
class Content:
    """Members of an archive, and the names (of members or of folders that have some) in the order of packing."""

    members: list[Bind] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


async def plain(stack: AsyncExitStack, driver: StorageDriver, subject: Subject, content: VolumeId, stage: Path) -> Content:
    """Every file, in the form that any server can read. `content` has what the instance has, and is not changed; what is held
    for it is let go with the stack. Small files are made in `stage`."""
    result = Content()
    await add_index(result, stage, backup_index.index(subject))
    for number, snapshot in enumerate(subject.snapshots):
        folder = f"{SNAPSHOTS}/{snapshot.name}"
        await _volume(result, stack, driver, content.parent.at(snapshot.name), folder)
        await add_text(result, stage, f"snapshot{number}.yaml", backup_index.snapshot(subject), f"{folder}/backup.yaml")
    await _volume(result, stack, driver, content, VOLUME)
    await add_text(result, stage, "backup.yaml", backup_index.instance(subject), f"{VOLUME}/backup.yaml")
    return result


async def optimized(driver: StorageDriver, subject: Subject, content: VolumeId, stage: Path) -> Content:
    """As `plain`, in the form of the pool's driver: each snapshot as a change of the one before."""
    result = Content()
    await add_index(result, stage, backup_index.index(subject, optimized=True))
    await streams(result, driver, INSTANCE, [each.name for each in subject.snapshots], content, stage)
    return result


async def streams(
    result: Content, driver: StorageDriver, shape: Shape, snapshots: Sequence[str], content: VolumeId, stage: Path
) -> None:
    """The header and the streams of an optimized archive: of these snapshots, oldest first, then of the content."""
    folder = stage / "snapshots"
    await in_thread(folder.mkdir, 0o700)
    sent: list[tuple[str, Stream]] = []
    parent: VolumeId | None = None
    for snapshot in snapshots:
        volume = content.parent.at(snapshot)
        sent += [(snapshot, stream) for stream in await driver.send(volume, folder / f"{snapshot}.bin", parent=parent)]
        parent = volume
    own = stage / f"{shape.volume.removeprefix(f'{TOP}/')}.bin"
    sent += [("", stream) for stream in await driver.send(content, own, parent=parent)]
    header = backup_index.header([(of, _of_volume(of, stream)) for of, stream in sent])
    await add_text(result, stage, HEADER, header, f"{TOP}/{HEADER}", named=True)
    for of, stream in sent:
        name = f"{shape.snapshots if of else TOP}/{stream.file.name}"
        result.members.append(Bind(stream.file, name))
        result.names.append(name)


def _of_volume(snapshot: str, stream: Stream) -> Stream:
    """What it is to be when it is received: the volume itself is writable, also where a snapshot of it was sent."""
    if snapshot or stream.path != "/":
        return stream
    return Stream(stream.path, False, stream.file, stream.uuid)


async def add_index(result: Content, stage: Path, text: bytes) -> None:
    """What the archive says of itself. BadRequest for one that no server would read."""
    if len(text) > LIMITS.bytes:
        raise BadRequest(
            f"The snapshots take more than {LIMITS.bytes} bytes to describe", hint="make the backup without snapshots"
        )
    await add_text(result, stage, INDEX, text, f"{TOP}/{INDEX}", named=True)


async def add_text(result: Content, stage: Path, name: str, content: bytes, member: str, *, named: bool = False) -> None:
    """A file of the daemon's own, made in `stage`; `named` if it is not in a folder that is named."""
    path = stage / name
    await in_thread(path.write_bytes, content)
    result.members.append(Bind(path, member))
    if named:
        result.names.append(member)


async def _volume(result: Content, stack: AsyncExitStack, driver: StorageDriver, volume: VolumeId, folder: str) -> None:
    """A volume's root file system, and what stands beside it."""
    data = driver.data(volume)
    rootfs = await stack.enter_async_context(driver.open_rootfs(volume))
    beside = [name for name in _SIDE_FILES if await in_thread((data / name).exists)]
    result.members += [*(Bind(data / name, f"{folder}/{name}") for name in beside), Bind(rootfs, f"{folder}/rootfs")]
    result.names.append(folder)
