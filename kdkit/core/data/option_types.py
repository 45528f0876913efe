"""Whether options of a data entry are of the types that its source names: no text where a number belongs."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from inspect import isclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from kdkit.core.base.errors import KdkitError

_PLAIN: Mapping[object, tuple[str, Callable[[object], bool]]] = {
    str: ("a text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    Mapping: ("names with values: {name: value}", lambda value: isinstance(value, Mapping)),
    Sequence: ("a list", lambda value: isinstance(value, list | tuple)),
}
_SAME: Mapping[object, object] = {dict: Mapping, list: Sequence, tuple: Sequence}


def check_types(what: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Compare options with the annotations of the factory, as far as these are plain.

    Raises:
        KdkitError: naming the option and what it should be.
    """
    try:
        hints = typing.get_type_hints(_called(factory))
    except Exception:  # annotations of somebody else's that cannot be read say nothing
        return
    for name, value in options.items():
        wanted = _wanted(hints.get(name, Any))
        if value is None or not wanted:
            continue
        if not any(fits(value) for _, fits in wanted):
            words = " or ".join(word for word, _ in wanted)
            raise KdkitError("KD-DATA-012", f"{what}: option '{name}' is {value!r}, not {words}")


def _called(factory: Callable[..., Any]) -> Any:
    """What takes the options: of a class its ``__init__``, whose names its attributes need not share; the fields of a
    data class are its options, each read where it was written."""
    return factory.__init__ if isclass(factory) and not is_dataclass(factory) else factory


def _wanted(hint: Any) -> list[tuple[str, Callable[[object], bool]]]:
    """What an annotation allows besides None; empty where that is not plain."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [_kind(part) for part in parts if part is not NoneType]
    return [_PLAIN[kind] for kind in kinds] if all(kind in _PLAIN for kind in kinds) else []


def _kind(part: Any) -> object:
    kind = get_origin(part) or part
    if kind is typing.Literal and all(isinstance(value, str) for value in get_args(part)):
        return str
    return _SAME.get(kind, kind)
