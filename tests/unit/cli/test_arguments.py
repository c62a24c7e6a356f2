"""The parser's rules: those of cobra and pflag."""

from __future__ import annotations

import pytest

from atoll.cli import arguments
from atoll.cli.errors import CommandError, UsageError
from atoll.cli.spec import option, switch

FLAGS = (
    switch("force", "", short="f"),
    switch("quiet", "", short="q"),
    option("format", "", short="F", default="table"),
    option("config", "", short="c", kind="list"),
    option("timeout", "", kind="int", default="-1"),
    option("console", "", implied="console"),
)


def parse(*words: str) -> tuple[arguments.Flags, list[str]]:
    flags = arguments.Flags(FLAGS)
    return flags, arguments.parse(list(words), flags)


@pytest.mark.parametrize(
    "words", [("--format", "csv"), ("--format=csv",), ("-F", "csv"), ("-Fcsv",), ("-F=csv",), ("-qFcsv",), ("-qF", "csv")]
)
def test_every_way_to_give_a_value(words: tuple[str, ...]):
    flags, rest = parse("a", *words, "b")
    assert (flags.text("format"), rest) == ("csv", ["a", "b"])


def test_defaults_lists_and_the_end_of_flags():
    flags, rest = parse("-c", "a=1", "--config=b=2", "--console", "x", "--", "-f", "--", "y")
    assert flags.every("config") == ["a=1", "b=2"]
    assert (flags.text("format"), flags.number("timeout"), flags.text("console")) == ("table", -1, "console")
    assert (flags.on("force"), flags.given("format"), rest) == (False, False, ["x", "-f", "--", "y"])


def test_a_switch_can_be_turned_off_and_a_dash_is_an_argument():
    flags, rest = parse("--force=false", "-")
    assert (flags.on("force"), flags.given("force"), rest) == (False, True, ["-"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nope",), "unknown flag: --nope"),
        (("-fx",), "unknown shorthand flag: 'x' in -x"),
        (("-la",), "unknown shorthand flag: 'l' in -la"),
        (("--format",), "flag needs an argument: --format"),
        (("-F",), "flag needs an argument: 'F' in -F"),
        (("--timeout", "x"), 'invalid argument "x" for "--timeout" flag: strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
def test_messages(words: tuple[str, ...], message: str):
    with pytest.raises(CommandError) as caught:
        parse(*words)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ("", (0, 0)),
        ("[<remote>:]", (0, 1)),
        ("[<remote>:]<image> [<remote>:][<name>]", (1, 2)),
        ("[<remote>:]<instance> [[<remote>:]<instance>...]", (1, None)),
        ("[<remote>:][<instance>] <key>", (1, 2)),
        ("[<remote>:]<network> <instance> [<device name>] [<interface name>]", (2, 4)),
        ("[<remote>:]<instance> [flags] [--] <command line>", (2, None)),
        ("[<remote>:]<instance> <name>...", (2, None)),
    ],
)
def test_a_usage_text_says_how_many_arguments_there_may_be(usage: str, expected: tuple[int, int | None]):
    assert arguments.bounds(usage) == expected


def test_a_call_without_arguments_is_told_from_a_wrong_one():
    for given, bare in (([], True), (["a", "b"], False)):
        with pytest.raises(UsageError) as caught:
            arguments.check_count("<one>", given)
        assert caught.value.bare is bare
