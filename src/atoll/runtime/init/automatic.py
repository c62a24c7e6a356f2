"""`init --auto` and `--minimal`: decide without asking. Pure: flags and facts in, a preseed out."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.cli.errors import CommandError
from atoll.runtime.init import plan, preseed
from atoll.runtime.init.facts import Facts
from atoll.runtime.init.preseed import Preseed

POOL_NAME = "default"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the flags say; empty and 0 mean not said. `loop` is in GB."""

    address: str = ""
    port: int = 0
    backend: str = ""
    device: str = ""
    loop: int = 0
    pool: str = ""
    password: str = ""

    @property
    def storage(self) -> bool:
        """Whether anything is said about storage."""
        return bool(self.backend or self.device or self.loop or self.pool)


def decide(wishes: Wishes, facts: Facts) -> Preseed:
    """The preseed that sets up what is missing; CommandError for wishes that do not go together or cannot be met."""
    check(wishes)
    result = preseed.empty()
    if wishes.address:
        plan.listen(result, wishes.address, wishes.port or plan.DEFAULT_PORT)
        if wishes.password:
            result["config"]["core.trust_password"] = wishes.password
    _decide_storage(result, wishes, facts)
    if not facts.managed and not facts.has_nic:  # as LXD: who gave the default profile a network needs none of ours
        plan.add_network(result, _free_bridge(facts), {})
    return result


def check(wishes: Wishes) -> None:
    """CommandError for wishes that contradict each other, whatever the host."""
    if wishes.device and wishes.loop:
        raise CommandError("Only one of --storage-create-device or --storage-create-loop can be specified")
    if wishes.port and not wishes.address:
        raise CommandError("--network-port can't be used without --network-address")
    if wishes.password and not wishes.address:
        raise CommandError("--trust-password can't be used without --network-address")


def _decide_storage(result: Preseed, wishes: Wishes, facts: Facts) -> None:
    if facts.pools:
        if wishes.storage:
            raise CommandError("Storage has already been configured")
        return
    if not facts.drivers:
        raise CommandError("No storage backend works on this host")
    driver = wishes.backend or facts.drivers[0]
    if driver not in facts.drivers:
        raise CommandError(f"The requested backend '{driver}' isn't supported by atolld init")
    plan.add_pool(result, *_pool(driver, wishes))


def _pool(driver: str, wishes: Wishes) -> tuple[str, str, dict[str, str]]:
    """Name, driver and configuration of the pool."""
    if driver in plan.FOLDER_DRIVERS:
        if wishes.device or wishes.loop or wishes.pool:
            raise CommandError(
                "None of --storage-pool, --storage-create-device or --storage-create-loop "
                f"may be used with the '{driver}' backend"
            )
        return POOL_NAME, driver, {}
    config = {"source": wishes.device} if wishes.device else {"size": f"{wishes.loop}GB"} if wishes.loop else {}
    return wishes.pool or POOL_NAME, driver, config


def _free_bridge(facts: Facts) -> str:
    """The first of atollbr0, atollbr1, … that no interface has."""
    stem = plan.BRIDGE_NAME.rstrip("0")
    return next(name for number in range(len(facts.networks) + 1) if (name := f"{stem}{number}") not in facts.networks)
