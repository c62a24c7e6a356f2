"""Commands of the images family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, Command, option, switch

COMMANDS = {
    "image": Command(
        summary="Manage images",
        detail="""In Atoll instances are created from images. Those images were themselves
either generated from an existing instance or downloaded from an image
server.

When using remote images, Atoll will automatically cache images for you
and remove them upon expiration.

The image unique identifier is the hash (sha-256) of its representation
as a compressed tarball (or for split images, the concatenation of the
metadata and rootfs tarballs).

Images can be referenced by their full hash, shortest unique partial
hash or alias name (if one is set).""",
    ),
    "image alias": Command(
        summary="Manage image aliases",
    ),
    "image alias create": Command(
        usage="[<remote>:]<alias> <fingerprint>",
        summary="Create aliases for existing images",
        run="image_aliases:create",
    ),
    "image alias delete": Command(
        usage="[<remote>:]<alias>",
        summary="Delete image aliases",
        aliases=("rm",),
        run="image_aliases:delete",
    ),
    "image alias list": Command(
        usage="[<remote>:] [<filters>...]",
        summary="List image aliases",
        detail="Filters may be part of the image hash or part of the image alias name.",
        aliases=("ls",),
        flags=(FORMAT,),
        run="image_aliases:list_",
    ),
    "image alias rename": Command(
        usage="[<remote>:]<alias> <new-name>",
        summary="Rename aliases",
        aliases=("mv",),
        run="image_aliases:rename",
    ),
    "image build": Command(
        usage="[<remote>:]<distribution>[/<release>[/<variant>]]",
        summary="Build an image on the server",
        detail="""The server bootstraps the distribution from its package archive; no image server is needed.
"busybox" is the smallest one: a static busybox and nothing else.""",
        examples="""atoll image build debian/12 --alias d12 --package curl --package vim
    Build a Debian 12 with two more packages.

atoll image build debian/12/cloud --alias debian/12/cloud
    Build one with cloud-init.

atoll image build busybox --alias tiny
    Build the smallest image that starts.""",
        flags=(
            option("alias", "New aliases to add to the image", kind="list"),
            option("package", "Package to install as well", short="p", kind="list"),
            switch("public", "Make image public"),
        ),
        run="image_store:build",
    ),
    "image copy": Command(
        usage="[<remote>:]<image> <remote>:",
        summary="Copy images between servers",
        detail="""The target server fetches the image itself (mode pull), the source server sends it (push), or it goes by this
client (relay), which works where neither server reaches the other.
To be kept up to date, it has to be a public one named by an alias, and be pulled.""",
        examples="""atoll image copy images:debian/12 local: --alias debian --auto-update
    Keep the newest Debian 12 of that image server in the store.""",
        aliases=("cp",),
        flags=(
            option("alias", "New aliases to add to the image", kind="list"),
            switch("auto-update", "Keep the image up to date after initial copy"),
            switch("copy-aliases", "Copy aliases from source"),
            option("mode", "Transfer mode: pull, push or relay", default="pull"),
            option("profile", "Profile to apply to instances made of the image", short="p", kind="list"),
            switch("public", "Make image public"),
            option("target-project", "Copy to a project different from the source"),
        ),
        run="image_copy:copy",
    ),
    "image serve-tree": Command(
        usage="<folder> [[<remote>:]<image>...]",
        summary="Write images as a tree for a web server",
        detail="""The tree is what simplestreams clients read: any web server with HTTPS makes an image server of it.
Images that are in the tree already stay, unless --prune removes those that are not named; without names, all that have an alias
are written. The tree is changed so that clients find it whole at any moment.""",
        examples="""atoll image serve-tree /srv/images debian/12 web-base
    Write these two; then: atoll remote add mine https://images.example.org --protocol simplestreams""",
        flags=(switch("prune", "Remove images that are not written now"),),
        run="image_tree:write",
    ),
    "image delete": Command(
        usage="[<remote>:]<image> [[<remote>:]<image>...]",
        summary="Delete images",
        aliases=("rm",),
        run="image_store:delete",
    ),
    "image edit": Command(
        usage="[<remote>:]<image>",
        summary="Edit image properties",
        examples="""atoll image edit <image>
    Launch a text editor to edit the properties

atoll image edit <image> < image.yaml
    Load the image properties from a YAML file""",
        run="images:edit",
    ),
    "image export": Command(
        usage="[<remote>:]<image> [<target>]",
        summary="Export and download images",
        detail="The output target is optional and defaults to the working directory.",
        flags=(switch("vm", "Query virtual machine images"),),
        run="image_store:export",
    ),
    "image get-property": Command(
        usage="[<remote>:]<image> <key>",
        summary="Get image properties",
        run="images:get_property",
    ),
    "image import": Command(
        usage="<tarball>|<directory>|<URL> [<rootfs tarball>] [<remote>:] [key=value...]",
        summary="Import image into the image store",
        detail="Directory import is only available on Linux and must be performed as root.",
        flags=(
            option("alias", "New aliases to add to the image", kind="list"),
            switch("public", "Make image public"),
        ),
        run="image_store:import_",
    ),
    "image info": Command(
        usage="[<remote>:]<image>",
        summary="Show useful information about images",
        flags=(switch("vm", "Query virtual machine images"),),
        run="images:info",
    ),
    "image list": Command(
        usage="[<remote>:] [<filter>...]",
        summary="List images",
        detail="""Filters may be of the <key>=<value> form for property based filtering,
or part of the image hash or part of the image alias name.

The -c option takes a (optionally comma-separated) list of arguments
that control which image attributes to output when displaying in table
or csv format.

Default column layout is: lfpdasu

Column shorthand chars:

    l - Shortest image alias (and optionally number of other aliases)
    L - Newline-separated list of all image aliases
    f - Fingerprint (short)
    F - Fingerprint (long)
    p - Whether image is public
    d - Description
    a - Architecture
    s - Size
    u - Upload date
    t - Type""",
        aliases=("ls",),
        flags=(
            option("columns", "Columns", short="c", default="lfpdatsu"),
            FORMAT,
        ),
        run="images:list_",
    ),
    "image refresh": Command(
        usage="[<remote>:]<image> [[<remote>:]<image>...]",
        summary="Refresh images",
        run="image_store:refresh",
    ),
    "image set-property": Command(
        usage="[<remote>:]<image> <key> <value>",
        summary="Set image properties",
        run="images:set_property",
    ),
    "image show": Command(
        usage="[<remote>:]<image>",
        summary="Show image properties",
        flags=(switch("vm", "Query virtual machine images"),),
        run="images:show",
    ),
    "image tree": Command(
        summary="Look after trees of images",
        detail="A tree is what `atoll image serve-tree` writes for a web server.",
    ),
    "image tree list": Command(
        usage="<folder>",
        summary="List the images of a tree",
        aliases=("ls",),
        flags=(FORMAT,),
        run="image_trees:list_",
    ),
    "image tree prune": Command(
        usage="<folder>",
        summary="Remove old versions from a tree",
        flags=(option("keep", "How many versions of each product stay", default="2"),),
        run="image_trees:prune",
    ),
    "image tree remove": Command(
        usage="<folder> <image> [<image>...]",
        summary="Remove images from a tree",
        detail="Images are named by an alias, a product, or twelve or more digits of a fingerprint.",
        aliases=("rm",),
        run="image_trees:remove",
    ),
    "image tree verify": Command(
        usage="<folder>",
        summary="Compare a tree's files with what it announces",
        detail="Every file is read. The exit status is 1 when anything differs.",
        run="image_trees:verify",
    ),
    "image unset-property": Command(
        usage="[<remote>:]<image> <key>",
        summary="Unset image properties",
        run="images:unset_property",
    ),
}
