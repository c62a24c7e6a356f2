"""Kernel modules: those that are there are left alone, others loaded by modprobe, a failure names the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import HostError
from atoll.host import modules


async def test_only_what_is_missing_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    async def run(argv: list[str]) -> Any:
        ran.append(argv)

    monkeypatch.setattr(modules.process, "run", run)
    (tmp_path / "nf_nat").mkdir()
    await modules.load(["nf-nat", "ip_vs"], loaded=tmp_path)
    assert ran == [["modprobe", "-b", "--", "ip_vs"]]


async def test_a_failure_names_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(argv: list[str]) -> Any:
        raise HostError("not found")

    monkeypatch.setattr(modules.process, "run", run)
    with pytest.raises(HostError, match="'ip_vs': not found"):
        await modules.load(["ip_vs"], loaded=tmp_path)
