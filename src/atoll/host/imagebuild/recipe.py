"""What can be built: one row per image, found by its name (`debian/12`) or its release's (`debian/bookworm`).

Each has a variant with cloud-init, as images of other servers have it: `debian/12/cloud`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from atoll.domain.errors import BadRequest
from atoll.host.imagebuild import cloud

CLOUD = "cloud"
"""The variant with cloud-init."""


class Distribution(StrEnum):
    """Whose packages an image is made of; the value is the ID of its os-release."""

    DEBIAN = "debian"
    UBUNTU = "ubuntu"
    BUSYBOX = "busybox"

    @property
    def brand(self) -> str:
        """How it writes itself."""
        return {"debian": "Debian", "ubuntu": "Ubuntu", "busybox": "Busybox"}[self.value]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is built. `name` is its alias; `packages` come on top of the essential ones and apt."""

    name: str
    distribution: Distribution
    version: str = ""
    release: str = ""
    packages: tuple[str, ...] = ()
    has_cloud_init: bool = False

    @property
    def variant(self) -> str:
        """`default` or `cloud` for the row as it stands, `custom` with packages of the caller's."""
        if self != _BY_NAME[self.name]:
            return "custom"
        return CLOUD if self.has_cloud_init else "default"

    def with_cloud_init(self) -> Recipe:
        """Its variant."""
        return replace(self, name=f"{self.name}/{CLOUD}", packages=(*self.packages, *cloud.PACKAGES), has_cloud_init=True)


_SYSTEM = ("systemd-sysv", "dbus", "iproute2", "iputils-ping", "netbase", "procps")
_RESOLVED = (*_SYSTEM, "systemd-resolved")

_PLAIN = (
    Recipe("debian/11", Distribution.DEBIAN, "11", "bullseye", _SYSTEM),
    Recipe("debian/12", Distribution.DEBIAN, "12", "bookworm", _RESOLVED),
    Recipe("debian/13", Distribution.DEBIAN, "13", "trixie", _RESOLVED),
    Recipe("ubuntu/22.04", Distribution.UBUNTU, "22.04", "jammy", _SYSTEM),
    Recipe("ubuntu/24.04", Distribution.UBUNTU, "24.04", "noble", _RESOLVED),
    Recipe("busybox", Distribution.BUSYBOX),
)

RECIPES: tuple[Recipe, ...] = (
    *_PLAIN,
    *(recipe.with_cloud_init() for recipe in _PLAIN if recipe.distribution is not Distribution.BUSYBOX),
)

_BY_NAME = {recipe.name: recipe for recipe in RECIPES}
_BY_RELEASE = {
    f"{recipe.distribution}/{recipe.release}" + (f"/{CLOUD}" if recipe.has_cloud_init else ""): recipe
    for recipe in RECIPES
    if recipe.release
}
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")


def find(name: str, *, packages: Sequence[str] = ()) -> Recipe:
    """The recipe of that name, with more packages where the distribution has any. BadRequest lists what there is."""
    recipe = _BY_NAME.get(name) or _BY_RELEASE.get(name)
    if recipe is None:
        known = ", ".join(sorted(_BY_NAME))
        raise BadRequest(f"There is no recipe for image {name[:80]!r}", hint=f"known are {known}")
    if not packages:
        return recipe
    if recipe.distribution is Distribution.BUSYBOX:
        raise BadRequest("The busybox image has no packages")
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise BadRequest(f"Invalid package name {package[:80]!r}")
    return replace(recipe, packages=tuple(dict.fromkeys((*recipe.packages, *packages))))
