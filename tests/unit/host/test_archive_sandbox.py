"""Jails for programs that read what strangers made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.host import archive_jail, archive_sandbox
from atoll.host.archive_sandbox import Bind, Jail

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


async def test_a_jail_that_cannot_be_made_is_no_tar_that_saw_changes(tmp_path: Path) -> None:
    """Else a backup without space for its jail would be an empty one."""
    jail = Jail([Bind(tmp_path / "gone", "gone")])
    async with await archive_sandbox.start(["tar", "--create", "--files-from=/dev/null"], jail) as program:
        code, said = await program.finish()
    assert code == archive_jail.FAILED
    assert "No such file or directory" in said
