"""`atolld recover`: the dialogue by which lost instances and volumes are found in storage pools and made known again.

The questions, their order and defaults are those that scripts feed answers to LXD's command for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atoll.cli.errors import CommandError
from atoll.client.errors import ServerError
from atoll.client.server import Server
from atoll.runtime.call import Call
from atoll.runtime.init import dialogue as dialogues
from atoll.runtime.init.dialogue import Dialogue

Pool = dict[str, Any]


def run(call: Call) -> int:
    """Ask, look, tell, and recover if that is wanted. CommandError for a refusal of the daemon, and when the answers end."""
    converse(call.server(), dialogues.on_standard_streams())
    return 0


def converse(server: Server, dialogue: Dialogue) -> None:
    """The whole dialogue."""
    listed = server.get("/1.0/storage-pools?recursion=1")
    existing = [pool for pool in listed if pool["status"] != "Unavailable"]
    drivers = [driver["Name"] for driver in server.get("/1.0")["environment"]["storage_supported_drivers"] or ()]
    dialogue.say("This Atoll server currently has the following storage pools:")
    for pool in listed:
        dialogue.say(f" - {_described(pool)}{'' if pool in existing else ', not available'}")
    unknown = _ask_pools(dialogue, {pool["name"] for pool in listed}, drivers)
    dialogue.say("The recovery process will be scanning the following storage pools:")
    for kind, pools in (("EXISTING", existing), ("NEW", unknown)):
        for pool in pools:
            dialogue.say(f" - {kind}: {_described(pool)}")
    if not dialogue.yes_no("Would you like to continue with scanning for lost volumes? (yes/no)", default=True):
        return
    body = {"pools": [*({"name": pool["name"]} for pool in existing), *unknown]}
    dialogue.say("Scanning for unknown volumes...")
    if not _search(server, dialogue, body):
        dialogue.say("No unknown volumes found. Nothing to do.")
    elif dialogue.yes_no("Would you like those to be recovered? (yes/no)", default=False):
        dialogue.say("Starting recovery...")
        _post(server, "import", body)


def _described(pool: Pool) -> str:
    return f'"{pool["name"]}" (backend="{pool["driver"]}", source="{pool["config"].get("source", "")}")'


def _ask_pools(dialogue: Dialogue, taken: set[str], drivers: Sequence[str]) -> list[Pool]:
    pools: list[Pool] = []
    while dialogue.yes_no("Would you like to recover another storage pool? (yes/no)", default=False):
        pools.append(_ask_pool(dialogue, taken | {pool["name"] for pool in pools}, drivers))
    return pools


def _ask_pool(dialogue: Dialogue, taken: set[str], drivers: Sequence[str]) -> Pool:
    def check_name(answer: str) -> None:
        if not answer or answer in taken:
            raise ValueError("It has to be the name of a storage pool that is not listed")

    def check_driver(answer: str) -> None:
        if answer not in drivers:
            raise ValueError("It has to be one of those")

    name = dialogue.text("Name of the storage pool", check=check_name)
    driver = dialogue.text(f"Name of the storage backend ({', '.join(drivers)})", check=check_driver)
    config = {
        "source": dialogue.text("Source of the storage pool (block device, volume group, dataset, path, ... as applicable)")
    }
    while setting := dialogue.text(
        "Additional storage pool configuration property (KEY=VALUE, empty when done)", check=_check_setting
    ):
        key, _, value = setting.partition("=")
        config[key] = value
    return {"name": name, "driver": driver, "config": config}


def _check_setting(answer: str) -> None:
    if answer and not answer.partition("=")[1]:
        raise ValueError("It has to be KEY=VALUE")


def _search(server: Server, dialogue: Dialogue, body: dict[str, Any]) -> bool:
    """Whether something was found, told and complete: what is missing for it has to be made first."""
    while True:
        found = _post(server, "validate", body)
        volumes, missing = found.get("UnknownVolumes") or [], found.get("DependencyErrors") or []
        if not volumes:
            return False
        dialogue.say("The following unknown volumes have been found:")
        for volume in volumes:
            dialogue.say(
                f' - {volume["type"].capitalize()} "{volume["name"]}" on pool "{volume["pool"]}" in project "{volume["project"]}"'
                f" (includes {volume['snapshotCount']} snapshots)"
            )
        if not missing:
            return True
        dialogue.say("You are currently missing the following:")
        for text in missing:
            dialogue.say(f" - {text}")
        dialogue.text("Please create those missing entries and then hit ENTER", check=_check_nothing)


def _check_nothing(_: str) -> None:
    return


def _post(server: Server, step: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = server.request("POST", f"/internal/recover/{step}", body).metadata or {}
    except ServerError as error:
        raise CommandError(f"Failed {'validation' if step == 'validate' else step} request: {error}") from error
    if step == "import" and found.get("DependencyErrors"):
        raise CommandError(f"Failed import request: missing are {', '.join(found['DependencyErrors'])}")
    return found
