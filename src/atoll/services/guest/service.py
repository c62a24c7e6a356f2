"""What an instance may ask about itself. Its own things alone: of others, and of the host, there is no word."""

from __future__ import annotations

from urllib.parse import quote

from atoll import config as keys
from atoll.domain.errors import Forbidden, NotFound
from atoll.drivers.instance.contract import MachineId, Resident
from atoll.host.peer import Peer
from atoll.services.images.files import Part
from atoll.services.images.service import ImageService
from atoll.services.instances import devlxd
from atoll.services.instances.core import InstanceCore, Loaded

SHOWN = ("cloud-init.", "user.")
"""Keys that a guest sees."""


class GuestService:
    """Use cases of guests."""

    def __init__(self, core: InstanceCore, images: ImageService) -> None:
        self._core = core
        self._images = images

    async def identify(self, process: Peer) -> Resident | None:
        """The machine that a process is in; None for a stranger."""
        return await self._core.driver.find_by_process(process)

    async def load(self, machine: MachineId) -> Loaded:
        """The instance that asks. Forbidden if it has no guest API: a connection may be older than that."""
        try:
            loaded = await self._core.load(machine.project, machine.name)
        except NotFound as error:
            raise Forbidden("Not authorized") from error
        if not devlxd.is_on(loaded.expanded.config):
            raise Forbidden("Not authorized")
        return loaded

    async def image(self, loaded: Loaded, fingerprint: str) -> list[Part]:
        """The files of an image that is public, or a cached one of another server's. What the instance may not have is not
        there; Forbidden without `security.devlxd.images`."""
        if not keys.INSTANCE.flag(loaded.expanded.config, "security.devlxd.images"):
            raise Forbidden("Not authorized")
        image = await self._images.find(loaded.record.project, fingerprint)
        if not (image.public or image.cached):
            raise NotFound("Image not found")
        return await self._images.files.parts(image)


def config_urls(loaded: Loaded) -> list[str]:
    """The addresses of the keys that it sees."""
    return [f"/1.0/config/{quote(key, safe='')}" for key in sorted(loaded.expanded.config) if key.startswith(SHOWN)]


def config_value(loaded: Loaded, key: str) -> str:
    """The value of a key. Forbidden for one that guests do not see, NotFound for one that is not set."""
    if not key.startswith(SHOWN):
        raise Forbidden("Not authorized")
    value = loaded.expanded.config.get(key)
    if value is None:
        raise NotFound("Not found")
    return value


def devices(loaded: Loaded) -> dict[str, dict[str, str]]:
    """Its devices, a NIC with the MAC address that it has if none was set: by that it can be told which one it is."""
    shown = {name: dict(device) for name, device in loaded.expanded.devices.items()}
    for name, device in shown.items():
        hwaddr = loaded.expanded.config.get(f"volatile.{name}.hwaddr")
        if device.get("type") == "nic" and hwaddr:
            device.setdefault("hwaddr", hwaddr)
    return shown
