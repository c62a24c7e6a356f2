"""The interactive `init`: answers in, a preseed out."""

from __future__ import annotations

import io
from typing import Any

import pytest

from atoll.cli.errors import CommandError
from atoll.runtime.init import preseed, questions
from atoll.runtime.init.dialogue import Dialogue
from atoll.runtime.init.facts import Facts

HOST = Facts(
    drivers=("overlay", "btrfs", "dir"),
    pools=frozenset({"taken"}),
    networks={"br0": ("bridge", False), "eth0": ("physical", False), "atollbr7": ("bridge", True)},
    loop_size=30,
)


def converse(*answers: str, facts: Facts = HOST) -> tuple[dict[str, Any], str]:
    """The preseed and all that was shown, for these answers; the input ends after them."""
    lines = io.StringIO("".join(answer + "\n" for answer in answers))
    shown: list[str] = []

    def secret(prompt: str) -> str:
        shown.append(prompt + "\n")
        return lines.readline().rstrip("\n")

    result = questions.ask(Dialogue(read=lines.readline, secret=secret, write=shown.append), facts)
    assert not lines.read(), "an answer was left over"
    return result, "".join(shown)


def test_the_answers_scripts_feed() -> None:
    result, _ = converse("no", "yes", "my-pool", "dir", "no", "yes", "br1", "auto", "none", "no", "no", "yes")
    assert result["config"] == {"images.auto_update_interval": "0"}
    assert result["storage_pools"] == [{"name": "my-pool", "driver": "dir", "description": "", "config": {}}]
    assert [network["name"] for network in result["networks"]] == ["br1"]
    assert result["networks"][0]["config"] == {"ipv4.address": "auto", "ipv6.address": "none"}
    assert result["profiles"][0]["devices"] == {
        "root": {"type": "disk", "path": "/", "pool": "my-pool"},
        "eth0": {"type": "nic", "name": "eth0", "network": "br1"},
    }


def test_all_defaults_and_their_wording() -> None:
    result, shown = converse(*[""] * 12)
    assert (
        shown.split(": ")[:-1]
        == [
            "Would you like to use Atoll clustering? (yes/no) [default=no]",
            "Do you want to configure a new storage pool? (yes/no) [default=yes]",
            "Name of the new storage pool [default=default]",
            "Name of the storage backend to use (overlay, btrfs, dir) [default=overlay]",
            "Would you like to connect to a MAAS server? (yes/no) [default=no]",
            "Would you like to create a new local network bridge? (yes/no) [default=yes]",
            "What should the new bridge be called? [default=atollbr0]",
            "What IPv4 address should be used? (CIDR subnet notation, “auto” or “none”) [default=auto]",
            "What IPv6 address should be used? (CIDR subnet notation, “auto” or “none”) [default=auto]",
            "Would you like the Atoll server to be available over the network? (yes/no) [default=no]",
            "Would you like stale cached images to be updated automatically? (yes/no) [default=yes]",
        ]
        or len(shown.split(": ")) == 13
    )
    assert result["config"] == {}
    assert result["storage_pools"][0]["driver"] == "overlay"


def test_a_pool_on_a_loop_file() -> None:
    _, shown = converse("", "", "", "btrfs", "yes", "no", "0", "x", "9", "", "no", "no", "", "", "")
    assert "Size in GiB of the new loop device (1GiB minimum) [default=30GiB]: Invalid input: Minimum size is 1GiB\n\n" in shown
    result, _ = converse("", "", "", "btrfs", "", "", "", "", "no", "no", "", "", "")
    assert result["storage_pools"][0]["config"] == {"size": "30GiB"}


def test_an_existing_pool() -> None:
    result, _ = converse("", "", "", "btrfs", "no", "/srv/pool", "", "no", "no", "", "", "")
    assert result["storage_pools"][0]["config"] == {"source": "/srv/pool"}


def test_a_device_has_to_be_one() -> None:
    with pytest.raises(CommandError, match="EOF"):
        converse("", "", "", "btrfs", "yes", "yes", "/dev/zero")


def test_wrong_answers_are_asked_again() -> None:
    answers = ["maybe", "no", "", "taken", "p", "zfs", "dir", "", "", "atollbr7", "br1"]
    answers += ["10.9.8.1", "fd00::1/64", "10.9.8.1/24", "perhaps", "no", "10.0.0.1/8", "fd42::1/64", "yes"]
    result, shown = converse(*answers, "", "", "")
    assert 'The requested storage pool "taken" already exists. Please choose another name.\n' in shown
    assert 'The requested network bridge "atollbr7" already exists. Please choose another name.\n' in shown
    assert "Invalid input: invalid CIDR address: 10.9.8.1\n\n" in shown
    assert shown.count("Invalid input, try again.\n\n") == 3
    assert result["networks"][0]["config"] == {
        "ipv4.address": "10.9.8.1/24",
        "ipv4.nat": "false",
        "ipv6.address": "fd42::1/64",
        "ipv6.nat": "true",
    }


@pytest.mark.parametrize(
    ("interface", "device"),
    [
        ("br0", {"nictype": "bridged", "parent": "br0"}),
        ("eth0", {"nictype": "macvlan", "parent": "eth0"}),
        ("atollbr7", {"network": "atollbr7"}),
    ],
)
def test_an_interface_of_the_host(interface: str, device: dict[str, str]) -> None:
    result, shown = converse("", "no", "", "no", "yes", "nope0", interface, "", "", "")
    assert "The requested interface doesn't exist. Please choose another one.\n" in shown
    assert result["profiles"][0]["devices"] == {"eth0": {"name": "eth0", "type": "nic", **device}}
    assert result["networks"] == []


def test_the_network() -> None:
    answers = ["", "no", "", "no", "no", "yes", "192.168.300.1", "", "0", "9443", "a", "b", "", "", "pw", "pw", "", ""]
    result, shown = converse(*answers)
    assert 'Invalid input: "192.168.300.1" is not an IP address\n\n' in shown
    assert shown.count("Trust password for new clients: \nAgain: \n") == 3
    assert result["config"] == {"core.https_address": "[::]:9443", "core.trust_password": "pw"}


def test_what_this_release_does_not_do() -> None:
    with pytest.raises(CommandError, match="Clustering is not available"):
        converse("yes")
    with pytest.raises(CommandError, match="MAAS"):
        converse("", "no", "yes")


def test_one_driver_is_not_asked_for() -> None:
    only = Facts(drivers=("dir",), pools=frozenset(), networks={}, loop_size=5)
    result, shown = converse("", "", "", "", "no", "no", "", "", "", facts=only)
    assert "storage backend" not in shown
    assert result["storage_pools"][0]["driver"] == "dir"


def test_the_preseed_is_shown_and_reads_back() -> None:
    result, shown = converse("", "", "", "", "", "", "", "", "", "yes", "0.0.0.0", "", "0123", "0123", "no", "yes")
    printed = shown[shown.index("config:\n") :]
    assert printed.endswith("projects: []\ncluster: null\n\n")
    assert preseed.parse(printed) == result
