"""Commands of the storage family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, TARGET, Command, option, switch
from atoll.cli.tables import configured

_MODE = option("mode", "Transfer mode. One of pull, push or relay", default="pull")
_TARGET_PROJECT = option("target-project", "Copy or move to a project different from the source")

COMMANDS = {
    **configured.rows(
        "storage",
        "storage",
        noun="storage pool",
        argument="pool",
        listing="List available storage pools",
        flags=(TARGET,),
        renamed=False,
    ),
    "storage": Command(
        summary="Manage storage pools and volumes",
    ),
    "storage create": Command(
        usage="[<remote>:]<pool> <driver> [key=value...]",
        summary="Create storage pools",
        flags=(TARGET,),
        run="storage:create",
    ),
    "storage show": Command(
        usage="[<remote>:]<pool>",
        summary="Show storage pool configurations and resources",
        flags=(
            switch("resources", "Show the resources available to the storage pool"),
            TARGET,
        ),
        run="storage:show",
    ),
    "storage info": Command(
        usage="[<remote>:]<pool>",
        summary="Show useful information about storage pools",
        flags=(
            switch("bytes", "Show the used and free space in bytes"),
            TARGET,
        ),
        run="storage:info",
    ),
    "storage volume": Command(
        summary="Manage storage volumes",
        detail='Unless specified through a prefix, all volume operations affect "custom" (user created) volumes.',
    ),
    "storage volume list": Command(
        usage="[<remote>:]<pool> [<filter>...]",
        summary="List storage volumes",
        detail="""The -c option takes a (optionally comma-separated) list of arguments
that control which image attributes to output when displaying in table
or csv format.

Column shorthand chars:
    c - Content type (filesystem, block or iso)
    d - Description
    e - Project name
    L - Location of the instance (e.g. its cluster member)
    n - Name
    t - Type of volume (custom, image, container or virtual-machine)
    u - Number of references (used by)
    U - Current disk usage""",
        aliases=("ls",),
        flags=(
            switch("all-projects", "All projects"),
            option("columns", "Columns", short="c", default="etndcuL"),
            FORMAT,
        ),
        run="volumes:list_",
    ),
    "storage volume show": Command(
        usage="[<remote>:]<pool> <volume>[/<snapshot>]",
        summary="Show storage volume configurations",
        examples="""atoll storage volume show default data
    Will show the properties of a custom volume called "data" in the "default" pool.

atoll storage volume show default container/data
    Will show the properties of the filesystem for a container called "data" in the "default" pool.""",
        flags=(TARGET,),
        run="volumes:show",
    ),
    "storage volume create": Command(
        usage="[<remote>:]<pool> <volume> [key=value...]",
        summary="Create new custom storage volumes",
        flags=(
            TARGET,
            option("type", "Content type, block or filesystem", default="filesystem"),
        ),
        run="volumes:create",
    ),
    "storage volume delete": Command(
        usage="[<remote>:]<pool> <volume>[/<snapshot>]",
        summary="Delete storage volumes",
        aliases=("rm",),
        flags=(TARGET,),
        run="volumes:delete",
    ),
    "storage volume edit": Command(
        usage="[<remote>:]<pool> <volume>[/<snapshot>]",
        summary="Edit storage volume configurations as YAML",
        examples="""atoll storage volume edit [<remote>:]<pool> <volume> < volume.yaml
    Update a storage volume using the content of pool.yaml.""",
        flags=(TARGET,),
        run="volumes:edit",
    ),
    "storage volume get": Command(
        usage="[<remote>:]<pool> <volume>[/<snapshot>] <key>",
        summary="Get values for storage volume configuration keys",
        flags=(TARGET,),
        run="volumes:get",
    ),
    "storage volume set": Command(
        usage="[<remote>:]<pool> <volume> <key>=<value>...",
        summary="Set storage volume configuration keys",
        detail="""For backward compatibility, a single configuration key may still be set with:
    atoll storage volume set [<remote>:]<pool> <volume> <key> <value>""",
        flags=(TARGET,),
        run="volumes:set_",
    ),
    "storage volume unset": Command(
        usage="[<remote>:]<pool> <volume> <key>",
        summary="Unset storage volume configuration keys",
        flags=(TARGET,),
        run="volumes:unset",
    ),
    "storage volume attach": Command(
        usage="[<remote>:]<pool> <volume> <instance> [<device name>] [<path>]",
        summary="Attach new storage volumes to instances",
        run="attach:attach_volume",
    ),
    "storage volume attach-profile": Command(
        usage="[<remote:>]<pool> <volume> <profile> [<device name>] [<path>]",
        summary="Attach new storage volumes to profiles",
        run="attach:attach_volume",
    ),
    "storage volume detach": Command(
        usage="[<remote>:]<pool> <volume> <instance> [<device name>]",
        summary="Detach storage volumes from instances",
        run="attach:detach_volume",
    ),
    "storage volume detach-profile": Command(
        usage="[<remote:>]<pool> <volume> <profile> [<device name>]",
        summary="Detach storage volumes from profiles",
        run="attach:detach_volume",
    ),
    "storage volume rename": Command(
        usage="[<remote>:]<pool> <old name>[/<old snapshot name>] <new name>[/<new snapshot name>]",
        summary="Rename storage volumes",
        flags=(TARGET,),
        run="volumes:rename",
    ),
    "storage volume snapshot": Command(
        usage="[<remote>:]<pool> <volume> [<snapshot>]",
        summary="Snapshot storage volumes",
        flags=(
            switch("no-expiry", "Ignore any configured auto-expiry for the storage volume"),
            switch("reuse", "If the snapshot name already exists, delete and create a new one"),
            TARGET,
        ),
        run="volumes:snapshot",
    ),
    "storage volume copy": Command(
        usage="[<remote>:]<pool>/<volume>[/<snapshot>] [<remote>:]<pool>/<volume>",
        summary="Copy storage volumes",
        aliases=("cp",),
        flags=(
            _MODE,
            switch("refresh", "Refresh and update the existing storage volume copies"),
            _TARGET_PROJECT,
            switch("volume-only", "Copy the volume without its snapshots"),
        ),
        run="volume_copies:copy",
    ),
    "storage volume move": Command(
        usage="[<remote>:]<pool>/<volume> [<remote>:]<pool>/<volume>",
        summary="Move storage volumes between pools",
        aliases=("mv",),
        flags=(_MODE, _TARGET_PROJECT),
        run="volume_copies:move",
    ),
    "storage volume export": Command(
        usage="[<remote>:]<pool> <volume> [<path>]",
        summary="Export custom storage volume",
        flags=(
            option("compression", "Compression algorithm to use (none for uncompressed)"),
            switch("optimized-storage", "Use storage driver optimized format (can only be restored on a similar pool)"),
            switch("volume-only", "Export the volume without its snapshots"),
            TARGET,
        ),
        run="volume_copies:export",
    ),
    "storage volume import": Command(
        usage="[<remote>:]<pool> <file> [<volume name>]",
        summary="Import backups of custom volumes including their snapshots, ISO images, or tarballs",
        examples="""atoll storage volume import default backup0.tar.gz
    Create a new custom volume using backup0.tar.gz as the source.

atoll storage volume import default installer.iso installer
    Create a new ISO volume with the content of the file.

atoll storage volume import default files.tar.gz data --type=tar
    Create a new custom volume with the files of a tarball.""",
        flags=(
            TARGET,
            option("type", "Type of the file: backup, iso or tar (a file named *.iso is an iso, any other a backup)"),
        ),
        run="volume_copies:import_",
    ),
    "storage volume restore": Command(
        usage="[<remote>:]<pool> <volume> <snapshot>",
        summary="Restore storage volume snapshots",
        flags=(TARGET,),
        run="volumes:restore",
    ),
    "storage volume info": Command(
        usage="[<remote>:]<pool> <volume>",
        summary="Show storage volume state information",
        flags=(TARGET,),
        run="volumes:info",
    ),
}
