"""Commands of the projects family, as data."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, Command, option

COMMANDS = {
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
    "project edit": Command(
        usage="[<remote>:]<project>",
        summary="Edit project configurations as YAML",
        examples="""atoll project edit <project> < project.yaml
    Update a project using the content of project.yaml""",
        run="projects:edit",
    ),
    "project get": Command(
        usage="[<remote>:]<project> <key>",
        summary="Get values for project configuration keys",
        run="projects:get",
    ),
    "project info": Command(
        usage="[<remote>:]<project>",
        summary="Get a summary of resource allocations",
        flags=(FORMAT,),
        run="projects:info",
    ),
    "project list": Command(
        usage="[<remote>:]",
        summary="List projects",
        aliases=("ls",),
        flags=(FORMAT,),
        run="projects:list_",
    ),
    "project rename": Command(
        usage="[<remote>:]<project> <new-name>",
        summary="Rename projects",
        aliases=("mv",),
        run="projects:rename",
    ),
    "project set": Command(
        usage="[<remote>:]<project> <key>=<value>...",
        summary="Set project configuration keys",
        detail="""For backward compatibility, a single configuration key may still be set with:
    atoll project set [<remote>:]<project> <key> <value>""",
        run="projects:set_",
    ),
    "project show": Command(
        usage="[<remote>:]<project>",
        summary="Show project options",
        run="projects:show",
    ),
    "project switch": Command(
        usage="[<remote>:]<project>",
        summary="Switch the current project",
        run="projects:switch",
    ),
    "project unset": Command(
        usage="[<remote>:]<project> <key>",
        summary="Unset project configuration keys",
        run="projects:unset",
    ),
}
