"""Commands of the networks family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, TARGET, Command, option
from atoll.cli.tables import configured

COMMANDS = {
    **configured.rows(
        "network", "networks", noun="network", argument="network", listing="List available networks", flags=(TARGET,)
    ),
    "network": Command(
        summary="Manage and attach instances to networks",
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
        run="attach:attach_network",
    ),
    "network attach-profile": Command(
        usage="[<remote>:]<network> <profile> [<device name>] [<interface name>]",
        summary="Attach network interfaces to profiles",
        run="attach:attach_network",
    ),
    "network detach": Command(
        usage="[<remote>:]<network> <instance> [<device name>]",
        summary="Detach network interfaces from instances",
        run="attach:detach_network",
    ),
    "network detach-profile": Command(
        usage="[<remote>:]<network> <profile> [<device name>]",
        summary="Detach network interfaces from profiles",
        run="attach:detach_network",
    ),
}
