"""The command tables are whole: every row can run, and the top level repeats what the families say."""

from __future__ import annotations

import pytest

from atoll.cli import arguments, help, main, table
from atoll.cli.errors import CommandError
from atoll.cli.spec import GLOBAL_FLAGS

FAMILIES = sorted({family for family, _ in table.TOP.values()})
ROWS = {path: row for family in FAMILIES for path, row in table.family(family).items()}


def test_the_top_level_and_the_families_agree():
    assert {path: row.summary for path, row in ROWS.items() if " " not in path} == {
        name: summary for name, (_, summary) in table.TOP.items()
    }
    assert {path for path, row in ROWS.items() if row.hidden} == set(table.HIDDEN)
    aliases = {alias: path for path, row in ROWS.items() if " " not in path for alias in row.aliases}
    assert aliases == table.TOP_ALIASES


@pytest.mark.parametrize("path", ROWS)
def test_each_row(path: str):
    row = ROWS[path]
    names = [flag.name for flag in (*row.flags, *GLOBAL_FLAGS)]
    letters = [flag.short for flag in (*row.flags, *GLOBAL_FLAGS) if flag.short]
    assert len(set(names)) == len(names)
    assert len(set(letters)) == len(letters)
    assert help.command(path, row).startswith(f"Description:\n  {row.summary}\n")
    assert "LXD" not in help.command(path, row)
    if row.run:
        assert callable(main._function(row.run))
        arguments.bounds(row.usage)
    else:
        assert table.children(path)
    parent = path.rpartition(" ")[0]
    assert not parent or not ROWS[parent].run


def test_finding_by_alias_and_through_flags():
    assert table.find(["ls", "x"])[0::2] == ("list", ["x"])
    assert table.find(["config", "--project", "p", "device", "rm", "c1", "d"])[0::2] == (
        "config device remove",
        ["--project", "p", "c1", "d"],
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["foo"], 'unknown command "foo" for "atoll"'),
        (["config", "foo"], 'unknown command "foo" for "atoll config"'),
        (["laucnh"], 'unknown command "laucnh" for "atoll"\n\nDid you mean this?\n\tlaunch'),
        (["config", "shwo"], 'unknown command "shwo" for "atoll config"\n\nDid you mean this?\n\tshow'),
    ],
)
def test_unknown_commands(words: list[str], message: str):
    with pytest.raises(CommandError) as caught:
        table.find(words)
    assert str(caught.value) == message
