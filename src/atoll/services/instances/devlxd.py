"""/dev/lxd in instances: the folder with the guest API's socket, mounted there unless `security.devlxd` is off.

The folder is mounted, not the socket: the one that the next daemon makes is then seen inside too. It is mounted read-only, so
that no guest, not even a privileged one, can put something else in the socket's place for all others.
"""

from __future__ import annotations

from atoll import config as keys
from atoll.domain.entities import Config
from atoll.domain.paths import Paths
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MountSpec
from atoll.services.instances.core import InstanceCore, Loaded


def is_on(config: Config) -> bool:
    """Whether an instance of that expanded configuration has it."""
    return keys.INSTANCE.flag(config, "security.devlxd")


def mounts(config: Config, paths: Paths) -> list[MountSpec]:
    """What a launch has for it."""
    return [_mount(paths)] if is_on(config) else []


def _mount(paths: Paths) -> MountSpec:
    options = ("bind", "ro", "nosuid", "nodev", "noexec")
    return MountSpec("devlxd", str(paths.devlxd), "dev/lxd", options=options)


async def follow(core: InstanceCore, loaded: Loaded, config: Config, undo: Reverter) -> None:
    """Give it to a running instance, or take it away, as its new expanded configuration says."""
    wanted = is_on(config)
    if wanted == is_on(loaded.expanded.config):
        return
    attach, detach = core.driver.attach_mount, core.driver.detach_mount
    step, back = (attach, detach) if wanted else (detach, attach)
    mount = _mount(core.paths)
    await step(loaded.machine, mount)
    undo.add(back, loaded.machine, mount)
