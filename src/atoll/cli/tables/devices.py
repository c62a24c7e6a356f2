"""The rows of `config device` and `profile device`."""

from __future__ import annotations

from atoll.cli.spec import Command


def rows(path: str, owner: str) -> dict[str, Command]:
    """What can be done with the devices of an owner: an "instance" or a "profile"."""
    name = f"[<remote>:]<{owner}>"
    example = f"atoll {path} add [<remote>:]{owner}1 <device-name> disk"
    found = {
        "add": Command(
            usage=f"{name} <device> <type> [key=value...]",
            summary="Add instance devices",
            examples=f"""{example} source=/share/c1 path=/opt
    Will mount the host's /share/c1 onto /opt in the instance.

{example} pool=some-pool source=some-volume path=/opt
    Will mount the some-volume volume on some-pool onto /opt in the instance.""",
            run="devices:add",
        ),
        "get": Command(usage=f"{name} <device> <key>", summary="Get values for device configuration keys", run="devices:get"),
        "list": Command(usage=name, summary="List instance devices", aliases=("ls",), run="devices:list_"),
        "remove": Command(usage=f"{name} <name>...", summary="Remove instance devices", aliases=("rm",), run="devices:remove"),
        "set": Command(
            usage=f"{name} <device> <key>=<value>...",
            summary="Set device configuration keys",
            detail=f"""For backward compatibility, a single configuration key may still be set with:
    atoll {path} set {name} <device> <key> <value>""",
            run="devices:set_",
        ),
        "show": Command(usage=name, summary="Show full device configuration", run="devices:show"),
        "unset": Command(usage=f"{name} <device> <key>", summary="Unset device configuration keys", run="devices:unset"),
    }
    return {path: Command(summary="Manage devices")} | {f"{path} {verb}": row for verb, row in found.items()}
