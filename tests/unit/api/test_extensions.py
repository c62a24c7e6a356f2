"""The API extensions."""

from __future__ import annotations

from atoll.api import extensions


def test_names_are_unique_and_own_ones_come_last() -> None:
    names = [name for name, _ in extensions.TABLE]
    assert len(set(names)) == len(names)
    own = [name for name in names if name.startswith("atoll_")]
    assert names[-len(own) :] == own


def test_what_breaks_clients_of_5_0_is_not_there() -> None:
    later = {"storage_and_profile_operations", "storage_and_network_operations", "project_delete_operation"}
    assert not later & {name for name, _ in extensions.TABLE}


def test_what_does_not_exist_is_not_advertised() -> None:
    absent = {"clustering", "virtual-machines", "gpu_devices", "network_type_ovn", "qemu_metrics"}
    assert not absent & set(extensions.ADVERTISED)
    present = {"etag", "patch", "projects", "storage", "network", "instances", "certificate_token", "metrics"}
    assert present <= set(extensions.ADVERTISED)
