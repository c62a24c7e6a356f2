"""The rows of the verbs that kinds of named objects share (see `atoll.cli.verbs`)."""

from __future__ import annotations

from atoll.cli.spec import FORMAT, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.spec import Flag


def rows(
    path: str, module: str, *, noun: str, argument: str, listing: str, flags: tuple[Flag, ...] = (), renamed: bool = True
) -> dict[str, Command]:
    """list, delete, edit, get, set, show, unset and (unless not `renamed`) rename of `path`. `listing`: what list does; it is the
    module's own `list_`, the others are those of its VERBS. `flags`: of those that read or set keys."""
    name = f"[<remote>:]<{argument}>"
    found = {
        "delete": Command(usage=name, summary=f"Delete {noun}s", aliases=("rm",), run=f"{module}:VERBS.delete"),
        "list": Command(usage="[<remote>:]", summary=listing, aliases=("ls",), flags=(FORMAT,), run=f"{module}:list_"),
        "edit": Command(
            usage=name,
            summary=f"Edit {noun} configurations as YAML",
            examples=f"""atoll {path} edit <{argument}> < {argument}.yaml
    Update a {noun} using the content of {argument}.yaml""",
            run=f"{module}:VERBS.edit",
        ),
        "get": Command(
            usage=f"{name} <key>", summary=f"Get values for {noun} configuration keys", flags=flags, run=f"{module}:VERBS.get"
        ),
        "set": Command(
            usage=f"{name} <key>=<value>...",
            summary=f"Set {noun} configuration keys",
            detail=f"""For backward compatibility, a single configuration key may still be set with:
    atoll {path} set {name} <key> <value>""",
            flags=flags,
            run=f"{module}:VERBS.set_",
        ),
        "show": Command(usage=name, summary=f"Show {noun} configurations", flags=flags, run=f"{module}:VERBS.show"),
        "unset": Command(
            usage=f"{name} <key>", summary=f"Unset {noun} configuration keys", flags=flags, run=f"{module}:VERBS.unset"
        ),
    }
    if renamed:
        found["rename"] = Command(
            usage=f"{name} <new-name>", summary=f"Rename {noun}s", aliases=("mv",), run=f"{module}:VERBS.rename"
        )
    return {f"{path} {verb}": row for verb, row in found.items()}
