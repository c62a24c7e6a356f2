"""A machine either gets what its configuration says, or does not start."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from atoll.domain.errors import Unsupported
from atoll.services.instances import requirements


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that were to be loaded."""
    names: list[str] = []

    async def load(wanted: Sequence[str]) -> None:
        names.extend(wanted)

    monkeypatch.setattr(requirements.modules, "load", load)
    return names


async def test_modules_are_loaded(loaded: list[str]) -> None:
    await requirements.meet({"linux.kernel_modules": "ip_vs, overlay", "nvidia.runtime": "false"})
    assert loaded == ["ip_vs", "overlay"]


@pytest.mark.parametrize(
    "key", ["nvidia.runtime", "security.syscalls.intercept.mknod", "security.syscalls.intercept.bpf.devices"]
)
async def test_what_no_start_can_give(loaded: list[str], key: str) -> None:
    with pytest.raises(Unsupported, match=key):
        await requirements.meet({key: "true", "linux.kernel_modules": "ip_vs"})
    assert loaded == []
    await requirements.meet({key: "false"})
