"""A machine either gets what its configuration says, or does not start."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from atoll.domain.errors import Unsupported
from atoll.host.cgroup import Layout
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


@pytest.mark.parametrize(("unified", "wanted", "starts"), [(True, "v1", False), (False, "v1", True), (True, "", True)])
async def test_an_image_for_another_version_of_cgroups(
    loaded: list[str], monkeypatch: pytest.MonkeyPatch, unified: bool, wanted: str, starts: bool
) -> None:
    layout = Layout({} if unified else {"memory": "/x"}, {}, ())
    monkeypatch.setattr(requirements.cgroup, "detect", lambda: layout)
    config = {"image.requirements.cgroup": wanted, "linux.kernel_modules": "ip_vs"}
    if starts:
        await requirements.meet(config)
    else:
        with pytest.raises(Unsupported, match="requires a CGroupV1 host"):
            await requirements.meet(config)
    assert loaded == (["ip_vs"] if starts else [])
