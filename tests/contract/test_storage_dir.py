"""Driver `dir` against the contract, on the file systems that hosts have."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from atoll.drivers.storage import REGISTRY
from atoll.drivers.storage.conformance import KillingConformance, StorageConformance
from atoll.drivers.storage.conformance.suite import MakeDriver
from atoll.drivers.storage.contract import Pool

pytestmark = pytest.mark.system


def maker(folder: Path) -> MakeDriver:
    """Makes drivers for one new pool in that folder."""
    pool = Pool("p", folder / secrets.token_hex(4) / "p")
    return lambda: REGISTRY.create("dir", pool)


@pytest.mark.parametrize("on", ["ext4", "xfs", "btrfs"], indirect=True)
class TestConformance(StorageConformance):
    @pytest.fixture
    def make(self, on: Path) -> MakeDriver:
        return maker(on)


@pytest.mark.parametrize("on", ["ext4"], indirect=True)
class TestKilling(KillingConformance):
    @pytest.fixture
    def make(self, on: Path) -> MakeDriver:
        return maker(on)
