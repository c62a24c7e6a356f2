"""`atolld init`'s questions, in the order, with the defaults and the checks that scripts feed answers for.

Pure but for the dialogue and the facts it is given: answers in, a preseed out.
"""

from __future__ import annotations

import ipaddress

from atoll.cli.errors import CommandError
from atoll.runtime.init import facts as host
from atoll.runtime.init import plan, preseed
from atoll.runtime.init.dialogue import Dialogue
from atoll.runtime.init.facts import Facts
from atoll.runtime.init.preseed import Preseed

LARGEST_PORT = 65535


def ask(dialogue: Dialogue, facts: Facts) -> Preseed:
    """Put all questions. Shows the preseed, if that is wanted, before anything is applied."""
    result = preseed.empty()
    if dialogue.yes_no("Would you like to use Atoll clustering? (yes/no)", default=False):
        raise CommandError("Clustering is not available in this release")
    _ask_storage(dialogue, facts, result)
    if dialogue.yes_no("Would you like to connect to a MAAS server? (yes/no)", default=False):
        raise CommandError("Connecting to a MAAS server is not available in this release")
    _ask_network(dialogue, facts, result)
    _ask_server(dialogue, result)
    if dialogue.yes_no('Would you like a YAML "atolld init" preseed to be printed? (yes/no)', default=False):
        dialogue.say(preseed.render(result))
    return result


def _ask_storage(dialogue: Dialogue, facts: Facts, result: Preseed) -> None:
    if not dialogue.yes_no("Do you want to configure a new storage pool? (yes/no)", default=True):
        return
    if not facts.drivers:
        raise CommandError("No storage backend works on this host")
    name = dialogue.text("Name of the new storage pool", default="default")
    while name in facts.pools:
        dialogue.say(f'The requested storage pool "{name}" already exists. Please choose another name.')
        name = dialogue.text("Name of the new storage pool", default="default")
    driver = facts.drivers[0]
    if len(facts.drivers) > 1:
        driver = dialogue.choice("Name of the storage backend to use", facts.drivers, default=driver)
    config = {} if driver in plan.FOLDER_DRIVERS else _ask_pool_source(dialogue, facts, driver.upper())
    plan.add_pool(result, name, driver, config)


def _ask_pool_source(dialogue: Dialogue, facts: Facts, driver: str) -> dict[str, str]:
    if not dialogue.yes_no(f"Create a new {driver} pool? (yes/no)", default=True):
        return {"source": dialogue.text(f"Name of the existing {driver} pool or dataset")}
    existing = "Would you like to use an existing empty block device (e.g. a disk or partition)? (yes/no)"
    if dialogue.yes_no(existing, default=False):
        return {"source": dialogue.text("Path to the existing block device", check=_check_block_device)}
    question = "Size in GiB of the new loop device (1GiB minimum)"
    size = dialogue.text(question, default=f"{facts.loop_size}GiB", check=_check_size)
    return {"size": f"{_gib(size)}GiB"}


def _check_block_device(path: str) -> None:
    if not host.is_block_device(path):
        raise ValueError(f'"{path}" is not a block device')


def _gib(size: str) -> int:
    number = size.removesuffix("GiB").strip()
    if not number.isdecimal():
        raise ValueError("Not a number of GiB")
    return int(number)


def _check_size(size: str) -> None:
    if _gib(size) < 1:
        raise ValueError("Minimum size is 1GiB")


def _ask_network(dialogue: Dialogue, facts: Facts, result: Preseed) -> None:
    if not dialogue.yes_no("Would you like to create a new local network bridge? (yes/no)", default=True):
        _ask_interface(dialogue, facts, result)
        return
    name = dialogue.text("What should the new bridge be called?", default=plan.BRIDGE_NAME)
    while name in facts.networks:
        dialogue.say(f'The requested network bridge "{name}" already exists. Please choose another name.')
        name = dialogue.text("What should the new bridge be called?", default=plan.BRIDGE_NAME)
    config: dict[str, str] = {}
    for version in (4, 6):
        _ask_address(dialogue, version, config)
    plan.add_network(result, name, config)


def _ask_address(dialogue: Dialogue, version: int, config: dict[str, str]) -> None:
    question = f"What IPv{version} address should be used? (CIDR subnet notation, “auto” or “none”)"
    answer = dialogue.text(question, default="auto", check=_check_v4 if version == 4 else _check_v6)
    config[f"ipv{version}.address"] = answer
    if answer not in ("auto", "none"):
        nat = dialogue.yes_no(f"Would you like Atoll to NAT IPv{version} traffic on your bridge?", default=True)
        config[f"ipv{version}.nat"] = "true" if nat else "false"


def _check_v4(answer: str) -> None:
    _check_subnet(answer, ipaddress.IPv4Interface)


def _check_v6(answer: str) -> None:
    _check_subnet(answer, ipaddress.IPv6Interface)


def _check_subnet(answer: str, kind: type[ipaddress.IPv4Interface] | type[ipaddress.IPv6Interface]) -> None:
    if answer in ("auto", "none"):
        return
    try:
        if "/" in answer:
            kind(answer)
            return
    except ValueError:
        pass  # told below, in the words for both cases
    raise ValueError(f"invalid CIDR address: {answer}")


def _ask_interface(dialogue: Dialogue, facts: Facts, result: Preseed) -> None:
    question = "Would you like to configure Atoll to use an existing bridge or host interface? (yes/no)"
    if not dialogue.yes_no(question, default=False):
        return
    name = dialogue.text("Name of the existing bridge or host interface")
    while name not in facts.networks:
        dialogue.say("The requested interface doesn't exist. Please choose another one.")
        name = dialogue.text("Name of the existing bridge or host interface")
    kind, managed = facts.networks[name]
    if managed:
        plan.add_nic(result, {"network": name})
    else:
        plan.add_nic(result, {"nictype": "bridged" if kind == host.BRIDGE else "macvlan", "parent": name})


def _ask_server(dialogue: Dialogue, result: Preseed) -> None:
    if dialogue.yes_no("Would you like the Atoll server to be available over the network? (yes/no)", default=False):
        question = "Address to bind Atoll to (not including port)"
        address = dialogue.text(question, default="all", check=_check_address)
        port = dialogue.number("Port to bind Atoll to", least=1, most=LARGEST_PORT, default=plan.DEFAULT_PORT)
        plan.listen(result, "::" if address == "all" else address, port)
        result["config"]["core.trust_password"] = dialogue.password("Trust password for new clients")
    if not dialogue.yes_no("Would you like stale cached images to be updated automatically? (yes/no)", default=True):
        result["config"]["images.auto_update_interval"] = "0"


def _check_address(answer: str) -> None:
    if answer == "all":
        return
    try:
        ipaddress.ip_address(answer)
    except ValueError:
        raise ValueError(f'"{answer}" is not an IP address') from None
