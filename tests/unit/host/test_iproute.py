"""Batches of network changes."""

from __future__ import annotations

import pytest

from atoll.domain.errors import BadRequest
from atoll.host import iproute


def test_one_line_a_change() -> None:
    changes = [("link", "set", "dev", "br0", "up"), ("address", "add", "fd42::1/64", "dev", "br0")]
    assert iproute.script(changes) == "link set dev br0 up\naddress add fd42::1/64 dev br0\n"


@pytest.mark.parametrize("word", ["a b", "a\nb", "a\0b", 'a"b', "", "a#b", "a;b", "a\\b", "a'b"])
def test_a_word_stays_a_word(word: str) -> None:
    with pytest.raises(BadRequest):
        iproute.script([("link", "set", "dev", word)])
