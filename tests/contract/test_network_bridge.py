"""Network drivers keep the contract. Cases that change a host run in namespaces of their own: see `boxed/`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.drivers.network import conformance
from atoll.drivers.network.sim import SimNetwork

ROOT = Path(__file__).parents[2]
CASES = sorted((Path(__file__).parent / "boxed").glob("*_cases.py"))
SETUP = 'mount -t sysfs sysfs /sys && mount -t proc proc /proc && ip link set lo up && exec "$@"'


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_sim_network_conforms(check: conformance.Check, tmp_path: Path) -> None:
    await check(conformance.Subject(SimNetwork, tmp_path))


@pytest.mark.system
@pytest.mark.parametrize("cases", CASES, ids=lambda cases: cases.stem)
def test_in_namespaces_of_their_own(cases: Path) -> None:
    """Bridges, servers and rules of the cases end with the box; it has no way out."""
    box = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)]
    done = subprocess.run(
        [*box, "sh", "-c", SETUP, "sh", *pytest_run],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
