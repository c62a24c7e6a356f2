"""Kernel modules, by the host's own modprobe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atoll.domain.errors import HostError
from atoll.host import process

_LOADED = Path("/sys/module")


async def load(names: Sequence[str], *, loaded: Path = _LOADED) -> None:
    """Load those that are not there, built in or loaded. HostError, naming the module, if one cannot be."""
    for name in names:
        if (loaded / name.replace("-", "_")).exists():
            continue
        try:
            await process.run(["modprobe", "-b", "--", name])
        except HostError as error:
            raise HostError(f"Failed to load kernel module {name!r}: {error}") from error
