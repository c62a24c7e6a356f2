"""Instances, images and snapshots as stacks of layers in a pool's folders. All methods block; see the package's docstring.

Each method changes one stack file or one name at a time, in an order that leaves after every step a whole volume, with at
most layers or folders to spare that the audit removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from atoll.domain.errors import AtollError, NotFound
from atoll.drivers.storage import folders
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.drivers.storage.folders import ROOTFS, Folders
from atoll.drivers.storage.overlay.layers import (
    STACK_FILE,
    LayerStore,
    Stack,
    read_stack,
    require_no_whiteouts,
    share_first_stack,
    write_first_stack,
    write_stack,
)
from atoll.host import confined, disk


class StackedVolumes:
    """Stacks of one pool, on disk. `store` has the layers and `pool` the folders."""

    def __init__(self, pool: Folders, store: LayerStore) -> None:
        self._pool = pool
        self._store = store

    def load(self) -> None:
        """Count the layers anew."""
        self._store.root.mkdir(mode=0o700, exist_ok=True)
        self._store.load(stack for _, stack in self._stacks())

    def _stacks(self) -> Iterator[tuple[VolumeId, Stack]]:
        for volume in self._pool.scan():
            if volume.kind is not VolumeKind.CUSTOM:
                try:
                    yield volume, read_stack(self._pool.data(volume))
                except AtollError:
                    continue  # the audit reports it

    def stack(self, volume: VolumeId) -> Stack:
        """The volume's stack."""
        return read_stack(self._pool.require(volume))

    def begin(self, volume: VolumeId, size: int | None) -> Path:
        """A folder to be filled and then given to `finish`. Conflict if the volume exists."""
        self._pool.require_absent(volume)
        made = self._pool.temporary()
        (made / ROOTFS).mkdir(mode=0o755)
        if volume.kind is VolumeKind.INSTANCE:
            self._store.sizes.begin(made / ROOTFS, size=size)
        return made

    def finish(self, made: Path, volume: VolumeId) -> None:
        """Make a filled folder a volume: its root becomes a layer. An image is flushed, for all its clones rest on it."""
        if volume.kind is VolumeKind.INSTANCE:
            require_no_whiteouts(made / ROOTFS)
        with self._new_layer(self._store.adopt(made / ROOTFS)) as base:
            (made / ROOTFS).mkdir(mode=0o755)
            if volume.kind is VolumeKind.IMAGE:
                disk.flush_filesystem(made)
                self._publish(made, volume, (base,))
            else:
                with self._new_layer(self._store.make((base,), after=base)) as upper:
                    self._publish(made, volume, (upper, base))

    def clone_frozen(self, source: VolumeId, target: VolumeId) -> None:
        """A new instance over the stack of an image or a snapshot."""
        with self._held(lambda: self.stack(source)) as below:
            self._publish_over(source, target, self._store.make(below), below)

    def clone_snapshots(self, source: VolumeId, target: VolumeId, names: Sequence[str]) -> None:
        """The named snapshots of a volume as all those of another, in one step: the same layers, held once more."""
        self._pool.require_absent(target)
        made = self._pool.temporary()
        try:
            with ExitStack() as held:
                for name in names:
                    self._share(source.at(name), made / name, held)
                self._pool.publish_snapshots(made, target)
        except BaseException:
            confined.remove_tree(made)
            raise

    def clone_snapshot(self, source: VolumeId, target: VolumeId) -> None:
        """A snapshot of a volume as one more of another."""
        made = self._pool.temporary()
        try:
            with ExitStack() as held:
                self._share(source, made / "snapshot", held)
                self._pool.publish(made / "snapshot", target)
        finally:
            confined.remove_tree(made)

    def _share(self, source: VolumeId, made: Path, held: ExitStack) -> None:
        """Make a folder like a snapshot's, whose layers are held for it if `held` is left without an error."""
        stack = held.enter_context(self._held(lambda: self.stack(source)))
        made.mkdir(mode=0o700)
        (made / ROOTFS).mkdir(mode=0o755)
        data = self._pool.data(source)
        folders.copy_side_files(data, made, without={STACK_FILE}, share=True)
        share_first_stack(made, data, stack)

    def delete_snapshots(self, volume: VolumeId, names: Sequence[str]) -> list[Path]:
        """As `delete`, for several snapshots."""
        return self.delete_all([volume.at(name) for name in names])

    def clone_with(self, source: VolumeId, target: VolumeId, tree: Path) -> None:
        """A new volume, an instance or a snapshot, with a copy of the instance's upper over the layers that it lies on."""
        with self._held(lambda: self.stack(source)[1:]) as below:
            self._publish_over(source, target, self._store.adopt(tree), below)

    def snapshot_frozen(self, snapshot: VolumeId) -> None:
        """A snapshot of an instance that is not in use: share all its layers, and give it a new upper."""
        self._pool.require_absent(snapshot)
        stack = self.freeze(snapshot.parent)
        self._store.hold(stack)
        with self._released_on_failure(stack):
            with self._prepared(snapshot.parent, stack) as made:
                self._pool.publish(made, snapshot)

    def clone_freezing(self, source: VolumeId, target: VolumeId) -> None:
        """A new instance like one that is not in use."""
        self._pool.require_absent(target)
        below = self.freeze(source)
        self._store.hold(below)
        with self._released_on_failure(below):
            self._publish_over(source, target, self._store.make(below), below)

    def freeze(self, instance: VolumeId) -> Stack:
        """Give an instance that is not in use a new upper; returns the stack below that."""
        stack = self.stack(instance)
        self._replace_stack(instance, (self._store.make(stack, after=stack[0]), *stack), spared=())
        return stack

    def flatten(self, instance: VolumeId, tree: Path) -> list[Path]:
        """Put one layer with the whole content in the place of all the instance has; returns what to remove."""
        old = self.stack(instance)
        base = self._store.adopt(tree)
        return self._replace_stack(instance, (self._store.make((base,), after=old[0]), base), spared=old)

    def _replace_stack(self, volume: VolumeId, new: Stack, *, spared: Stack) -> list[Path]:
        """Write a new stack; `spared` are the layers that the volume no longer has."""
        added = tuple(layer for layer in new if layer not in self.stack(volume))
        self._store.hold(added)
        with self._released_on_failure(added):
            write_stack(self._pool.require(volume), new)
        return self._withdraw_layers(self._store.release(spared))

    def restore(self, snapshot: VolumeId) -> list[Path]:
        """Make an instance, not in use, as its snapshot was: a new upper over the snapshot's stack. Returns what to remove."""
        return self.replace_frozen(snapshot.parent, snapshot)

    def replace_frozen(self, target: VolumeId, source: VolumeId) -> list[Path]:
        """Make an instance, not in use, as a snapshot is: a new upper over that one's stack. Returns what to remove."""
        with self._replaced(target) as (upper, gone), self._held(lambda: self.stack(source)) as below:
            gone.append(self._exchange_over(source, target, self._store.make(below, after=upper), below))
        return gone

    def replace_freezing(self, target: VolumeId, source: VolumeId) -> list[Path]:
        """As `replace_frozen`, from an instance that is not in use."""
        below = self.freeze(source)
        self._store.hold(below)
        with self._replaced(target) as (upper, gone), self._released_on_failure(below):
            gone.append(self._exchange_over(source, target, self._store.make(below, after=upper), below))
        return gone

    def replace_with(self, target: VolumeId, source: VolumeId, tree: Path) -> list[Path]:
        """As `replace_frozen`, from an instance in use: with a copy of its upper over the layers that it lies on."""
        sizes = self._store.sizes
        with self._replaced(target) as (upper, gone), self._held(lambda: self.stack(source)[1:]) as below:
            sizes.inherit(self._store.tree(upper), tree)
            gone.append(self._exchange_over(source, target, self._store.adopt(tree), below))
            sizes.forget(self._store.tree(upper))
        return gone

    @contextmanager
    def _replaced(self, volume: VolumeId) -> Iterator[tuple[str, list[Path]]]:
        """The block puts another stack in the place of the volume's, whose upper it gets; the list gets the layers that nobody
        has any more."""
        old = self.stack(volume)
        gone: list[Path] = []
        yield old[0], gone
        gone += self._withdraw_layers(self._store.release(old))

    def _exchange_over(self, source: VolumeId, target: VolumeId, layer: str, below: Stack) -> Path:
        """As `_publish_over`, in the place of a target that exists; returns where that is now."""
        with self._new_layer(layer), self._prepared(source, (layer, *below)) as made:
            self._pool.exchange(made, target)
        return made

    def delete(self, volume: VolumeId) -> list[Path]:
        """Take a volume out of sight, and the layers that were its alone; returns what to remove."""
        try:
            stack = self.stack(volume)
        except AtollError:  # not there, or damaged: then the audit finds its layers
            stack = ()
        gone = self._pool.withdraw_volume(volume)
        if gone is None:
            return []
        if stack and _has_upper(volume):
            self._store.sizes.forget(self._store.tree(stack[0]))
        return [gone, *self._withdraw_layers(self._store.release(stack))]

    def delete_all(self, volumes: Sequence[VolumeId]) -> list[Path]:
        """As `delete`, for several."""
        return [path for volume in volumes for path in self.delete(volume)]

    def _withdraw_layers(self, layers: list[str]) -> list[Path]:
        gone = [self._pool.withdraw(self._store.root / layer) for layer in layers]
        return [path for path in gone if path is not None]

    def publish_arrived(self, made: Path, volume: VolumeId, stack: Stack, *, above: bool) -> None:
        """Make a volume of layers that are held otherwise, and of a folder with what stands beside its root file system; with a
        new upper if `above`."""
        self._store.hold(stack)
        with self._released_on_failure(stack):
            (made / ROOTFS).mkdir(mode=0o755)
            if not above:
                self._publish(made, volume, stack)
                return
            with self._new_layer(self._store.make(stack)) as upper:
                self._publish(made, volume, (upper, *stack))

    def hold_image(self, image: VolumeId) -> Stack:
        """An image's stack, which stays until it is given to `release`. NotFound."""
        with self._store.lock:
            stack = self.stack(image)
            self._store.hold(stack)
        return stack

    def release(self, stack: Stack) -> list[Path]:
        """Who held these layers does no longer; returns what to remove."""
        return self._withdraw_layers(self._store.release(stack))

    @contextmanager
    def _held(self, read: Callable[[], Stack]) -> Iterator[Stack]:
        """A stack, read and held in one go; held no more if the block fails, else it belongs to what the block made."""
        with self._store.lock:
            stack = read()
            self._store.hold(stack)
        with self._released_on_failure(stack):
            yield stack

    @contextmanager
    def _released_on_failure(self, stack: Stack) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for path in self._withdraw_layers(self._store.release(stack)):
                confined.remove_tree(path)
            raise

    @contextmanager
    def _new_layer(self, layer: str) -> Iterator[str]:
        """A layer just made: it belongs to what the block makes, or is removed if that fails."""
        self._store.hold((layer,))
        with self._released_on_failure((layer,)):
            yield layer

    def _publish_over(self, source: VolumeId, target: VolumeId, layer: str, below: Stack) -> None:
        """Make `target` with the layer over a stack that is held for it, and with the source's small files."""
        with self._new_layer(layer), self._prepared(source, (layer, *below)) as made:
            self._pool.publish(made, target)

    def _publish(self, made: Path, volume: VolumeId, stack: Stack) -> None:
        write_first_stack(made, stack)
        self._pool.publish(made, volume)

    @contextmanager
    def _prepared(self, source: VolumeId, stack: Stack) -> Iterator[Path]:
        """A new folder with the source's metadata and templates, and a stack; removed again if the block fails."""
        data = self._pool.require(source)
        made = self._pool.temporary()
        try:
            (made / ROOTFS).mkdir(mode=0o755)
            folders.copy_side_files(data, made, without={STACK_FILE})
            write_first_stack(made, stack)
            yield made
        except BaseException:
            confined.remove_tree(made)
            raise

    def audit(self) -> tuple[list[str], list[Path]]:
        """Count anew; returns a sentence for each damage or repair, and the layers to remove, already out of sight."""
        self.load()
        sentences = []
        for volume in self._pool.scan():
            if volume.kind is not VolumeKind.CUSTOM and (damage := self._damage(volume)):
                sentences.append(f"{folders.label(volume)} is damaged: {damage}")
        if sentences:  # a layer without a stack may belong to a volume whose list is damaged: keep it for a rescue
            return sentences, []
        unused = self._store.unused()
        self._forget_sizes(unused)
        return [f"removed the unused layer {layer}" for layer in unused], self._withdraw_layers(unused)

    def _forget_sizes(self, unused: Sequence[str]) -> None:
        """Of instances that are gone; their layers, if they are gone, too, tell which size that was."""
        sizes = self._store.sizes
        if not unused or not sizes.enforced:
            return
        uppers = {sizes.project(self._store.tree(stack[0])) for volume, stack in self._stacks() if _has_upper(volume)}
        for layer in unused:
            if sizes.project(self._store.tree(layer)) not in uppers:
                sizes.forget(self._store.tree(layer))

    def _damage(self, volume: VolumeId) -> str | None:
        try:
            missing = self._store.missing(self.stack(volume))
        except NotFound:
            return "it has no list of layers"
        except AtollError as error:
            return error.message
        return f"layers {', '.join(missing)} are missing" if missing else None


def _has_upper(volume: VolumeId) -> bool:
    """Whether the first layer of its stack is its own, to be written to."""
    return volume.kind is VolumeKind.INSTANCE and not volume.snapshot
