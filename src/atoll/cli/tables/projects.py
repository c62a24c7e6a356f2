"""Commands of the projects family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, Command, option
from atoll.cli.tables import configured

COMMANDS = {
    **configured.rows("project", "projects", noun="project", argument="project", listing="List projects"),
    "project": Command(
        summary="Manage projects",
    ),
    "project create": Command(
        usage="[<remote>:]<project>",
        summary="Create projects",
        flags=(option("config", "Config key/value to apply to the new project", short="c", kind="list"),),
        run="projects:create",
    ),
    "project delete": Command(
        usage="[<remote>:]<project>",
        summary="Delete projects",
        aliases=("rm",),
        run="projects:delete",
    ),
    "project info": Command(
        usage="[<remote>:]<project>",
        summary="Get a summary of resource allocations",
        flags=(FORMAT,),
        run="projects:info",
    ),
    "project switch": Command(
        usage="[<remote>:]<project>",
        summary="Switch the current project",
        run="projects:switch",
    ),
}
