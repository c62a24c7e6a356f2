"""The rows of the verbs that kinds of named objects share (see `atoll.cli.verbs`)."""

from __future__ import annotations

from atoll.cli.spec import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.spec import Flag


def rows(
    path: str, module: str, *, noun: str, argument: str, flags: tuple[Flag, ...] = (), renamed: bool = True
) -> dict[str, Command]:
    """delete, edit, get, set, show, unset and (unless not `renamed`) rename of `path`; `flags` of those that read or set keys."""
    name = f"[<remote>:]<{argument}>"
    found = {
        "delete": Command(usage=name, summary=f"Delete {noun}s", aliases=("rm",), run=f"{module}:delete"),
        "edit": Command(
            usage=name,
            summary=f"Edit {noun} configurations as YAML",
            examples=f"""atoll {path} edit <{argument}> < {argument}.yaml
    Update a {noun} using the content of {argument}.yaml""",
            run=f"{module}:edit",
        ),
        "get": Command(
            usage=f"{name} <key>", summary=f"Get values for {noun} configuration keys", flags=flags, run=f"{module}:get"
        ),
        "set": Command(
            usage=f"{name} <key>=<value>...",
            summary=f"Set {noun} configuration keys",
            detail=f"""For backward compatibility, a single configuration key may still be set with:
    atoll {path} set {name} <key> <value>""",
            flags=flags,
            run=f"{module}:set_",
        ),
        "show": Command(usage=name, summary=f"Show {noun} configurations", flags=flags, run=f"{module}:show"),
        "unset": Command(usage=f"{name} <key>", summary=f"Unset {noun} configuration keys", flags=flags, run=f"{module}:unset"),
    }
    if renamed:
        found["rename"] = Command(usage=f"{name} <new-name>", summary=f"Rename {noun}s", aliases=("mv",), run=f"{module}:rename")
    return {f"{path} {verb}": row for verb, row in found.items()}
