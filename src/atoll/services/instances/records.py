"""Checks and derived keys of an instance's record, before it is written: on create, copy and update. Pure but for the devices."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping

from atoll import config as keys
from atoll.domain.errors import BadRequest
from atoll.domain.image_metadata import Trigger

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

_NUMBER = r"[0-9]{1,4}(?:\.[0-9]{1,3})?"
_INSTANCE_TYPE = re.compile(rf"(?:c(?P<cpus>{_NUMBER}))?(?:-?m(?P<memory>{_NUMBER}))?")

_FROZEN_VOLATILE = ("volatile.uuid", "volatile.idmap.base", "volatile.idmap.current")


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
        "volatile.cloud-init.instance-id": str(uuid.uuid4()),
        "volatile.apply_template": trigger.value,
        "volatile.last_state.power": "STOPPED",
    }
    if base_image:
        keys_["volatile.base_image"] = base_image
    return keys_


def limits_of_type(instance_type: str) -> dict[str, str]:
    """`limits.*` for an instance type written as "c4-m8" (CPUs and GiB of memory). BadRequest for what is not known."""
    match = _INSTANCE_TYPE.fullmatch(instance_type.lower())
    amounts = [float(amount) for amount in (match.groups() if match else ()) if amount is not None]
    if match is None or not amounts or min(amounts) < 0.01:
        raise BadRequest(f"Unknown instance type {instance_type[:40]!r}", hint="write it as cCPUS-mGIB, e.g. c2-m4")
    limits: dict[str, str] = {}
    if match["cpus"]:
        whole = float(match["cpus"])
        limits["limits.cpu"] = str(max(1, int(whole)))
        if whole < 1:
            limits["limits.cpu.allowance"] = f"{int(whole * 100)}%"
    if match["memory"]:
        limits["limits.memory"] = f"{int(float(match['memory']) * 1024)}MiB"
    return limits


def check_config(config: Mapping[str, str]) -> None:
    """Keys and values as a client may set them."""
    keys.INSTANCE.validate(config)


def with_frozen_volatile(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """The new configuration with the volatile keys that tie a record to what is on the host.

    A client may leave them out, as one does that read the record before they were there, but not change them.
    """
    frozen = {key: old[key] for key in _FROZEN_VOLATILE if old.get(key)}
    for key in _FROZEN_VOLATILE:
        if new.get(key) and new[key] != frozen.get(key):
            raise BadRequest(f"The configuration key {key!r} is read-only")
    return {**new, **frozen}
