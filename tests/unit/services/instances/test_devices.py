"""In which order devices come and go."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from atoll.domain.errors import BadRequest
from atoll.services.instances import cloud_init, devices

ROOT = {"type": "disk", "path": "/", "pool": "default"}
NIC = {"type": "nic", "network": "br0"}


def at(path: str, source: str = "/srv") -> Mapping[str, str]:
    return {"type": "disk", "path": path, "source": source}


def test_outer_disks_first() -> None:
    listed = {"a": at("/x/y/z"), "b": at("/x/y/"), "c": at("//x"), "eth0": NIC, "root": ROOT}
    assert [name for name, _ in devices._outer_first(listed)] == ["eth0", "c", "root", "b", "a"]


def test_disks_within_one_that_moves_are_mounted_anew() -> None:
    old = {"outer": at("/x"), "inner": at("/x/y"), "other": at("/xy"), "eth0": NIC, "root": ROOT}
    stay = {"inner", "other", "eth0", "root"}
    assert devices._below_others(old, {**old, "outer": at("/x", "/other")}, stay) == {"inner"}
    assert devices._below_others(old, old, {*stay, "outer"}) == set()
    assert devices._below_others({"inner": at("/x/y")}, {"inner": at("/x/y"), "outer": at("/x")}, {"inner"}) == {"inner"}


@pytest.mark.parametrize("other", ["/data", "/data/", "//data", "/data/."])
def test_one_path_is_one_disks(other: str) -> None:
    with pytest.raises(BadRequest, match="same path"):
        devices.refuse_shared_paths({"a": at("/data"), "b": at(other), "root": ROOT})


def test_the_files_of_cloud_init() -> None:
    config = {cloud_init.INSTANCE_ID: "id", "cloud-init.user-data": "mine", "user.user-data": "old", "user.network-config": "net"}
    files = cloud_init.seed("c1", config)
    assert (files["user-data"], files["network-config"]) == ("mine", "net")
    assert "instance-id: id\nlocal-hostname: c1\n" in files["meta-data"]
    assert files["vendor-data"].startswith("#cloud-config\n")
    assert "network-config" not in cloud_init.seed("c1", {})
