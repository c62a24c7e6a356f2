"""The commands of `atolld`, as data. Texts say `atolld`; the help shows them under the name the program was called as."""

from __future__ import annotations

from atoll.cli.spec import Command, option, switch

GLOBAL_FLAGS = (
    switch("debug", "Show all debug messages", short="d"),
    switch("help", "Print help", short="h"),
    option("logfile", "Path to the log file"),
    switch("syslog", "Log to syslog"),
    option("trace", "Log tracing targets", kind="list"),
    switch("verbose", "Show all information messages", short="v"),
    switch("version", "Print version number"),
)
DAEMON_FLAGS = (
    *GLOBAL_FLAGS[:1],
    option("group", "The group of users that will be allowed to talk to Atoll"),
    *GLOBAL_FLAGS[1:],
)

DAEMON_DETAIL = """This is the Atoll daemon command line. It's typically started directly by your
init system and interacted with through a tool like `atoll`.

There are however a number of subcommands that let you interact directly with
the local Atoll daemon and which may not be performed through the REST API alone."""

INIT = Command(
    summary="Configure the Atoll daemon",
    examples="""init --minimal
init --auto [--network-address=IP] [--network-port=8443] [--storage-backend=overlay]
            [--storage-create-device=DEVICE] [--storage-create-loop=SIZE]
            [--storage-pool=POOL] [--trust-password=PASSWORD]
init --preseed
init --dump
""",
    flags=(
        switch("auto", "Automatic (non-interactive) mode"),
        switch("dump", "Dump YAML config to stdout"),
        switch("minimal", "Minimal configuration (non-interactive)"),
        option("network-address", "Address to bind Atoll to (default: none)"),
        option("network-port", "Port to bind Atoll to (default: 8443)", kind="int"),
        switch("preseed", "Pre-seed mode, expects YAML config from stdin"),
        option("storage-backend", "Storage backend to use (default: the best this host can carry)"),
        option("storage-create-device", "Setup device based storage using DEVICE"),
        option("storage-create-loop", "Setup loop based storage with SIZE in GB", kind="int"),
        option("storage-pool", "Storage pool to use or create"),
        option("trust-password", "Password required to add new clients"),
    ),
    usage="[<preseed file>]",
    run="init",
)

SQL = Command(
    summary="Execute a SQL query against the Atoll local or global database",
    detail="""The local database is specific to this server and contains its own data
(such as the network address it listens on).

The global database contains everything else
(such as profiles, instances, etc).

If <query> is the special value "-", then the query is read from
standard input.

If <query> is the special value ".dump", the command returns a SQL text
dump of the given database.

If <query> is the special value ".schema", the command returns the SQL
text schema of the given database.

If <query> is the special value ".sync", the database's write-ahead log
is written back into its main file.

This internal command is mostly useful for debugging and disaster
recovery.""",
    usage="<local|global> <query>",
    hidden=True,
    run="sql",
)

_LATER = "This command is answered with an error: the release manages one host and rebuilds no database."

COMMANDS = {
    "activateifneeded": Command(
        summary="Check if Atoll should be started",
        detail="""This command will check if Atoll has any auto-started instances,
instances which were running prior to Atoll's last shutdown or if it's
configured to listen on the network address.

If at least one of those is true, then a connection will be attempted to the
Atoll socket which will cause a socket-activated Atoll to be spawned.""",
        run="activateifneeded",
    ),
    "cluster": Command(summary="Low-level cluster administration commands", detail=_LATER, run="absent", hidden=True),
    "import": Command(summary='Command has been replaced with "atolld recover"', detail=_LATER, run="absent", hidden=True),
    "init": INIT,
    "manpage": Command(summary="Generate manpages for all commands", detail=_LATER, run="absent", hidden=True),
    "recover": Command(
        summary="Recover missing instances and volumes from existing and unknown storage pools",
        detail="""This will look for instances and custom volumes that are in storage pools
but not in the database, and record them anew.

It asks which pools to look into, also such that are not in the database,
and before it changes anything.""",
        run="recover",
    ),
    "shutdown": Command(
        summary="Tell Atoll to shutdown all instances and exit",
        detail="""This will tell Atoll to start a clean shutdown of all instances,
followed by having itself shutdown and exit.

This can take quite a while as instances can take a long time to
shutdown, especially if a non-standard timeout was configured for them.""",
        flags=(
            switch("force", "Force shutdown instead of waiting for running operations to finish", short="f"),
            option("timeout", "Number of seconds to wait before giving up", kind="int", short="t"),
        ),
        run="shutdown",
    ),
    "sql": SQL,
    "version": Command(summary="Show the server version", run="version"),
    "waitready": Command(
        summary="Wait for Atoll to be ready to process requests",
        detail="""This command will block until Atoll is reachable over its REST API and
is done with early start tasks like re-starting previously started
instances.""",
        flags=(option("timeout", "Number of seconds to wait before giving up", kind="int", short="t"),),
        run="waitready",
    ),
}
