"""Commands of the file family, as data."""

from __future__ import annotations

from atoll.cli.spec import Command, option, switch

_CREATE_DIRS = switch("create-dirs", "Create any directories necessary", short="p")
_RECURSIVE = switch("recursive", "Recursively transfer files", short="r")

COMMANDS = {
    "file": Command(
        summary="Manage files in instances",
    ),
    "file delete": Command(
        usage="[<remote>:]<instance>/<path> [[<remote>:]<instance>/<path>...]",
        summary="Delete files in instances",
        aliases=("rm",),
        run="files:delete",
    ),
    "file edit": Command(
        usage="[<remote>:]<instance>/<path>",
        summary="Edit files in instances",
        run="files:edit",
    ),
    "file mount": Command(
        usage="[<remote>:]<instance>[/<path>] [<target path>]",
        summary="Mount files from instances",
        examples="""atoll file mount foo/root fooroot
    To mount /root from the instance foo onto the local fooroot directory.""",
        flags=(
            option("auth-user", "Set authentication user when using SSH SFTP listener"),
            option("listen", "Setup SSH SFTP listener on address:port instead of mounting"),
            switch("no-auth", "Disable authentication when using SSH SFTP listener"),
        ),
        run="file_mount:mount",
    ),
    "file pull": Command(
        usage="[<remote>:]<instance>/<path> [[<remote>:]<instance>/<path>...] <target path>",
        summary="Pull files from instances",
        examples="""atoll file pull foo/etc/hosts .
    To pull /etc/hosts from the instance and write it to the current directory.""",
        flags=(_CREATE_DIRS, _RECURSIVE),
        run="file_pull:pull",
    ),
    "file push": Command(
        usage="<source path>... [<remote>:]<instance>/<path>",
        summary="Push files into instances",
        examples="""atoll file push /etc/hosts foo/etc/hosts
    To push /etc/hosts into the instance "foo".""",
        flags=(
            _CREATE_DIRS,
            option("gid", "Set the file's gid on push", kind="int", default="-1"),
            option("mode", "Set the file's perms on push"),
            _RECURSIVE,
            option("uid", "Set the file's uid on push", kind="int", default="-1"),
        ),
        run="file_push:push",
    ),
}
