"""What limits of disks come to: by device, then by the disk of the host that several devices may be on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from atoll.domain.entities import Instance
from atoll.domain.errors import HostError, Unsupported
from atoll.drivers.instance.contract import DiskLimit
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.services.instances import disk_limits
from atoll.services.instances.core import Loaded
from atoll.services.instances.expand import Expanded
from atoll.services.storage import StorageService

ROOT = {"type": "disk", "path": "/", "pool": "p"}
DATA = {"type": "disk", "path": "/data", "pool": "p", "source": "data"}
BOUND = {"type": "disk", "path": "/mnt", "source": "/srv"}


def loaded(devices: dict[str, dict[str, str]]) -> Loaded:
    record = Instance(1, "default", "c1", "container", "x86_64", False, False, "", "", "", "", "none")
    return Loaded(record, Expanded({}, devices))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"limits.read": "1MB"}, DiskLimit(read_bytes=1_000_000)),
        ({"limits.write": "30iops"}, DiskLimit(write_requests=30)),
        ({"limits.max": "1MiB"}, DiskLimit(read_bytes=1 << 20, write_bytes=1 << 20)),
        ({"limits.max": "10iops", "limits.read": "5kB"}, DiskLimit(read_bytes=5000, write_requests=10)),
    ],
)
def test_of_one_device(keys: dict[str, str], expected: DiskLimit) -> None:
    assert disk_limits.wanted({"root": {**ROOT, **keys}, "eth0": {"type": "nic", "limits.max": "1Mbit"}, "x": DATA}) == {
        "root": expected
    }


def test_devices_on_one_disk_are_averaged() -> None:
    found = disk_limits.average([DiskLimit(read_bytes=10), DiskLimit(read_bytes=30, write_bytes=5)])
    assert found == DiskLimit(read_bytes=20, write_bytes=5)


def test_volumes_of_disks() -> None:
    owner = loaded({})
    assert disk_limits.volume_of_disk(owner, ROOT) == owner.volume
    assert disk_limits.volume_of_disk(owner, DATA) == VolumeId(VolumeKind.CUSTOM, "default", "data")
    assert disk_limits.volume_of_disk(owner, DATA, owner="lab") == VolumeId(VolumeKind.CUSTOM, "lab", "data")
    assert disk_limits.volume_of_disk(owner, BOUND) is None
    assert disk_limits.volume_of_disk(owner, {"type": "nic"}) is None


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that were looked at; `/srv` is on no disk, `/gone` is not there, all else is on 8:0."""
    paths: list[Path] = []

    def disk_of(path: Path) -> str | None:
        paths.append(path)
        if path == Path("/gone"):
            raise FileNotFoundError(2, "No such file")
        return None if path == Path("/srv") else "8:0"

    monkeypatch.setattr(disk_limits.blockdev, "disk_of", disk_of)
    return paths


async def by_disk(devices: dict[str, dict[str, str]]) -> Any:
    driver = SimpleNamespace(data=lambda volume: Path("/pool") / volume.name)
    owner = loaded(devices)
    return await disk_limits.by_disk(owner, owner.expanded, cast(StorageService, SimpleNamespace(driver=lambda _: driver)))


async def test_by_disk(looked_at: list[Path]) -> None:
    found = await by_disk({"root": {**ROOT, "limits.read": "10MB"}, "data": {**DATA, "limits.read": "20MB"}, "b": BOUND})
    assert found == {"8:0": DiskLimit(read_bytes=15_000_000)}
    assert looked_at == [Path("/pool/c1"), Path("/pool/data")]
    assert await by_disk({"root": ROOT, "b": BOUND}) == {}


async def test_what_cannot_be_limited_is_said(looked_at: list[Path]) -> None:
    with pytest.raises(Unsupported, match="Device 'b'"):
        await by_disk({"b": {**BOUND, "limits.max": "1MB"}})
    assert await by_disk({"b": {**BOUND, "source": "/gone", "limits.max": "1MB", "required": "false"}}) == {}
    with pytest.raises(HostError, match="/gone"):
        await by_disk({"b": {**BOUND, "source": "/gone", "limits.max": "1MB"}})
