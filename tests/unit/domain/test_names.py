"""Names: what goes in comes out or is a BadRequest; nothing that comes out leads anywhere else."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain import names
from atoll.domain.errors import BadRequest

Validator = Callable[[str], str]

SEGMENTS: tuple[Validator, ...] = (
    names.instance,
    names.snapshot,
    names.backup,
    names.project,
    names.profile,
    names.storage_pool,
    names.volume,
    names.network,
    names.interface,
    names.fingerprint,
    names.filename,
    names.log_file,
)
"""Validators of what may become one segment of a path or a word of a command line."""


@given(
    st.sampled_from((*SEGMENTS, names.image_alias, names.device)),
    st.text(st.characters(exclude_categories=())) | st.text(alphabet="./-a0 :\0\n", max_size=8),
)
def test_any_text_is_itself_or_refused(validate: Validator, text: str) -> None:
    try:
        assert validate(text) == text
    except BadRequest:
        return
    assert text and not text.startswith("-")
    assert text.encode()
    assert not any(unicodedata.category(character) == "Cc" for character in text)
    assert text not in (".", "..")
    if validate not in (names.image_alias, names.device):
        assert "/" not in text


@pytest.mark.parametrize(
    ("validate", "good", "bad"),
    [
        (names.instance, ["a", "c1", "A-b", "a" * 63], ["", "1a", "-a", "a-", "a_b", "a.b", "a" * 64, "ä", "a\n", "a/b"]),
        (names.snapshot, ["snap0", "x_y", "ä", "a" * 255], ["a b", "a/b", "..", "", "a" * 256]),
        (names.project, ["p", "p-1", "p.q"], ["a_b", "a b", "'", '"', "*", "..", "a" * 64]),
        (names.backup, ["backup0"], [".x", "a b", "", "a" * 201]),
        (names.profile, ["default", "a b"], ["", "-x", "a/b", "a" * 65, "\ud800", "\u202e"]),
        (names.storage_pool, ["local"], ["a b", "", "-x"]),
        (names.volume, ["v", "a.b"], ["a b", "", "a" * 129]),
        (names.network, ["br0", "lxdbr-1"], ["b", "a.1", "a:1", "a" * 16, "ä0"]),
        (names.interface, ["lo", "eth0.5", "a:b", "e"], ["", ".", "..", "-e", "a" * 16, "a b", "a/b", "eth0\n"]),
        (names.device, ["eth0", "root", "/foo", "::1", "a/../b"], ["", ".x", "..", "../x", "-x", "a\n", "a" * 65]),
        (names.image_alias, ["debian/12", "x y", "a//b"], ["", "../x", "a/../b", "-x", "a\nb", "a" * 256]),
        (names.fingerprint, ["0", "a" * 64], ["", "A", "g", "a" * 65, "%", "a\n"]),
        (names.filename, ["x.tar.gz"], ["a/b", "", ".."]),
        (names.log_file, ["lxc.log", "exec_1.stdout"], ["", ".", "..", "-x", "a b", "a/b", "ä", "x\n"]),
    ],
)
def test_examples(validate: Validator, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert validate(text) == text
    for text in bad:
        with pytest.raises(BadRequest):
            validate(text)
