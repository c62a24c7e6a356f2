"""The client beside LXD's own: both look at the same daemon and have to say the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from box import SECONDS  # found through conftest's path

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("lxc") is None, reason="needs LXD's client (Debian: lxd-client)"),
]

CALLS = [
    "list", "list -f csv", "list -f compact", "list -c nsaPtcldbe", "list --fast", "list --all-projects", "list nosuch",
    "list -c Z", "list -f foo", "list --bogus", "info nosuch", "config show", "config get core.https_address",
    "config show nosuch", "config device list nosuch", "profile list", "profile list -f yaml", "profile show default",
    "profile show nosuch", "profile get default user.x", "profile device show default",
    "profile device remove default nosuch", "profile create default", "image list", "image info nosuch",
    "image alias list", "image delete nosuch", "network list", "network show nosuch", "storage list",
    "storage show nosuch", "project list", "project show default", "project switch nosuch", "operation show nosuch",
    "query /1.0/instances", "query /1.0/nosuch", "remote get-default", "start nosuch", "stop nosuch",
    "delete nosuch", "exec nosuch true", "restore nosuch x", "snapshot nosuch", "rename nosuch new",
    "network list -f yaml", "project list -f yaml", "storage list -f yaml", "profile list -f json",
    "copy nosuch new", "copy nosuch/s new", "copy nosuch new -c a", "copy nosuch new --refresh", "move nosuch new",
    "move nosuch/s other/s", "move nosuch new -c a=b", "publish nosuch", "publish nosuch/s", "publish nosuch nosuch:",
    "export nosuch --quiet", "init nosuch new", "init tiny new -d root,a", "init tiny new -c a", "image export nosuch",
]  # fmt: skip


def answer(command: list[str], words: str, environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, output and errors, with the program's name made alike."""
    done = subprocess.run(
        [*command, *words.split()], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS
    )
    alike = [re.sub(r"\batoll\b", "lxc", text) for text in (done.stdout, done.stderr)]
    return done.returncode, alike[0], alike[1]


@pytest.fixture
def environment(daemon, tmp_path) -> dict[str, str]:
    (tmp_path / "lxc").mkdir()  # a first run of LXD's client greets its user
    (tmp_path / "lxc" / "config.yml").write_text("default-remote: local\n")
    ours = {"LXD_DIR": str(daemon.dir), "LXD_CONF": str(tmp_path / "lxc"), "ATOLL_CONF": str(tmp_path / "atoll")}
    return dict(os.environ) | daemon.env() | ours


@pytest.mark.parametrize("words", CALLS)
def test_both_clients_say_the_same(words: str, environment: dict[str, str]):
    ours = answer([sys.executable, "-m", "atoll.cli"], words, environment)
    assert ours == answer(["lxc"], words, environment)
