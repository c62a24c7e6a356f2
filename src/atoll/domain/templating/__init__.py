"""Templates of images: the part of pongo2 (a Go kin of Django's templates) that LXD's image templates use, written to be safe.

    {{ container.name }}  {{ config_get("user.x", "default") }}  {{ properties.x|default:"y"|upper }}
    {% if a == "b" and not c %}…{% elif … %}…{% else %}…{% endif %}   {% for key, value in devices %}…{% empty %}…{% endfor %}
    {% set a = "b" %}  {% with a="b" %}…{% endwith %}  {% comment %}…{% endcomment %}  {# … #}  and {%- … -%} to trim

A template is a stranger's program, so this is a language without ways out: its values are plain data (text, numbers, flags,
lists, maps) and the functions that the caller gives it; there are no attributes of objects, no files, no other templates. Its
work, its output and its time have limits. Everything wrong with one is a BadRequest that names the line.

Oddities are pongo2's, because templates rely on them: `not` binds tighter than `==`, `and` and `or` have the same rank and group
to the right, "false" is a text and therefore true, a name that is not there is nothing and prints as nothing, nothing is escaped.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from atoll.domain.errors import BadRequest
from atoll.domain.templating import tags
from atoll.domain.templating.scope import Limits, Scope
from atoll.domain.templating.values import Function, Value

__all__ = ["Function", "Limits", "Value", "render"]

DEFAULT_LIMITS = Limits()

_SHORT = 16 << 10
_parse_again = functools.lru_cache(maxsize=64)(tags.parse)
"""The instances of an image have the same templates, which hold no state once they are parsed."""


def render(source: str, variables: Mapping[str, Value], *, limits: Limits = DEFAULT_LIMITS) -> str:
    """The text that a template gives with these variables. BadRequest for one that is malformed, fails, or exceeds a limit."""
    if len(source) > limits.source:
        raise BadRequest(f"The template is longer than {limits.source} characters")
    nodes = _parse_again(source) if len(source) <= _SHORT else tags.parse(source)
    scope = Scope(variables, limits)
    for node in nodes:
        node(scope)
    return scope.result()
