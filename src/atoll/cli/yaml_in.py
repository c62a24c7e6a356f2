"""YAML that people write: read as data, with configuration values kept as the words they typed."""

from __future__ import annotations

from atoll.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Every scalar below one of these keys is a text: `limits.cpu: 2` means "2", `user.pin: 0123` means "0123".
TEXT_MAPS = frozenset(("config", "devices", "properties", "aliases"))
MAX_BYTES = 1 << 20


def load(text: str) -> Any:
    """The value of one YAML document; CommandError when it is not YAML."""
    import yaml

    if len(text) > MAX_BYTES:
        raise CommandError("The YAML document is too large")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _value(node, as_text=False)
    except (yaml.YAMLError, RecursionError) as error:
        raise CommandError(f"yaml: {error}") from error


def mapping(text: str) -> dict[str, Any]:
    """`load`, for a document that has to be a mapping; an empty one is an empty mapping."""
    value = load(text)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CommandError("yaml: the document is not a mapping")
    return value


def _value(node: Any, *, as_text: bool) -> Any:
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {key.value: _value(item, as_text=as_text or key.value in TEXT_MAPS) for key, item in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, as_text=as_text) for item in node.value]
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return "" if as_text else None
    if not as_text and kind == "bool":
        return node.value.lower() in ("true", "yes", "on", "y")
    if not as_text and kind == "int":
        return int(node.value.replace("_", ""), 0)
    return node.value
