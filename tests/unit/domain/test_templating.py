"""Templates give what pongo2 gives (the expected texts are those of LXD 5.0.2), and what a stranger writes gets nowhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.domain import templating
from atoll.domain.errors import AtollError, BadRequest
from atoll.domain.templating import Limits, Value

CONTEXT: Mapping[str, Value] = {
    "trigger": "create",
    "container": {"name": "c1", "ephemeral": "false", "privileged": "false"},
    "config": {"user.a": "1", "user": "u"},
    "devices": {"root": {"type": "disk", "path": "/"}, "eth0": {"type": "nic"}},
    "properties": {"default": "dflt", "foo": "bar"},
    "items": ["b", "a", "c"],
    "number": 7,
    "config_get": lambda key, default: {"user.x": "set"}.get(key, default),
}

OUTPUTS = [
    ("plain { text } % }} ", "plain { text } % }} "),
    ("{{ container.name }}", "c1"),
    ('{{ config_get("user.x", "d") }}/{{ config_get("user.y", "d") }}', "set/d"),
    ('{{ config_get("user.y", properties.default) }}', "dflt"),
    ("{{ config.none }}{{ none }}{{ none.deeper.still }}", ""),
    ('{{ config["user.a"] }}{{ items.0 }}{{ items.9 }}', "1b"),
    ('{{ none|default:"q" }}{{ ""|default:properties.foo|upper }}', "qBAR"),
    ('{{ "<b>&" }}{{ \'<\'|escape }}{{ "a\\"b" }}', '<b>&&lt;a"b'),
    ("{{ 1+2*3 }} {{ 7/2 }} {{ 7.0/2 }} {{ 7%4 }} {{ -3 }} {{ (1+2)*3 }}", "7 3 3.500000 3 -3 9"),
    ("{{ 0-7/2 }} {{ (0-7)/2 }} {{ (0-7)%2 }}", "-3 -3 -1"),
    ("{{ true }} {{ false }} {{ nil }}", "True False "),
    ('{{ "a,b"|split:","|join:"-" }} {{ container|length }} {{ "abc"|upper|lower|capfirst }}', "a-b 3 Abc"),
    ('{% if container.ephemeral == "false" %}yes{% else %}no{% endif %}', "yes"),
    ("{% if container.ephemeral %}a text is true{% endif %}", "a text is true"),
    ('{% if trigger == "x" %}1{% elif trigger == "create" %}2{% else %}3{% endif %}', "2"),
    ('{% if "7" == 7 %}same{% else %}not{% endif %}{% if number >= 7 and number != 8 %}ok{% endif %}', "notok"),
    ('{% if "a" in "cab" %}1{% endif %}{% if "root" in devices %}2{% endif %}{% if not ("x" in items) %}3{% endif %}', "123"),
    ("{% if true or false and false %}right{% endif %}{% if false and true or true %}no{% endif %}", "right"),
    ("{% if not none == true %}binds tightly{% endif %}", "binds tightly"),
    ("{% for k, v in devices %}{{ k }}={{ v.type }};{% endfor %}", "eth0=nic;root=disk;"),
    ("{% for i in items %}{{ forloop.Counter }}{{ i }}{% if forloop.Last %}!{% endif %}{% endfor %}", "1b2a3c!"),
    ("{% for i in items reversed %}{{ i }}{% endfor %}{% for i in items sorted %}{{ i }}{% endfor %}", "cababc"),
    ("{% for i in none %}x{% empty %}none{% endfor %}{{ i }}", "none"),
    ('{% set q = "v" %}{{ q }}{% with a=1 b=number %}{{ a }}{{ b }}{% endwith %}{{ a }}', "v17"),
    ("a {# no {{ x }} #}b{% comment %}{% if %}{{ c }}{% endcomment %}c", "a bc"),
    ("x \n {%- if true -%} \n y \n {%- endif -%} \n z", "xyz"),
    ("{{- number -}} \n !", "7!"),
    ("{% ifequal 1 1 %}eq{% endifequal %}{% ifnotequal 1 1 %}x{% else %}y{% endifnotequal %}", "eqy"),
    ('{% autoescape off %}{{ "<" }}{% endautoescape %}', "<"),
    ('{{ "}}" }}{{ "%}"|length }}', "}}2"),
    ("line\n{{ trigger }}\n", "line\ncreate\n"),
]


@pytest.mark.parametrize(("source", "expected"), OUTPUTS)
def test_it_gives_what_pongo2_gives(source: str, expected: str) -> None:
    assert templating.render(source, CONTEXT) == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a\n\n{{ x", r"line 3: '}}' is missing"),
        ("{% if true %}", "'endif' is missing at the end"),
        ("\n{% endif %}", r"line 2: the tag 'endif' is not known, or out of place"),
        ("{% if %}{% endif %}", "a value is missing"),
        ("{{ a b }}", "'b' is not expected"),
        ("{{ 1 | nofilter }}", "no filter 'nofilter'"),
        ("{{ trigger.x }}", "'trigger' has no field 'x'"),
        ("{{ trigger() }}", "'trigger' is not a function"),
        ('{{ config_get("user.x") }}', "does not take 1 argument"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% frobnicate %}", "the tag 'frobnicate'"),
        ("{{ }}", "a value is missing"),
        ("{{ $ }}", "not understood"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(source: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words) as raised:
        templating.render(source, CONTEXT)
    assert raised.value.message.startswith("line ") or "at the end" in raised.value.message


FILES = ["include", "extends", "import", "ssi", "macro", "block"]


@pytest.mark.parametrize("tag", FILES)
@pytest.mark.parametrize("path", ["/etc/shadow", "../../../etc/shadow", "/proc/self/environ"])
def test_no_tag_reaches_a_file_cve_2025_54287_2026_33897(tag: str, path: str) -> None:
    for source in (
        f'{{% {tag} "{path}" %}}',
        f'{{% {tag} "{path}" parsed %}}',
        f'{{% if false %}}{{% {tag} "{path}" %}}{{% endif %}}',
    ):
        with pytest.raises(BadRequest, match="not allowed"):
            templating.render(source, CONTEXT)


@pytest.mark.parametrize(
    "expression",
    [
        "trigger.__class__",
        "container.__class__.__mro__",
        "config_get.__globals__",
        'config_get["__globals__"]',
        'config_get.__self__.open("/etc/shadow")',
        'container.get("name")',
        'items.append("x")',
        "''.format",
        "self",
        "__builtins__",
        "__import__",
        'open("/etc/shadow")',
        "number.real",
        "items.__len__",
    ],
)
def test_python_cannot_be_seen(expression: str) -> None:
    try:
        assert templating.render(f"{{{{ {expression} }}}}", CONTEXT) == ""
    except BadRequest as error:
        assert "shadow" not in error.message


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in s %}" * 5 + "{{ a }}" + "{% endfor %}" * 5,
        '{% set a = "x" %}' + "{% set a = a + a %}" * 60 + "{{ a }}",
        "{{ 9999999999999999*9999999999999999*9999999999999999 }}",
        '{{ "x"|ljust:999999999 }}',
        "{% for a in s %}{{ s }}{{ s }}{{ s }}{{ s }}{% endfor %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ 1" + " and 1" * 5000 + " }}",
        "{% if true %}" * 5000 + "{% endif %}" * 5000,
        "x" * (1 << 20),
        "{{" * 100_000,
        "{{ '" + "\\" * 200_000,
        "{# " * 80_000,
    ],
)
def test_a_bomb_ends_soon(source: str) -> None:
    started = time.process_time()
    with pytest.raises(AtollError):
        templating.render(source, {"s": "x" * 1000, "a": ""})
    assert time.process_time() - started < 5


def test_the_output_and_the_time_have_limits() -> None:
    with pytest.raises(BadRequest, match="more than 10 characters"):
        templating.render("12345678901", {}, limits=Limits(output=10))
    with pytest.raises(AtollError, match="longer than 0 seconds"):
        templating.render("{{ 1 }}", {}, limits=Limits(seconds=0))


def test_what_is_set_in_a_loop_stays_there_and_in_an_if_does_not() -> None:
    assert templating.render("{% for a in s %}{% set b = a %}{% endfor %}{{ b }}", {"s": "xy"}) == ""
    assert templating.render("{% if true %}{% set b = 1 %}{% endif %}{{ b }}", {}) == "1"


_SIGNS = ["{{", "}}", "{%", "%}", "{#", "#}", "-", " ", "\n", '"', "'", "\\", ".", "|", "(", ")", "==", ":", ",", "=", "[", "]"]
_WORDS = ["if", "else", "endif", "for", "in", "endfor", "with", "endwith", "set", "include", "not", "and", "default", "a", "x"]
PARTS = st.sampled_from(_SIGNS + _WORDS)


@settings(max_examples=400, deadline=None)
@given(st.lists(PARTS, max_size=40).map(" ".join) | st.lists(PARTS, max_size=40).map("".join) | st.text(max_size=80))
def test_any_text_is_rendered_or_refused(source: str) -> None:
    try:
        assert isinstance(templating.render(source, CONTEXT), str)
    except AtollError as error:
        assert error.message


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200).filter(lambda text: not any(mark in text for mark in ("{{", "{%", "{#"))))
def test_text_without_tags_is_left_alone(text: str) -> None:
    assert templating.render(text, {}) == text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_a_value_is_never_taken_for_a_template(value: str) -> None:
    assert templating.render("[{{ v }}]", {"v": value}) == f"[{value}]"
