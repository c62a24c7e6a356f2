"""Commands of the profiles family, as data."""

from __future__ import annotations

from atoll.cli.spec import Command, option
from atoll.cli.tables import configured, devices

COMMANDS = {
    **configured.rows("profile", "profiles", noun="profile", argument="profile", listing="List profiles"),
    **devices.rows("profile device", "profile"),
    "profile": Command(
        summary="Manage profiles",
    ),
    "profile add": Command(
        usage="[<remote>:]<instance> <profile>",
        summary="Add profiles to instances",
        run="profiles:add",
    ),
    "profile assign": Command(
        usage="[<remote>:]<instance> <profiles>",
        summary="Assign sets of profiles to instances",
        aliases=("apply",),
        examples="""atoll profile assign foo default,bar
    Set the profiles for "foo" to "default" and "bar".

atoll profile assign foo default
    Reset "foo" to only using the "default" profile.

atoll profile assign foo ''
    Remove all profile from "foo\"""",
        run="profiles:assign",
    ),
    "profile copy": Command(
        usage="[<remote>:]<profile> [<remote>:]<profile>",
        summary="Copy profiles",
        aliases=("cp",),
        flags=(option("target-project", "Copy to a project different from the source"),),
        run="profiles:copy",
    ),
    "profile create": Command(
        usage="[<remote>:]<profile>",
        summary="Create profiles",
        run="profiles:create",
    ),
    "profile remove": Command(
        usage="[<remote>:]<instance> <profile>",
        summary="Remove profiles from instances",
        run="profiles:remove",
    ),
}
