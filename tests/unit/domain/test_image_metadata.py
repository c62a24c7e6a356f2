"""metadata.yaml: what is read, what is refused and by which name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain import clock, image_metadata
from atoll.domain.errors import BadRequest
from atoll.domain.image_metadata import ImageMetadata, Template, Trigger

WHOLE: dict[str, Any] = {
    "architecture": "x86_64",
    "creation_date": 1424284563,
    "expiry_date": 1500000000,
    "properties": {"os": "Debian", "release": "bookworm"},
    "templates": {
        "/etc/hosts": {"when": ["create", "rename"], "create_only": True, "template": "hosts.tpl", "properties": {"foo": "bar"}}
    },
}

NODES = [
    ("architecture",),
    ("creation_date",),
    ("expiry_date",),
    ("properties",),
    ("properties", "os"),
    ("templates",),
    ("templates", "/etc/hosts"),
    ("templates", "/etc/hosts", "when"),
    ("templates", "/etc/hosts", "when", 0),
    ("templates", "/etc/hosts", "create_only"),
    ("templates", "/etc/hosts", "template"),
    ("templates", "/etc/hosts", "properties"),
    ("templates", "/etc/hosts", "properties", "foo"),
]


def changed(node: tuple[Any, ...], value: object) -> bytes:
    """The whole text with one node of another value."""
    tree = copy.deepcopy(WHOLE)
    inner: Any = tree
    for key in node[:-1]:
        inner = inner[key]
    inner[node[-1]] = value
    return yaml.safe_dump(tree).encode()


def test_reads_every_node() -> None:
    assert image_metadata.parse(yaml.safe_dump(WHOLE).encode()) == ImageMetadata(
        architecture="x86_64",
        creation_date=1424284563,
        expiry_date=1500000000,
        properties={"os": "Debian", "release": "bookworm"},
        templates={"/etc/hosts": Template((Trigger.CREATE, Trigger.RENAME), "hosts.tpl", True, {"foo": "bar"})},
    )


def test_the_least_there_can_be() -> None:
    assert image_metadata.parse(b"architecture: amd64\ncreation_date: 1\n") == ImageMetadata("x86_64", 1)


def test_unquoted_values_keep_their_spelling() -> None:
    head = b"architecture: x86_64\ncreation_date: 1\n"
    text = head + b"properties: {a: 0755, b: 2024-01-01, c: 20240101, d: 1_0, e: yes, f: 1e3, g: true}"
    assert image_metadata.parse(text).properties == {
        "a": "0755", "b": "2024-01-01", "c": "20240101", "d": "1_0", "e": "yes", "f": "1e3", "g": "true",
    }  # fmt: skip


@pytest.mark.parametrize("node", NODES, ids=lambda node: ".".join(map(str, node)))
@pytest.mark.parametrize("value", [None, [[]], {"x": {}}, b"\0"], ids=["null", "list", "mapping", "binary"])
def test_a_node_of_a_wrong_type_is_named(node: tuple[Any, ...], value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        image_metadata.parse(changed(node, value))
    assert str(node[0]) in caught.value.message


@pytest.mark.parametrize(
    "node", [("architecture",), ("creation_date",), ("templates", "/etc/hosts", "template"), ("templates", "/etc/hosts", "when")]
)
def test_a_missing_node_is_named(node: tuple[Any, ...]) -> None:
    tree = copy.deepcopy(WHOLE)
    inner: Any = tree
    for key in node[:-1]:
        inner = inner[key]
    del inner[node[-1]]
    with pytest.raises(BadRequest, match=str(node[-1])):
        image_metadata.parse(yaml.safe_dump(tree).encode())


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/abs", "a\nb", "x" * 300])
def test_template_names_stay_in_their_folder(name: str) -> None:
    with pytest.raises(BadRequest, match="template"):
        image_metadata.parse(changed(("templates", "/etc/hosts", "template"), name))


@pytest.mark.parametrize("path", ["etc/hosts", "/etc/../../x", "", "/a\nb"])
def test_template_targets_are_absolute(path: str) -> None:
    with pytest.raises(BadRequest, match="absolute path"):
        image_metadata.parse(changed(("templates",), {path: WHOLE["templates"]["/etc/hosts"]}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "mapping"),
        (b"- x", "mapping"),
        (b"1: 2", "key"),
        (b"a: [", "not valid YAML"),
        (b"\xff\xfe\xff", "not valid YAML"),
        (b"[" * 100_000, "nested deeper"),
        (b"a: &a [*a]", "missing"),
        (b"&a [" + b"*a," * 20 + b"]", "aliases"),
        (b"a: !!python/object/apply:os.system [id]", "not valid YAML"),
        (b"architecture: x86_64\ncreation_date: " + b"9" * 9000, "not valid YAML"),
        (b"[" + b"x," * 30_000 + b"]", "nodes"),
        (b"#" * (image_metadata.MAX_BYTES + 1), "longer than"),
        (b"architecture: z80\ncreation_date: 1", "z80"),
        (b"architecture: x86_64\ncreation_date: -1", "out of range"),
    ],
)
def test_hostile_texts_are_refused(text: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        image_metadata.parse(text)


def test_an_alias_bomb_costs_nothing() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 40)]
    with pytest.raises(BadRequest, match="aliases"):
        image_metadata.parse("\n".join(lines).encode())


names = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)


@given(
    st.builds(
        ImageMetadata,
        architecture=st.sampled_from(["x86_64", "aarch64", "riscv64"]),
        creation_date=st.integers(0, clock.LATEST),
        expiry_date=st.integers(0, clock.LATEST),
        properties=st.dictionaries(names, names, max_size=5),
        templates=st.dictionaries(
            st.just("/etc/hostname"),
            st.builds(
                Template,
                when=st.lists(st.sampled_from(Trigger)).map(tuple),
                template=st.just("x.tpl"),
                create_only=st.booleans(),
                properties=st.dictionaries(names, names, max_size=3),
            ),
        ),
    )
)
def test_what_is_written_is_read_back(metadata: ImageMetadata) -> None:
    assert image_metadata.parse(image_metadata.dump(metadata)) == metadata
