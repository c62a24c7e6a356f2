"""Commands of the admin family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, Command, option, switch

COMMANDS = {
    "completion": Command(
        usage="<bash|zsh|fish>",
        summary="Generate the completion script for a shell",
        examples="""source <(atoll completion bash)
    Complete commands in this shell.

atoll completion fish > ~/.config/fish/completions/atoll.fish
    Complete commands in every fish to come.""",
        run="completion:completion",
    ),
    "operation": Command(
        summary="List, show and delete background operations",
    ),
    "operation delete": Command(
        usage="[<remote>:]<operation>",
        summary="Delete a background operation (will attempt to cancel)",
        aliases=(
            "cancel",
            "rm",
        ),
        run="operations:delete",
    ),
    "operation list": Command(
        usage="[<remote>:]",
        summary="List background operations",
        aliases=("ls",),
        flags=(FORMAT,),
        run="operations:list_",
    ),
    "operation show": Command(
        usage="[<remote>:]<operation>",
        summary="Show details on a background operation",
        examples="""atoll operation show 344a79e4-d88a-45bf-9c39-c72c26f6ab8a
    Show details on that operation UUID""",
        run="operations:show",
    ),
    "warning": Command(
        summary="Manage warnings",
    ),
    "warning acknowledge": Command(
        usage="[<remote>:]<warning-uuid>",
        summary="Acknowledge warning",
        aliases=("ack",),
        run="warnings:acknowledge",
    ),
    "warning delete": Command(
        usage="[<remote>:]<warning-uuid>",
        summary="Delete warning",
        aliases=("rm",),
        flags=(switch("all", "Delete all warnings", short="a"),),
        run="warnings:delete",
    ),
    "warning list": Command(
        usage="[<remote>:]",
        summary="List warnings",
        detail="""The -c option takes a (optionally comma-separated) list of arguments
that control which warning attributes to output when displaying in table
or csv format.

Default column layout is: utSscpLl

Column shorthand chars:

    c - Count
    l - Last seen
    L - Location
    f - First seen
    p - Project
    s - Severity
    S - Status
    u - UUID
    t - Type""",
        aliases=("ls",),
        flags=(
            switch("all", "List all warnings", short="a"),
            option("columns", "Columns", short="c", default="utSscpLl"),
            FORMAT,
        ),
        run="warnings:list_",
    ),
    "warning show": Command(
        usage="[<remote>:]<warning-uuid>",
        summary="Show warning",
        run="warnings:show",
    ),
    "query": Command(
        usage="[<remote>:]<API path>",
        summary="Send a raw query to Atoll",
        examples="""atoll query -X DELETE --wait /1.0/instances/c1
    Delete local instance "c1".""",
        flags=(
            option("data", "Input data", short="d"),
            switch("raw", "Print the raw response"),
            option("request", "Action (defaults to GET)", short="X", default="GET"),
            switch("wait", "Wait for the operation to complete"),
        ),
        hidden=True,
        run="raw:query",
    ),
    "monitor": Command(
        usage="[<remote>:]",
        summary="Monitor a local or remote Atoll server",
        detail="By default the monitor will listen to all message types.",
        examples="""atoll monitor --type=logging
    Only show log messages.

atoll monitor --pretty --type=logging --loglevel=info
    Show a pretty log of messages with info level or higher.

atoll monitor --type=lifecycle
    Only show lifecycle events.""",
        flags=(
            switch("all-projects", "Show events from all projects"),
            option("format", "Format (json|pretty|yaml)", short="f", default="yaml"),
            option("loglevel", "Minimum level for log messages (only available when using pretty format)"),
            switch("pretty", "Pretty rendering (short for --format=pretty)"),
            option("type", "Event type to listen for", kind="list"),
        ),
        hidden=True,
        run="raw:monitor",
    ),
    "version": Command(
        usage="[<remote>:]",
        summary="Show local and remote versions",
        run="raw:version",
    ),
    "remote": Command(
        summary="Manage the list of remote servers",
    ),
    "remote list": Command(
        summary="List the available remotes",
        aliases=("ls",),
        flags=(FORMAT,),
        run="remotes:list_",
    ),
    "remote add": Command(
        usage="[<remote>] <IP|FQDN|URL|token>",
        summary="Add new remote servers",
        detail="""A server is known by its certificate from then on: compare its fingerprint with what "atoll info" says there.
To be let in, give the token that "atoll config trust add" prints on the server, or the server's password.""",
        examples="""atoll remote add box 192.0.2.10
    Add the server at that address; its fingerprint is shown and a password or token asked for.

atoll remote add box eyJjbGllbnRfbmFtZSI6...
    Add the server that gave this token.""",
        flags=(
            switch("accept-certificate", "Accept the server's certificate without asking"),
            option("auth-type", "How to log in (tls)"),
            option("password", "Password or token for the server"),
            option("protocol", "Server protocol (lxd or simplestreams)"),
            switch("public", "Public image server"),
        ),
        run="remote_add:run",
    ),
    "remote remove": Command(
        usage="<remote>",
        summary="Remove remotes",
        aliases=("rm",),
        run="remotes:remove",
    ),
    "remote rename": Command(
        usage="<remote> <new-name>",
        summary="Rename remotes",
        aliases=("mv",),
        run="remotes:rename",
    ),
    "remote set-url": Command(
        usage="<remote> <URL>",
        summary="Set the URL for the remote",
        run="remotes:set_url",
    ),
    "remote switch": Command(
        usage="<remote>",
        summary="Switch the default remote",
        aliases=("set-default",),
        run="remotes:switch",
    ),
    "remote get-default": Command(
        summary="Show the default remote",
        run="remotes:get_default",
    ),
    "alias": Command(
        summary="Manage command aliases",
    ),
    "alias add": Command(
        usage="<alias> <target>",
        summary="Add new aliases",
        examples="""atoll alias add list "list -c ns46S"
    Overwrite the "list" command to pass -c ns46S.""",
        run="aliases:add",
    ),
    "alias list": Command(
        summary="List aliases",
        aliases=("ls",),
        flags=(FORMAT,),
        run="aliases:list_",
    ),
    "alias remove": Command(
        usage="<alias>",
        summary="Remove aliases",
        aliases=("rm",),
        examples="""atoll alias remove my-list
    Remove the "my-list" alias.""",
        run="aliases:remove",
    ),
    "alias rename": Command(
        usage="<old alias> <new alias>",
        summary="Rename aliases",
        aliases=("mv",),
        examples="""atoll alias rename list my-list
    Rename existing alias "list" to "my-list".""",
        run="aliases:rename",
    ),
}
