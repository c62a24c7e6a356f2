"""null in request bodies: clients written for LXD's decoder send it for any field that they have nothing for.

It means what an absent field means; in a map or a list it is the empty text or map.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from msgspec import inspect


def dropped(value: Any, kind: Any) -> Any:
    """Decoded JSON for a wire type, without its nulls."""
    return _clean(value, _info(kind))


@lru_cache(maxsize=256)
def _info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _clean(value: Any, kind: inspect.Type) -> Any:
    kind = _certain(kind)
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        return {name: _clean(each, fields.get(name, inspect.AnyType())) for name, each in value.items() if each is not None}
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        return {name: _filled(each, kind.value_type) for name, each in value.items()}
    if isinstance(kind, inspect.ListType) and isinstance(value, list):
        return [_filled(each, kind.item_type) for each in value]
    return value


def _filled(value: Any, kind: inspect.Type) -> Any:
    if value is not None:
        return _clean(value, kind)
    if isinstance(kind, inspect.StrType):
        return ""
    return {} if isinstance(kind, (inspect.DictType, inspect.StructType)) else None


def _certain(kind: inspect.Type) -> inspect.Type:
    """What a type is where it is not null."""
    if not isinstance(kind, inspect.UnionType):
        return kind
    return next((each for each in kind.types if not isinstance(each, inspect.NoneType)), kind)
