"""Commands of the networks family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, TARGET, Command, option
from atoll.cli.tables import configured

COMMANDS = {
    **configured.rows("network", "networks", noun="network", argument="network", flags=(TARGET,)),
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
}
