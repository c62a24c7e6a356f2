"""Commands of the profiles family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, Command, option
from atoll.cli.tables import configured

COMMANDS = {
    **configured.rows("profile", "profiles", noun="profile", argument="profile"),
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
    "profile device": Command(
        summary="Manage devices",
    ),
    "profile device add": Command(
        usage="[<remote>:]<profile> <device> <type> [key=value...]",
        summary="Add instance devices",
        examples="""atoll profile device add [<remote>:]profile1 <device-name> disk source=/share/c1 path=/opt
    Will mount the host's /share/c1 onto /opt in the instance.

atoll profile device add [<remote>:]profile1 <device-name> disk pool=some-pool source=some-volume path=/opt
    Will mount the some-volume volume on some-pool onto /opt in the instance.""",
        run="devices:add",
    ),
    "profile device get": Command(
        usage="[<remote>:]<profile> <device> <key>",
        summary="Get values for device configuration keys",
        run="devices:get",
    ),
    "profile device list": Command(
        usage="[<remote>:]<profile>",
        summary="List instance devices",
        aliases=("ls",),
        run="devices:list_",
    ),
    "profile device remove": Command(
        usage="[<remote>:]<profile> <name>...",
        summary="Remove instance devices",
        aliases=("rm",),
        run="devices:remove",
    ),
    "profile device set": Command(
        usage="[<remote>:]<profile> <device> <key>=<value>...",
        summary="Set device configuration keys",
        detail="""For backward compatibility, a single configuration key may still be set with:
    atoll profile device set [<remote>:]<profile> <device> <key> <value>""",
        run="devices:set_",
    ),
    "profile device show": Command(
        usage="[<remote>:]<profile>",
        summary="Show full device configuration",
        run="devices:show",
    ),
    "profile device unset": Command(
        usage="[<remote>:]<profile> <device> <key>",
        summary="Unset device configuration keys",
        run="devices:unset",
    ),
    "profile list": Command(
        usage="[<remote>:]",
        summary="List profiles",
        aliases=("ls",),
        flags=(FORMAT,),
        run="profiles:list_",
    ),
    "profile remove": Command(
        usage="[<remote>:]<instance> <profile>",
        summary="Remove profiles from instances",
        run="profiles:remove",
    ),
}
