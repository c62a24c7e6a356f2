"""Backups and images made of containers, and the volumes that the daemon keeps them on."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from box import Daemon, wait_until  # found through conftest's path

pytestmark = pytest.mark.system


@pytest.fixture
def machine(machines: Daemon) -> Iterator[str]:
    """A container `c1` with one file in its snapshot `s0` and another since then; it runs."""
    machines.run("atoll", "launch", "tiny", "c1")
    machines.inside("c1", "touch", "/root/one")
    machines.run("atoll", "snapshot", "c1", "s0")
    machines.inside("c1", "touch", "/root/two")
    yield "c1"


def post(daemon: Daemon, path: str, **body: Any) -> dict[str, Any]:
    """A POST whose operation is waited for; AssertionError if it fails."""
    answer: dict[str, Any] = json.loads(daemon.run("atoll", "query", "--wait", "-X", "POST", "-d", json.dumps(body), path))
    assert answer.get("err", "") == "", answer
    return answer


def back_up(daemon: Daemon, **body: Any) -> str:
    """A new backup's name."""
    made = post(daemon, "/1.0/instances/c1/backups", **body)
    return str(made["resources"]["backups"][0].rpartition("/")[2])


def backup_path(daemon: Daemon, name: str, instance: str = "c1") -> Path:
    return daemon.state / "backups/instances" / instance / name


@pytest.mark.parametrize("running", [True, False])
def test_a_backup_has_all_that_lxd_s_has(machines: Daemon, machine: str, running: bool) -> None:
    if not running:
        machines.run("atoll", "stop", "--force", machine)
    name = back_up(machines, expires_at="2100-01-01T10:00:00-05:00", compression_algorithm="zstd" if running else "none")
    assert machines.query("/1.0/instances/c1/backups") == [f"/1.0/instances/c1/backups/{name}"]
    assert machines.query(f"/1.0/instances/c1/backups/{name}")["expires_at"].startswith("2100-01-01T15:00:00")
    assert [each.rpartition("/")[2] for each in machines.query("/1.0/instances/c1/snapshots")] == ["s0"]
    if running:
        return
    with tarfile.open(backup_path(machines, name)) as archive:
        names = archive.getnames()
        index = yaml.safe_load(archive.extractfile("backup/index.yaml").read())  # type: ignore[union-attr]
        own = yaml.safe_load(archive.extractfile("backup/container/backup.yaml").read())  # type: ignore[union-attr]
    assert names[0] == "backup/index.yaml"
    assert (index["name"], index["snapshots"], index["optimized"], index["type"]) == ("c1", ["s0"], False, "container")
    assert index["config"] == own and own["container"]["name"] == "c1" and own["pool"]["name"] == index["pool"]
    assert {"backup/container/rootfs/root/two", "backup/container/metadata.yaml", "backup/container/templates"} <= set(names)
    assert "backup/snapshots/s0/rootfs/root/one" in names and "backup/snapshots/s0/rootfs/root/two" not in names


def test_backups_follow_their_instance(machines: Daemon, machine: str) -> None:
    name = back_up(machines, instance_only=True)
    post(machines, f"/1.0/instances/c1/backups/{name}", name="kept")
    machines.run("atoll", "stop", "--force", machine)
    machines.run("atoll", "rename", "c1", "c2")
    assert machines.query("/1.0/instances/c2/backups") == ["/1.0/instances/c2/backups/kept"]
    assert backup_path(machines, "kept", "c2").is_file()
    machines.run("atoll", "delete", "c2")
    assert not list((machines.state / "backups/instances").iterdir())


@pytest.mark.parametrize(
    "body", [{"name": "../x"}, {"name": ".x"}, {"compression_algorithm": "sh -c id"}, {"expires_at": "soon"}]
)
def test_what_cannot_be_is_refused_and_leaves_nothing(machines: Daemon, machine: str, body: dict[str, str]) -> None:
    done = machines.try_("atoll", "query", "--wait", "-X", "POST", "-d", json.dumps(body), "/1.0/instances/c1/backups")
    assert done.returncode != 0
    assert machines.query("/1.0/instances/c1/backups") == []


def test_a_backup_that_a_kill_cut_off_is_gone_after_the_start(machines: Daemon, machine: str) -> None:
    machines.run("atoll", "exec", machine, "--", "dd", "if=/dev/urandom", "of=/root/big", "bs=1M", "count=64")
    body = json.dumps({"name": "cut", "compression_algorithm": "gzip"})
    machines.run("atoll", "query", "-X", "POST", "-d", body, "/1.0/instances/c1/backups")
    folder = machines.state / "backups/instances/c1"
    wait_until(lambda: list(folder.glob(".making-*/archive")), "the backup is being packed")
    machines.kill()
    machines.start()
    assert machines.query("/1.0/instances/c1/backups") == [] and not folder.exists()
    assert machines.query("/1.0/instances/c1/snapshots") == ["/1.0/instances/c1/snapshots/s0"]
    assert machines.inside(machine, "ls", "/root") == "big\none\ntwo"


@pytest.mark.parametrize("source", ["c1", "c1/s0"])
def test_an_image_of_it_can_be_launched(machines: Daemon, machine: str, source: str) -> None:
    kind = "snapshot" if "/" in source else "instance"
    body = {"source": {"type": kind, "name": source}, "aliases": [{"name": "made"}], "properties": {"a": "b"}, "public": True}
    if kind == "instance":
        done = machines.try_("atoll", "query", "--wait", "-X", "POST", "-d", json.dumps(body), "/1.0/images")
        assert done.returncode != 0 and "is running" in done.stderr
        machines.run("atoll", "stop", "--force", machine)
    fingerprint = post(machines, "/1.0/images", **body)["metadata"]["fingerprint"]
    try:
        image = machines.query("/1.0/images/aliases/made")
        assert image["target"] == fingerprint
        shown = machines.query(f"/1.0/images/{fingerprint}")
        assert shown["public"] and shown["properties"] == {"a": "b"}
        machines.run("atoll", "launch", "made", "c2")
        assert machines.inside("c2", "ls", "/root") == ("one" if kind == "snapshot" else "one\ntwo")
        assert machines.inside("c2", "hostname") == machines.inside("c2", "cat", "/etc/hostname") == "c2"
    finally:
        machines.run("atoll", "query", "--wait", "-X", "DELETE", f"/1.0/images/{fingerprint}")


@pytest.fixture
def volume(machines: Daemon) -> Iterator[str]:
    """POOL/VOLUME of a new volume; afterwards the daemon keeps everything at home and the volume is gone."""
    (pool,) = (url.rpartition("/")[2] for url in machines.query("/1.0/storage-pools"))
    machines.run("atoll", "storage", "volume", "create", pool, "kept")
    yield f"{pool}/kept"
    for key in ("storage.backups_volume", "storage.images_volume"):
        machines.run("atoll", "config", "unset", key)
    machines.run("atoll", "storage", "volume", "delete", pool, "kept")


def test_backups_move_to_a_volume_and_home_again(machines: Daemon, machine: str, volume: str) -> None:
    name = back_up(machines)
    content = backup_path(machines, name).read_bytes()
    pool, _, own = volume.partition("/")
    machines.run("atoll", "config", "set", "storage.backups_volume", volume)
    data = machines.state / "storage-pools" / pool / "custom" / f"default_{own}"
    assert (machines.state / "backups").readlink() == data
    assert (data / "instances/c1" / name).read_bytes() == content
    for command in (("snapshot", pool, own), ("delete", pool, own), ("rename", pool, own, "other")):
        assert machines.try_("atoll", "storage", "volume", *command).returncode != 0
    assert machines.query(f"/1.0/storage-pools/{pool}/volumes/custom/{own}")["used_by"] == ["/1.0"]
    machines.kill()
    machines.start()
    assert back_up(machines, instance_only=True) == "backup1" and (data / "instances/c1/backup1").is_file()
    machines.run("atoll", "config", "unset", "storage.backups_volume")
    assert not (machines.state / "backups").is_symlink() and backup_path(machines, name).read_bytes() == content
    assert not list(data.iterdir())


def test_images_move_to_a_volume(machines: Daemon, volume: str) -> None:
    before = sorted(path.name for path in (machines.state / "images").iterdir())
    machines.run("atoll", "config", "set", "storage.images_volume", volume)
    assert (machines.state / "images").is_symlink()
    assert sorted(path.name for path in (machines.state / "images").iterdir()) == before
    assert machines.try_("atoll", "config", "set", "storage.backups_volume", volume).returncode != 0
    machines.run("atoll", "launch", "tiny", "c1")


@pytest.mark.parametrize("value", ["none/kept", "{pool}/none", "{pool}/snapped", "../x", "{pool}/kept/x"])
def test_volumes_that_cannot_be_used(machines: Daemon, volume: str, value: str) -> None:
    pool = volume.partition("/")[0]
    machines.run("atoll", "storage", "volume", "create", pool, "snapped")
    try:
        machines.run("atoll", "storage", "volume", "snapshot", pool, "snapped")
        for key in ("storage.backups_volume", "storage.images_volume"):
            assert machines.try_("atoll", "config", "set", key, value.format(pool=pool)).returncode != 0
        assert not (machines.state / "backups").is_symlink() and not (machines.state / "images").is_symlink()
    finally:
        machines.run("atoll", "storage", "volume", "delete", pool, "snapped")
