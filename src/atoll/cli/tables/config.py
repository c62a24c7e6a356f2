"""Commands of the config family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, TARGET, Command, option, switch
from atoll.cli.tables import devices

COMMANDS = {
    **devices.rows("config device", "instance"),
    "config": Command(
        summary="Manage instance and server configuration options",
    ),
    "config device override": Command(
        usage="[<remote>:]<instance> <device> [key=value...]",
        summary="Copy profile inherited devices and override configuration keys",
        run="devices:override",
    ),
    "config edit": Command(
        usage="[<remote>:][<instance>[/<snapshot>]]",
        summary="Edit instance or server configurations as YAML",
        examples="""atoll config edit <instance> < instance.yaml
    Update the instance configuration from config.yaml.""",
        flags=(TARGET,),
        run="config:edit",
    ),
    "config get": Command(
        usage="[<remote>:][<instance>] <key>",
        summary="Get values for instance or server configuration keys",
        flags=(
            switch("expanded", "Access the expanded configuration", short="e"),
            TARGET,
        ),
        run="config:get",
    ),
    "config set": Command(
        usage="[<remote>:][<instance>] <key>=<value>...",
        summary="Set instance or server configuration keys",
        detail="""For backward compatibility, a single configuration key may still be set with:
    atoll config set [<remote>:][<instance>] <key> <value>""",
        examples="""atoll config set [<remote>:]<instance> limits.cpu=2
    Will set a CPU limit of "2" for the instance.

atoll config set core.https_address=[::]:8443
    Will have Atoll listen on IPv4 and IPv6 port 8443.

atoll config set core.trust_password=blah
    Will set the server's trust password to blah.""",
        flags=(TARGET,),
        run="config:set_",
    ),
    "config unset": Command(
        usage="[<remote>:][<instance>] <key>",
        summary="Unset instance or server configuration keys",
        flags=(TARGET,),
        run="config:unset",
    ),
    "config show": Command(
        usage="[<remote>:][<instance>[/<snapshot>]]",
        summary="Show instance or server configurations",
        flags=(
            switch("expanded", "Show the expanded configuration", short="e"),
            TARGET,
        ),
        run="config:show",
    ),
    "config metadata": Command(
        summary="Manage instance metadata files",
    ),
    "config metadata edit": Command(
        usage="[<remote>:]<instance>",
        summary="Edit instance metadata files",
        run="metadata:edit",
    ),
    "config metadata show": Command(
        usage="[<remote>:]<instance>",
        summary="Show instance metadata files",
        run="metadata:show",
    ),
    "config template": Command(
        summary="Manage instance file templates",
    ),
    "config template create": Command(
        usage="[<remote>:]<instance> <template>",
        summary="Create new instance file templates",
        run="metadata:create_template",
    ),
    "config template delete": Command(
        usage="[<remote>:]<instance> <template>",
        summary="Delete instance file templates",
        aliases=("rm",),
        run="metadata:delete_template",
    ),
    "config template edit": Command(
        usage="[<remote>:]<instance> <template>",
        summary="Edit instance file templates",
        run="metadata:edit_template",
    ),
    "config template list": Command(
        usage="[<remote>:]<instance>",
        summary="List instance file templates",
        flags=(FORMAT,),
        run="metadata:list_templates",
    ),
    "config template show": Command(
        usage="[<remote>:]<instance> <template>",
        summary="Show content of instance file templates",
        run="metadata:show_template",
    ),
    "config trust": Command(
        summary="Manage trusted clients",
    ),
    "config trust add": Command(
        usage="[<remote>:] [<cert>]",
        summary="Add new trusted client",
        detail="""The following certificate types are supported:
- client (default)
- metrics

If the certificate is omitted, a token will be generated and returned. A client
providing a valid token will have its client certificate added to the trusted list
and the consumed token will be invalidated. Similar to certificates, tokens can be
restricted to one or more projects.""",
        flags=(
            option("name", "Alternative certificate name"),
            option("projects", "List of projects to restrict the certificate to"),
            switch("restricted", "Restrict the certificate to one or more projects"),
            option("type", "Type of certificate", default="client"),
        ),
        run="trust:add",
    ),
    "config trust edit": Command(
        usage="[<remote>:]<fingerprint>",
        summary="Edit trust configurations as YAML",
        run="trust:edit",
    ),
    "config trust list": Command(
        usage="[<remote>:]",
        summary="List trusted clients",
        aliases=("ls",),
        flags=(FORMAT,),
        run="trust:list_",
    ),
    "config trust list-tokens": Command(
        usage="[<remote>:]",
        summary="List all active certificate add tokens",
        flags=(FORMAT,),
        run="trust:list_tokens",
    ),
    "config trust remove": Command(
        usage="[<remote>:]<fingerprint>",
        summary="Remove trusted client",
        aliases=("rm",),
        run="trust:remove",
    ),
    "config trust revoke-token": Command(
        usage="[<remote>:] <name>",
        summary="Revoke certificate add token",
        run="trust:revoke_token",
    ),
    "config trust show": Command(
        usage="[<remote>:]<fingerprint>",
        summary="Show trust configurations",
        run="trust:show",
    ),
}
