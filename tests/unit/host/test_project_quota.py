"""What is said to the kernel about projects, and how its answers are taken. The contract tests of sizes do it for real."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from atoll.domain.errors import HostError
from atoll.host import disk, project_quota, syscalls

GET, SET, STATE = 0x80000702, 0x80000802, 0x580802


class Kernel:
    """Answers quotactl(2) and keeps what it was asked."""

    def __init__(self) -> None:
        self.flags = 0
        self.record: tuple[int, ...] | OSError = (0,) * 9
        self.asked: list[tuple[int, int]] = []
        self.told: dict[int, tuple[int, int]] = {}

    def quotactl(self, _filesystem: int, command: int, subject: int, data: bytearray) -> None:
        self.asked.append((command, subject))
        if command == STATE:
            assert data[0] == 1
            struct.pack_into("=H", data, 2, self.flags)
        elif command == SET:
            limit, *_, valid = struct.unpack("=8QI4x", data)
            self.told[subject] = (limit, valid)
        elif isinstance(self.record, OSError):
            raise self.record
        else:
            data[:] = struct.pack("=8QI4x", *self.record)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(syscalls, "quotactl", kernel.quotactl)
    return kernel


def test_limits_are_in_whole_blocks_and_leave_the_others_alone(kernel: Kernel, tmp_path: Path) -> None:
    project_quota.limit(tmp_path, 7, 1025)
    project_quota.limit(tmp_path, 8, None)
    assert kernel.told == {7: (2, 1), 8: (0, 1)}


def test_figures(kernel: Kernel, tmp_path: Path) -> None:
    kernel.record = (4, 0, 3000, 0, 0, 5, 0, 0, 0)
    assert (project_quota.limit_of(tmp_path, 7), project_quota.usage(tmp_path, 7)) == (4096, 3000)
    assert kernel.asked == [(GET, 7), (GET, 7)]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESRCH])
def test_a_project_without_record_takes_nothing(kernel: Kernel, tmp_path: Path, number: int) -> None:
    kernel.record = OSError(number, "none")
    assert (project_quota.limit_of(tmp_path, 7), project_quota.usage(tmp_path, 7)) == (None, 0)
    assert 1 << 30 <= project_quota.unused(tmp_path) < 1 << 31


def test_other_refusals_are_told(kernel: Kernel, tmp_path: Path) -> None:
    kernel.record = PermissionError(errno.EPERM, "no")
    with pytest.raises(PermissionError):
        project_quota.usage(tmp_path, 7)


def test_projects_in_use_are_left_to_others(kernel: Kernel, tmp_path: Path) -> None:
    kernel.record = (0, 0, 0, 0, 0, 1, 0, 0, 0)
    with pytest.raises(HostError, match="in use"):
        project_quota.unused(tmp_path)


@pytest.mark.parametrize(("flags", "kind"), [(0, "ext4"), (1 << 4, "xfs"), (1 << 1 | 1 << 3, "ext4")])
def test_why_a_file_system_limits_nothing(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: int, kind: str
) -> None:
    kernel.flags = flags
    monkeypatch.setattr(disk, "filesystem", lambda _path: kind)
    reason = project_quota.reason_against(tmp_path)
    assert reason is not None and kind in reason and "prjquota" in reason


def test_other_file_systems_have_no_projects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(disk, "filesystem", lambda _path: "btrfs")
    assert "btrfs has no project quotas" in (project_quota.reason_against(tmp_path) or "")


def test_a_folder_that_is_missing_has_no_project(tmp_path: Path) -> None:
    assert project_quota.project_of(tmp_path / "absent") == project_quota.NONE
