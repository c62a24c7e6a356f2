"""Commands of the networks family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, TARGET, Command, option

COMMANDS = {
    "network": Command(
        summary="Manage and attach instances to networks",
    ),
    "network list": Command(
        usage="[<remote>:]",
        summary="List available networks",
        aliases=("ls",),
        flags=(FORMAT,),
        run="networks:list_",
    ),
    "network create": Command(
        usage="[<remote>:]<network> [key=value...]",
        summary="Create new networks",
        flags=(
            TARGET,
            option("type", "Network type", short="t"),
        ),
        run="networks:create",
    ),
    "network delete": Command(
        usage="[<remote>:]<network>",
        summary="Delete networks",
        aliases=("rm",),
        run="networks:delete",
    ),
    "network edit": Command(
        usage="[<remote>:]<network>",
        summary="Edit network configurations as YAML",
        run="networks:edit",
    ),
    "network get": Command(
        usage="[<remote>:]<network> <key>",
        summary="Get values for network configuration keys",
        flags=(TARGET,),
        run="networks:get",
    ),
    "network set": Command(
        usage="[<remote>:]<network> <key>=<value>...",
        summary="Set network configuration keys",
        detail="""For backward compatibility, a single configuration key may still be set with:
    atoll network set [<remote>:]<network> <key> <value>""",
        flags=(TARGET,),
        run="networks:set_",
    ),
    "network unset": Command(
        usage="[<remote>:]<network> <key>",
        summary="Unset network configuration keys",
        flags=(TARGET,),
        run="networks:unset",
    ),
    "network show": Command(
        usage="[<remote>:]<network>",
        summary="Show network configurations",
        flags=(TARGET,),
        run="networks:show",
    ),
    "network info": Command(
        usage="[<remote>:]<network>",
        summary="Get runtime information on networks",
        flags=(TARGET,),
        run="networks:info",
    ),
    "network list-leases": Command(
        usage="[<remote>:]<network>",
        summary="List DHCP leases",
        flags=(FORMAT,),
        run="networks:list_leases",
    ),
    "network attach": Command(
        usage="[<remote>:]<network> <instance> [<device name>] [<interface name>]",
        summary="Attach new network interfaces to instances",
        run="networks:attach",
    ),
    "network attach-profile": Command(
        usage="[<remote>:]<network> <profile> [<device name>] [<interface name>]",
        summary="Attach network interfaces to profiles",
        run="networks:attach_profile",
    ),
    "network detach": Command(
        usage="[<remote>:]<network> <instance> [<device name>]",
        summary="Detach network interfaces from instances",
        run="networks:detach",
    ),
    "network detach-profile": Command(
        usage="[<remote>:]<network> <profile> [<device name>]",
        summary="Detach network interfaces from profiles",
        run="networks:detach_profile",
    ),
    "network rename": Command(
        usage="[<remote>:]<network> <new-name>",
        summary="Rename networks",
        aliases=("mv",),
        run="networks:rename",
    ),
}
