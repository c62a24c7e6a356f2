"""The preseed: its text, its application to a server, and the way back from a failure."""

from __future__ import annotations

import io
from typing import Any

import pytest

from atoll.cli.errors import CommandError
from atoll.runtime import main
from atoll.runtime.init import preseed

FULL = """
config:
  core.https_address: 127.0.0.1:9999
  images.auto_update_interval: 15
storage_pools:
- name: data
  driver: dir
networks:
- name: br1
  type: bridge
  config:
    ipv4.address: none
    ipv6.address: none
projects:
- name: web
  config:
    features.images: false
profiles:
- name: default
  devices:
    root:
      path: /
      pool: data
      type: disk
- name: small
  description: "Small ones"
  config:
    limits.memory: 2GB
cluster: null
"""


@pytest.fixture
def apply(monkeypatch: pytest.MonkeyPatch, fake: Any) -> Any:
    """Run `atolld init --preseed` on a text."""
    fake.objects["/1.0/profiles/default"] = {
        "name": "default",
        "description": "Default profile",
        "config": {"user.a": "1"},
        "devices": {"eth0": {"type": "nic", "nictype": "p2p"}},
    }

    def run(text: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return main.dispatch("atolld", ["init", "--preseed"])

    return run


def test_values_are_kept_as_they_were_written() -> None:
    parsed = preseed.parse("config:\n  a: 0123\n  b: yes\n  c: 1.50\n  d:\nstorage_pools: []\n")
    assert parsed["config"] == {"a": "0123", "b": "yes", "c": "1.50", "d": ""}


def test_the_password_of_a_dump_is_none() -> None:
    assert preseed.parse("config: {core.trust_password: true, a: b}")["config"] == {"a": "b"}
    assert preseed.parse("config: {core.trust_password: sekret}")["config"] == {"core.trust_password": "sekret"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo: [", "Failed to parse the preseed: yaml: "),
        ("foo: 1", "field foo not found"),
        ("- 1", "not a mapping"),
        ("networks: 1", "networks is not a list"),
        ("networks: [1]", "an entry of networks is not a mapping"),
        ("profiles: [{name: p, colour: red}]", "field colour not found in profiles"),
        ("config: {a: [1]}", "config a is not a text"),
        ("profiles: [{name: p, devices: [1]}]", "profiles devices is not a mapping"),
        ("cluster: {enabled: true}", "Failed to configure cluster: "),
        ("cluster: {server_name: a}", "Failed to configure cluster: "),
    ],
)
def test_documents_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(CommandError) as raised:
        preseed.parse(text)
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["", "{}", "cluster: null", "cluster: {enabled: false}", "profiles:\n"])
def test_documents_that_say_nothing(text: str) -> None:
    assert preseed.parse(text) == preseed.empty()


def test_everything_is_created_in_order(apply: Any, fake: Any) -> None:
    assert apply(FULL) == 0
    assert [(method, path) for method, path, _ in fake.changes] == [
        ("PUT", "/1.0"),
        ("POST", "/1.0/storage-pools"),
        ("POST", "/1.0/projects"),
        ("POST", "/1.0/networks"),
        ("PUT", "/1.0/profiles/default"),
        ("POST", "/1.0/profiles"),
    ]
    assert fake.objects["/1.0"]["config"]["images.auto_update_interval"] == "15"
    assert fake.objects["/1.0/profiles/default"] == {
        "name": "default",
        "description": "Default profile",
        "config": {"user.a": "1"},
        "devices": {
            "eth0": {"type": "nic", "nictype": "p2p"},
            "root": {"path": "/", "pool": "data", "type": "disk"},
        },
    }


def test_applying_twice_updates(apply: Any, fake: Any) -> None:
    apply(FULL)
    before = {path: dict(body) for path, body in fake.objects.items()}
    fake.changes.clear()
    assert apply(FULL) == 0
    assert {method for method, _, _ in fake.changes} == {"PUT"}
    assert fake.objects == before


@pytest.mark.parametrize("failing", ["/1.0/storage-pools", "/1.0/projects", "/1.0/networks", "/1.0/profiles"])
def test_a_failure_takes_everything_back(apply: Any, fake: Any, failing: str) -> None:
    fake.objects["/1.0"]["config"] = {"core.trust_password": True}
    before = {path: dict(body) for path, body in fake.objects.items()}
    fake.refuse[f"POST {failing}"] = "no luck"
    with pytest.raises(CommandError, match=r"Failed to create .*: no luck"):
        apply(FULL)
    assert fake.objects == before


def test_a_step_back_that_fails_does_not_stop_the_others(apply: Any, fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake.refuse["POST /1.0/profiles"] = "no luck"
    fake.refuse["DELETE /1.0/networks/br1"] = "in use"
    with pytest.raises(CommandError, match="no luck"):
        apply(FULL)
    assert "/1.0/storage-pools/data" not in fake.objects
    assert "/1.0/networks/br1" in fake.objects
    assert 'could not undo: failed to delete network "br1": in use' in capsys.readouterr().err


def test_the_kind_of_an_object_does_not_change(apply: Any, fake: Any) -> None:
    fake.objects["/1.0/storage-pools/data"] = {"name": "data", "driver": "dir", "config": {}, "description": ""}
    with pytest.raises(CommandError, match='Storage pool "data" is of type "dir" instead of "btrfs"'):
        apply("storage_pools: [{name: data, driver: btrfs}]")
    assert fake.changes == []


def test_names_are_required(apply: Any) -> None:
    with pytest.raises(CommandError, match='Failed to create profile "": No name provided'):
        apply("profiles: [{devices: {}}]")


def test_a_network_of_a_project(apply: Any, fake: Any) -> None:
    apply("networks: [{name: br1, type: bridge, project: web}]")
    assert fake.changes[0][:2] == ("POST", "/1.0/networks?project=web")


def test_a_preseed_from_a_file(fake: Any, tmp_path: Any) -> None:
    file = tmp_path / "preseed.yaml"
    file.write_text("storage_pools: [{name: p, driver: dir}]")
    assert main.dispatch("atolld", ["init", "--preseed", str(file)]) == 0
    assert "/1.0/storage-pools/p" in fake.objects


def test_without_a_server(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(CommandError, match="Failed to connect to local Atoll: Cannot connect"):
        main.dispatch("atolld", ["init", "--preseed"])


def test_auto_end_to_end(apply: Any, fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake.objects["/1.0"]["environment"]["storage_supported_drivers"] = [{"Name": "dir", "Version": "1", "Remote": False}]
    assert main.dispatch("atolld", ["init", "--auto"]) == 0
    assert "Using the dir storage backend: overlay" in capsys.readouterr().err
    assert fake.objects["/1.0/storage-pools/default"]["driver"] == "dir"
    assert fake.objects["/1.0/profiles/default"]["devices"]["root"]["pool"] == "default"


def test_dump_reads_back(apply: Any, fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    apply(FULL)
    fake.objects["/1.0/networks/eth0"] = {"name": "eth0", "type": "physical", "managed": False, "config": {}}
    fake.changes.clear()
    main.dispatch("atolld", ["init", "--dump"])
    text = capsys.readouterr().out
    assert fake.changes == []
    assert text.startswith('config:\n  core.https_address: 127.0.0.1:9999\n  images.auto_update_interval: "15"\nnetworks:\n')
    assert "eth0\n" not in text.split("profiles:")[0]
    assert apply(text) == 0
    assert {method for method, _, _ in fake.changes} == {"PUT"}
