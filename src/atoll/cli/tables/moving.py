"""Commands that copy, move, publish, export and import instances, as data."""

from __future__ import annotations

from atoll.cli.spec import TARGET, Command, option, switch

_INCONSISTENT = switch("allow-inconsistent", "Ignore copy errors for volatile files")
_DEVICE = option("device", "New key/value to apply to a specific device", short="d", kind="list")
_MODE = option("mode", "Transfer mode between servers. One of pull, push or relay", default="pull")
_STATELESS = switch("stateless", "Copy a stateful instance stateless")
_STORAGE = option("storage", "Storage pool name", short="s")
_TARGET_PROJECT = option("target-project", "Copy to a project different from the source")

COMMANDS = {
    "copy": Command(
        usage="[<remote>:]<source>[/<snapshot>] [[<remote>:]<destination>]",
        summary="Copy instances within a server or between servers",
        aliases=("cp",),
        examples="""atoll copy u1 u2
    Copy "u1" and its snapshots to "u2".

atoll copy u1/snap0 u2
    Make an instance of a snapshot.""",
        flags=(
            _INCONSISTENT,
            option("config", "Config key/value to apply to the new instance", short="c", kind="list"),
            _DEVICE,
            switch("ephemeral", "Ephemeral instance", short="e"),
            switch("instance-only", "Copy the instance without its snapshots"),
            _MODE,
            switch("no-profiles", "Create the instance with no profiles applied"),
            option("profile", "Profile to apply to the new instance", short="p", kind="list"),
            switch("refresh", "Perform an incremental copy"),
            _STATELESS,
            _STORAGE,
            TARGET,
            _TARGET_PROJECT,
        ),
        run="copy:copy",
    ),
    "move": Command(
        usage="[<remote>:]<instance>[/<snapshot>] [<remote>:][<instance>[/<snapshot>]]",
        summary="Move instances within a server or between servers",
        aliases=("mv",),
        examples="""atoll move <old name> <new name>
    Rename an instance.

atoll move <instance>/<old snapshot name> <instance>/<new snapshot name>
    Rename a snapshot.

atoll move <instance> --storage <pool>
    Move an instance to another storage pool.""",
        flags=(
            _INCONSISTENT,
            option("config", "Config key/value to apply to the target instance", short="c", kind="list"),
            _DEVICE,
            switch("instance-only", "Move the instance without its snapshots"),
            _MODE,
            switch("no-profiles", "Unset all profiles on the target instance"),
            option("profile", "Profile to apply to the target instance", short="p", kind="list"),
            _STATELESS,
            _STORAGE,
            TARGET,
            _TARGET_PROJECT,
        ),
        run="copy:move",
    ),
    "publish": Command(
        usage="[<remote>:]<instance>[/<snapshot>] [<remote>:] [flags] [key=value...]",
        summary="Publish instances as images",
        flags=(
            option("alias", "New alias to define at target", kind="list"),
            option("compression", "Compression algorithm to use (none for uncompressed)"),
            option("expire", "Image expiration date (format: rfc3339)"),
            switch("force", "Stop the instance if currently running", short="f"),
            switch("public", "Make the image public"),
            switch("reuse", "Delete images that lose their last alias to the new one"),
        ),
        run="publish:run",
    ),
    "export": Command(
        usage="[<remote>:]<instance> [target] [--instance-only] [--optimized-storage]",
        summary="Export instances as backup tarballs.",
        examples="""atoll export u1 backup0.tar.gz
    Download a backup tarball of the u1 instance.""",
        flags=(
            option("compression", "Compression algorithm to use (none for uncompressed)"),
            switch("instance-only", "Whether or not to only backup the instance (without snapshots)"),
            switch("optimized-storage", "Use storage driver optimized format (can only be restored on a similar pool)"),
        ),
        run="backup:export",
    ),
    "import": Command(
        usage="[<remote>:] <backup file> [<instance name>]",
        summary="Import backups of instances including their snapshots.",
        examples="""atoll import backup0.tar.gz
    Create a new instance using backup0.tar.gz as the source.""",
        flags=(_STORAGE,),
        run="backup:import_",
    ),
}
