from __future__ import annotations

from collections.abc import Mapping

import pytest

from atoll.config.table import Guard, Key, KeyTable
from atoll.config.values import BLOB, BOOL, INTEGER, SIZE, TEXT
from atoll.domain.errors import BadRequest


def _refuse_a_and_b(config: Mapping[str, str]) -> None:
    if config.get("a.flag") and config.get("a.count"):
        raise BadRequest("a.flag and a.count are mutually exclusive")


def _refuse_seven(text: str) -> None:
    if text == "7":
        raise ValueError("Seven is taken")


TABLE = KeyTable(
    "test",
    (
        Key("a.flag", BOOL, "true"),
        Key("a.count", INTEGER, "", check=_refuse_seven),
        Key("a.size", SIZE, "1kB", guard=Guard.OPEN),
        Key("tunnel.*.id", INTEGER, wild="[a-z]+"),
        Key("user.special", INTEGER),
        Key("user.*", BLOB, guard=Guard.OPEN),
        Key("user.*.late", INTEGER),
    ),
    rules=(_refuse_a_and_b,),
)


def test_exact_names_go_before_families_and_earlier_families_before_later() -> None:
    names = {name: key.name for name in ("a.flag", "user.special", "user.x", "user.x.late") if (key := TABLE.find(name))}
    assert names == {"a.flag": "a.flag", "user.special": "user.special", "user.x": "user.*", "user.x.late": "user.*"}


@pytest.mark.parametrize(
    "name",
    ["", "a", "a.flagx", "user.", "user", "tunnel..id", "tunnel.a.b.id", "tunnel.A.id", "user.a b", "user.a\nb", "user.a=b",
     "user.*x\0", "user." + "x" * 300, "tunnel.*.id"],
)  # fmt: skip
def test_unknown_names(name: str) -> None:
    assert TABLE.find(name) is None
    assert TABLE.guard(name) is Guard.LOW_LEVEL
    with pytest.raises(BadRequest, match="Unknown configuration key: "):
        TABLE.validate({name: "1"})


def test_a_message_escapes_the_name_it_does_not_know() -> None:
    with pytest.raises(BadRequest) as caught:
        TABLE.validate({"a\nb": "1"})
    assert caught.value.message == "Unknown configuration key: a\\nb"


def test_an_empty_value_is_valid_everywhere() -> None:
    TABLE.validate({"a.flag": "", "a.count": "", "user.x": ""})


def test_an_invalid_value_names_its_key_and_says_why() -> None:
    with pytest.raises(BadRequest) as caught:
        TABLE.validate({"a.flag": "maybe"})
    assert caught.value.message == 'Invalid value for configuration key "a.flag": Invalid value for a boolean "maybe"'


def test_the_check_of_a_row_and_the_rules_of_a_table_count() -> None:
    with pytest.raises(BadRequest, match="Seven is taken"):
        TABLE.validate({"a.count": "7"})
    with pytest.raises(BadRequest, match="mutually exclusive"):
        TABLE.validate({"a.count": "8", "a.flag": "1"})


def test_a_value_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest, match="must be a string"):
        TABLE.validate({"a.count": 8})  # type: ignore[dict-item]  # what a careless JSON decoder would hand over


def test_typed_values_and_defaults() -> None:
    assert TABLE.get({}, "a.flag") is True
    assert TABLE.flag({"a.flag": "no"}, "a.flag") is False
    assert TABLE.number({}, "a.size") == 1000
    assert TABLE.number({}, "a.count") is None
    assert TABLE.number({"tunnel.x.id": "4"}, "tunnel.x.id") == 4
    assert TABLE.text({}, "a.size") == "1kB"
    assert TABLE.text({}, "user.x") == ""
    assert TABLE.defaults() == {"a.flag": "true", "a.size": "1kB"}


def test_a_stored_value_is_checked_again_when_it_is_read() -> None:
    with pytest.raises(BadRequest, match=r"a\.count"):
        TABLE.get({"a.count": "x"}, "a.count")


def test_asking_for_an_undeclared_key_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        TABLE.get({}, "nothing")


def test_a_row_that_says_nothing_is_low_level() -> None:
    assert Key("x", TEXT).guard is Guard.LOW_LEVEL
