"""Tables, natural order, times and YAML look as users of LXD's client know them."""

from __future__ import annotations

import pytest
import yaml

from atoll.cli import output, times, yaml_in, yaml_out

ROWS = [["c1", "RUNNING", "a: b\n c"], ["c10", "", "日本"]]
TABLE = """\
+------+---------+-----------+
| NAME |  STATE  | USER NOTE |
+------+---------+-----------+
| c1   | RUNNING | a: b      |
|      |         |  c        |
+------+---------+-----------+
| c10  |         | 日本      |
+------+---------+-----------+
"""
COMPACT = """\
  NAME   STATE   USER NOTE  
  c1    RUNNING  a: b       
                  c         
  c10            日本       
"""  # noqa: W291


def test_table_and_compact():
    header = ("NAME", "STATE", "user.note")
    assert output.render("table", header, ROWS, None) == TABLE
    assert output.render("compact", header, ROWS, None) == COMPACT


def test_csv_quotes_what_needs_it():
    rows = [["a", "b,c", 'd"e', " f", "g\nh", ""]]
    assert output.render("csv", (), rows, None) == 'a,"b,c","d""e"," f","g\nh",\n'


def test_natural_order():
    names = ["c10", "c2", "a", "c", "c2b10", "c2b9"]
    assert sorted(names, key=output.natural) == ["a", "c", "c2", "c2b9", "c2b10", "c10"]


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("1970-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("2026-11-22T08:13:44.321964553Z", 1795335224),
        ("2024-02-29T23:59:59+02:00", 1709243999),
        ("2000-03-01T00:00:00-05:30", 951888600),
    ],
)
def test_seconds(stamp: str, expected: int | None):
    assert times.seconds(stamp) == expected


def test_long_times_and_sizes():
    assert times.long("2026-11-22T08:13:44Z") == "Nov 22, 2026 at 8:13am (UTC)"
    assert times.long("2026-11-02T00:03:44Z") == "Nov 2, 2026 at 12:03am (UTC)"
    assert [times.binary_size(n) for n in (0, 1023, 1024, 655360, 24 * 2**30)] == [
        "0B", "1023B", "1.00KiB", "640.00KiB", "24.00GiB",
    ]  # fmt: skip
    assert times.decimal_size(1500) == "1.50kB"


# As `lxc config show` prints them.
SCALARS = {
    "a: b": "'a: b'", "- x": "'- x'", "#x": "'#x'", " lead": "' lead'", "trail ": "'trail '", "a #b": "'a #b'",
    "1.5": '"1.5"', "null": '"null"', "~": '"~"', "it's": "it's", 'a"b': 'a"b', "é": "é", "2026-01-01": '"2026-01-01"',
    "a:": "'a:'", "*x": "'*x'", "{x": "'{x'", "x]": "x]", "a, b": "a, b", "tab\tx": '"tab\\tx"', "%x": "'%x'",
    "@x": "'@x'", "=": "=", "on": '"on"', "1_000": '"1_000"', "!x": "'!x'", "a:b": "a:b", "?": "'?'", "- ": "'- '",
    ".": ".", "1e3": '"1e3"', "12:30:45": '"12:30:45"', "0o7": '"0o7"', "010": '"010"', "y": '"y"', "日本": "日本",
    ".inf": '".inf"', "TRUE": '"TRUE"', "😀": '"\\U0001F600"', "-.5": '"-.5"', "+12": '"+12"', "a? b": "a? b",
    "&a": "'&a'", "|": "'|'", "`x": "'`x'", "?x": "?x", "? x": "'? x'", ",x": "',x'", "esc\x1b": '"esc\\e"', "": '""',
    "yes": '"yes"', "0x1f": '"0x1f"', "a \nb": '"a \\nb"', "<<": "<<",
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_yaml_quotes_as_go_does(text: str):
    assert yaml_out.dump({"k": text}) == f"k: {SCALARS[text]}\n"


@pytest.mark.parametrize("text", [*SCALARS, "a\nb", "a\n", "\n", " a\nb", "a\n\n", "word " * 60 + "end", "x" * 200])
def test_yaml_can_be_read_back(text: str):
    value = {"config": {"k": text, "other": "1"}, "list": [text, {"a": text}]}
    if text == "<<":
        value["list"] = []  # a merge key to YAML 1.1 readers where it stands alone
    assert yaml.load(yaml_out.dump(value), Loader=yaml.BaseLoader) == value


def test_long_lines_are_folded():
    shown = yaml_out.dump({"config": {"user.long": "word " * 40 + "end"}}).splitlines()
    assert shown[1] == "  user.long: " + " ".join(["word"] * 14)
    assert shown[2] == "    " + " ".join(["word"] * 16)


def test_configuration_values_stay_what_was_typed():
    text = "ephemeral: true\nconfig:\n  limits.cpu: 2\n  user.pin: 0123\n  user.on: yes\n  user.none:\ncount: 0x10\n"
    assert yaml_in.mapping(text) == {
        "ephemeral": True,
        "config": {"limits.cpu": "2", "user.pin": "0123", "user.on": "yes", "user.none": ""},
        "count": 16,
    }
