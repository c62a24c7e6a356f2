"""Checks and derived keys of an instance's record, before it is written: on create, copy and update. Pure but for the devices."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping

from atoll import config as keys
from atoll.domain.errors import BadRequest
from atoll.domain.image_metadata import Trigger
from atoll.services.instances import cloud_init

_ADJECTIVES = """
    able amber bold brave bright brisk calm clear clever coral cosmic crisp daring eager early easy fair fast
    fine firm fond free fresh gentle glad golden good grand great happy hardy honest humble ideal jolly keen
    kind large light lively lucky mellow merry mighty modest moral native neat noble novel open polite prime
    proud quick quiet rapid ready rich sharp shiny simple smart smooth solid sound square stable steady still
    strong sunny super sure swift tender tidy top true upright valid vast vital warm welcome well whole wise
    witty worthy
""".split()  # noqa: SIM905 (a list of a hundred literals would be a hundred lines)
_NOUNS = """
    albatross anemone angelfish avocet barnacle barracuda beluga bonito brittlestar bullfrog burrfish clam
    cockle cod conch coral cormorant cowrie crab crane cuttlefish dolphin dory drum duck dugong eel egret
    flounder frigate gannet gecko goby grouper gull gurnard halibut heron herring hogfish jellyfish kelp
    kingfisher krill lagoon lamprey limpet lobster lungfish mackerel manatee manta marlin minnow mullet mussel
    narwhal nautilus octopus orca osprey otter oyster pelican penguin perch petrel pike plover polyp porpoise
    prawn puffin ray remora sailfish salmon sardine scallop seal shark shrimp skate snapper sponge squid
    starfish sturgeon tarpon tern tuna turbot turtle urchin wahoo walrus whale whelk wrasse
""".split()  # noqa: SIM905 (a list of a hundred literals would be a hundred lines)

_FROZEN_VOLATILE = (
    "volatile.uuid",
    "volatile.idmap.base",
    "volatile.idmap.current",
    "volatile.idmap.next",
    "volatile.last_state.idmap",
)


def generate_name(taken: set[str]) -> str:
    """A name of two words that is not taken."""
    while True:
        name = f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}"
        if name not in taken:
            return name


def initial_volatile(*, base_image: str = "", trigger: Trigger = Trigger.CREATE) -> dict[str, str]:
    """Keys that every new instance gets; its first start renders the templates of that trigger."""
    keys_ = {
        "volatile.uuid": str(uuid.uuid4()),
        **cloud_init.new_id(),
        "volatile.apply_template": trigger.value,
        "volatile.last_state.power": "STOPPED",
        # Files have plain ids. LXD says so from the beginning, and refuses an update that leaves it out: a refresh of a copy
        # there ends with one, of what this server shows.
        "volatile.last_state.idmap": "[]",
    }
    if base_image:
        keys_["volatile.base_image"] = base_image
    return keys_


def check_config(config: Mapping[str, str]) -> None:
    """Keys and values as a client may set them."""
    keys.INSTANCE.validate(config)


def without_empty(config: Mapping[str, str]) -> dict[str, str]:
    """Without the keys that a client unset by an empty value: what profiles say of them holds again."""
    return {key: value for key, value in config.items() if value != ""}


def whole_devices(devices: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Devices without the keys that a client unset by an empty value."""
    return {name: without_empty(device) for name, device in devices.items()}


def check_unprivileged(config: Mapping[str, str]) -> None:
    """BadRequest for what would make an instance privileged, or let it have ids of the host."""
    if keys.INSTANCE.flag(config, "security.privileged"):
        raise BadRequest("The server was set up to allow unprivileged containers only")
    if config.get("raw.idmap"):
        raise BadRequest("raw.idmap can't be set: the server was set up to allow unprivileged containers only")
    for line in config.get("raw.lxc", "").split("\n"):
        key = line.partition("=")[0].strip().lower()
        if key in ("lxc.idmap", "lxc.id_map", "lxc.include"):
            raise BadRequest(f"{key} can't be set in raw.lxc: the server was set up to allow unprivileged containers only")


def with_frozen_volatile(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """The new configuration with the volatile keys that tie a record to what is on the host.

    What a client says of them counts for nothing: one that read the record before they were there leaves them out, and one
    that refreshes a copy sends those of the instance that it was copied from.
    """
    frozen = {key: value for key, value in old.items() if value and _is_frozen(key)}
    return {**{key: value for key, value in new.items() if not _is_frozen(key)}, **frozen}


def _is_frozen(key: str) -> bool:
    return key in _FROZEN_VOLATILE or (key.startswith("volatile.") and key.endswith(".host_name"))
