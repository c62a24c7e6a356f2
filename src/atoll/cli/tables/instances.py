"""Commands of the instances family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, TARGET, Command, option, switch

_CONSOLE = option("console", "Immediately attach to the console", implied="console")

_WAIT = option("wait", "Wait for a condition after the start, as of the command wait", kind="list")

_NEW = (
    option("config", "Config key/value to apply to the new instance", short="c", kind="list"),
    option("device", "New key/value to apply to a specific device", short="d", kind="list"),
    switch("empty", "Create an empty instance"),
    switch("ephemeral", "Ephemeral instance", short="e"),
    option("network", "Network name", short="n"),
    switch("no-profiles", "Create the instance with no profiles applied"),
    option("profile", "Profile to apply to the new instance", short="p", kind="list"),
    option("storage", "Storage pool name", short="s"),
    TARGET,
    option("type", "Instance type", short="t"),
    switch("vm", "Create a virtual machine"),
)
"""The flags of `launch` and `init`."""

COMMANDS = {
    "launch": Command(
        usage="[<remote>:]<image> [<remote>:][<name>]",
        summary="Create and start instances from images",
        examples="""atoll launch images:debian/12 u1

atoll launch images:debian/12 u1 < config.yaml
    Create and start a container with configuration from config.yaml

atoll launch images:debian/12 v1 --vm
    Create and start a virtual machine""",
        flags=(*_NEW, _CONSOLE, _WAIT),
        run="create:launch",
    ),
    "init": Command(
        usage="[<remote>:]<image> [<remote>:][<name>]",
        summary="Create instances from images",
        examples="""atoll init images:debian/12 u1

atoll init images:debian/12 u1 < config.yaml
    Create the instance with configuration from config.yaml""",
        flags=_NEW,
        hidden=True,
        run="create:init",
    ),
    "list": Command(
        usage="[<remote>:] [<filter>...]",
        summary="List instances",
        detail="""Default column layout: ns46tS
Fast column layout: nsacPt

A single keyword like "web" which will list any instance with a name starting by "web".
A regular expression on the instance name. (e.g. .*web.*01$).
A key/value pair referring to a configuration item. For those, the
namespace can be abbreviated to the smallest unambiguous identifier.
A key/value pair where the key is a shorthand. Multiple values must be delimited by ','. Available shorthands:
  - type={instance type}
  - status={instance current lifecycle status}
  - architecture={instance architecture}
  - location={location name}
  - ipv4={ip or CIDR}
  - ipv6={ip or CIDR}

Examples:
  - "user.blah=abc" will list all instances with the "blah" user property set to "abc".
  - "u.blah=abc" will do the same
  - "security.privileged=true" will list all privileged instances
  - "s.privileged=true" will do the same
  - "type=container" will list all container instances
  - "type=container status=running" will list all running container instances

A regular expression matching a configuration item or its value. (e.g. volatile.eth0.hwaddr=00:16:3e:.*).

When multiple filters are passed, they are added one on top of the other,
selecting instances which satisfy them all.

== Columns ==
The -c option takes a comma separated list of arguments that control
which instance attributes to output when displaying in table or csv
format.

Column arguments are either pre-defined shorthand chars (see below),
or (extended) config keys.

Commas between consecutive shorthand chars are optional.

Pre-defined column shorthand chars:
  4 - IPv4 address
  6 - IPv6 address
  a - Architecture
  b - Storage pool
  c - Creation date
  d - Description
  D - disk usage
  e - Project name
  l - Last used date
  m - Memory usage
  M - Memory usage (%)
  n - Name
  N - Number of Processes
  p - PID of the instance's init process
  P - Profiles
  s - State
  S - Number of snapshots
  t - Type (persistent or ephemeral)
  u - CPU usage (in seconds)
  L - Location of the instance (e.g. its cluster member)
  f - Base Image Fingerprint (short)
  F - Base Image Fingerprint (long)

Custom columns are defined with "[config:|devices:]key[:name][:maxWidth]":
  KEY: The (extended) config or devices key to display. If [config:|devices:] is omitted then it defaults to config key.
  NAME: Name to display in the column header.
  Defaults to the key if not specified or empty.

  MAXWIDTH: Max width of the column (longer results are truncated).
  Defaults to -1 (unlimited). Use 0 to limit to the column header size.""",
        aliases=("ls",),
        examples="""atoll list -c nFs46,volatile.eth0.hwaddr:MAC,config:image.os,devices:eth0.parent:ETHP
  Show instances using the "NAME", "BASE IMAGE", "STATE", "IPV4", "IPV6" and "MAC" columns.
  "BASE IMAGE", "MAC" and "IMAGE OS" are custom columns generated from instance configuration keys.
  "ETHP" is a custom column generated from a device key.

atoll list -c ns,user.comment:comment
  List instances with their running state and user comment.""",
        flags=(
            switch("all-projects", "Display instances from all projects"),
            option("columns", "Columns", short="c", default="ns46tSL"),
            switch("fast", "Fast mode (same as --columns=nsacPt)"),
            FORMAT,
        ),
        run="instance_list:run",
    ),
    "top": Command(
        usage="[<remote>:] [<filter>...]",
        summary="Show what running instances use",
        detail="""Renews a table of CPU, memory, disk and network use of the running instances. CPU is in percent of one CPU.
The filters are those of "atoll list".

Keys: c, m, d, n, p, a sort by CPU, memory, disk, network, processes or name; q quits.

Where the output is no terminal, or with --format, a table is written after each interval: one, or as many
as --iterations says.""",
        examples="""atoll top
    Watch all running instances of the project.

atoll top --sort memory web
    Watch those whose names begin with web, the greatest in memory first.

atoll top --format csv --interval 10
    Write what was used in the next ten seconds.""",
        flags=(
            switch("all-projects", "Show instances of all projects"),
            FORMAT,
            option("interval", "Seconds between two tables", short="i", default="2"),
            option("iterations", "End after that many tables", kind="int"),
            option("sort", "Order (cpu|memory|disk|network|processes|name)", default="cpu"),
        ),
        run="top:run",
    ),
    "info": Command(
        usage="[<remote>:][<instance>]",
        summary="Show instance or server information",
        examples="""atoll info [<remote>:]<instance> [--show-log]
    For instance information.

atoll info [<remote>:] [--resources]
    For Atoll server information.""",
        flags=(
            switch("resources", "Show the resources available to the server"),
            switch("show-log", "Show the instance's last 100 log lines?"),
            TARGET,
        ),
        run="instance_info:run",
    ),
    "start": Command(
        usage="[<remote>:]<instance> [[<remote>:]<instance>...]",
        summary="Start instances",
        flags=(
            switch("all", "Run against all instances"),
            _CONSOLE,
            switch("stateless", "Ignore the instance state"),
            _WAIT,
        ),
        brief=True,
        run="instances:start",
    ),
    "stop": Command(
        usage="[<remote>:]<instance> [[<remote>:]<instance>...]",
        summary="Stop instances",
        flags=(
            switch("all", "Run against all instances"),
            _CONSOLE,
            switch("force", "Force the instance to shutdown", short="f"),
            switch("stateful", "Store the instance state"),
            option("timeout", "Time to wait for the instance before killing it", kind="int", default="-1"),
        ),
        brief=True,
        run="instances:stop",
    ),
    "restart": Command(
        usage="[<remote>:]<instance> [[<remote>:]<instance>...]",
        summary="Restart instances",
        detail='The opposite of "atoll pause" is "atoll start".',
        flags=(
            switch("all", "Run against all instances"),
            _CONSOLE,
            switch("force", "Force the instance to shutdown", short="f"),
            option("timeout", "Time to wait for the instance before killing it", kind="int", default="-1"),
        ),
        brief=True,
        run="instances:restart",
    ),
    "pause": Command(
        usage="[<remote>:]<instance> [[<remote>:]<instance>...]",
        summary="Pause instances",
        flags=(switch("all", "Run against all instances"),),
        brief=True,
        hidden=True,
        run="instances:pause",
    ),
    "delete": Command(
        usage="[<remote>:]<instance>[/<snapshot>] [[<remote>:]<instance>[/<snapshot>]...]",
        summary="Delete instances and snapshots",
        aliases=("rm",),
        flags=(
            switch("force", "Force the removal of running instances", short="f"),
            switch("interactive", "Require user confirmation", short="i"),
        ),
        run="instances:delete",
    ),
    "exec": Command(
        usage="[<remote>:]<instance> [flags] [--] <command line>",
        summary="Execute commands in instances",
        detail="""The command is executed directly using exec, so there is no shell and
shell patterns (variables, file redirects, ...) won't be understood.
If you need a shell environment you need to execute the shell
executable, passing the shell commands as arguments, for example:

  atoll exec <instance> -- sh -c "cd /tmp && pwd"

Mode defaults to non-interactive, interactive mode is selected if both stdin AND stdout are terminals (stderr is ignored).""",
        flags=(
            option("cwd", "Directory to run the command in (default /root)"),
            switch("disable-stdin", "Disable stdin (reads from /dev/null)", short="n"),
            option("env", "Environment variable to set (e.g. HOME=/home/foo)", kind="list"),
            switch("force-interactive", "Force pseudo-terminal allocation", short="t"),
            switch("force-noninteractive", "Disable pseudo-terminal allocation", short="T"),
            option("group", "Group ID to run the command as (default 0)", kind="int"),
            option("mode", "Override the terminal mode (auto, interactive or non-interactive)", default="auto"),
            option("user", "User ID to run the command as (default 0)", kind="int"),
        ),
        run="execute:run",
    ),
    "console": Command(
        usage="[<remote>:]<instance>",
        summary="Attach to instance consoles",
        detail="""This command allows you to interact with the boot console of an instance
as well as retrieve past log entries from it.""",
        flags=(
            switch("show-log", "Retrieve the instance's console log"),
            option(
                "type",
                "Type of connection to establish: 'console' for serial console, 'vga' for SPICE graphical output",
                short="t",
                default="console",
            ),
        ),
        run="console:run",
    ),
    "wait": Command(
        usage="[<remote>:]<instance>",
        summary="Wait until instances are ready",
        detail="""Waits until each condition was met: at once, if it is. The instance may still be stopped.

Conditions:
  running, stopped   the instance's status
  ipv4, ipv6         it has an address that is not only for itself or its link
  tcp=PORT           something in it listens on a TCP port
  agent              it takes commands (the default)
  exec=COMMAND       a command in it succeeds; it is run again until it does
  cloud-init         cloud-init has done all that it does at a start""",
        examples="""atoll wait web --for ipv4 --for tcp=80 --timeout 60
    Wait at most a minute for an address and a web server.

atoll wait db --for 'exec=pg_isready -q'
    Wait until PostgreSQL takes connections.""",
        flags=(
            option("for", "Condition to wait for", kind="list"),
            option("timeout", "Seconds to wait before giving up (default: no limit)"),
        ),
        run="wait:run",
    ),
    "snapshot": Command(
        usage="[<remote>:]<instance> [<snapshot name>]",
        summary="Create instance snapshots",
        detail="""When --stateful is used, Atoll attempts to checkpoint the instance's
running state, including process memory state, TCP connections, ...""",
        examples="""atoll snapshot u1 snap0
    Create a snapshot of "u1" called "snap0".""",
        flags=(
            switch("no-expiry", "Ignore any configured auto-expiry for the instance"),
            switch("reuse", "If the snapshot name already exists, delete and create a new one"),
            switch("stateful", "Whether or not to snapshot the instance's running state"),
        ),
        run="instances:snapshot",
    ),
    "restore": Command(
        usage="[<remote>:]<instance> <snapshot>",
        summary="Restore instances from snapshots",
        detail="If --stateful is passed, then the running state will be restored too.",
        examples="""atoll snapshot u1 snap0
    Create the snapshot.

atoll restore u1 snap0
    Restore the snapshot.""",
        flags=(switch("stateful", "Whether or not to restore the instance's running state from snapshot (if available)"),),
        run="instances:restore",
    ),
    "rename": Command(
        usage="[<remote>:]<instance>[/<snapshot>] <instance>[/<snapshot>]",
        summary="Rename instances and snapshots",
        run="instances:rename",
    ),
}
