"""A few of the faults that `faults` tries: no space is left in a pool, or the daemon is killed; nothing stays half there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import faults
import pytest
from faults import Fault, Kind, Trial

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

GROWING = ("create", "copy", "snapshot", "restore", "create a volume", "copy a volume", "snapshot a volume", "restore a volume")
STEPS = {"rename": ("renameat2", 1), "restore": ("renameat2", 1)}
"""The call at which the daemon is killed."""


@pytest.fixture(scope="module", params=["overlay", "btrfs"])
def trial(request: pytest.FixtureRequest) -> Iterator[Trial]:
    with faults.trial(request.param) as made:
        yield made
        assert made.refused  # else it was not full
        assert made.finish() == []


@pytest.mark.parametrize("name", GROWING)
def test_a_full_pool(trial: Trial, name: str) -> None:
    for free in (0, 64):
        assert trial.suffer(name, Fault(Kind.FULL, "", free)) == []


@pytest.mark.parametrize("name", STEPS)
def test_a_killed_daemon(trial: Trial, name: str) -> None:
    call, at = STEPS[name]
    assert trial.suffer(name, Fault(Kind.KILL, call, at)) == []
