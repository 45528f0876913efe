"""Type checks of a data entry's options against the annotations of its source."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from inspect import isclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from kdkit.core.base.errors import KdkitError


def check_types(what: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check options without conversion; annotations that pydantic does not know are not checked.

    Raises:
        KdkitError: an option has another type.
    """
    # Options of a class are those of __init__, except for a dataclass, whose fields are its options.
    annotated = factory.__init__ if isclass(factory) and not is_dataclass(factory) else factory
    try:
        hints = typing.get_type_hints(annotated)
    except Exception:  # a plugin's annotations may be unreadable
        return
    for name, value in options.items():
        if value is None or name not in hints:
            continue
        try:
            TypeAdapter(hints[name]).validate_json(json.dumps(value, default=str), strict=True)
        except PydanticUserError:
            continue
        except ValidationError as error:
            reasons = dict.fromkeys(detail["msg"] for detail in error.errors())
            raise KdkitError(
                "KD-DATA-012",
                f"{what}: option '{name}' is {value!r}",
                why=" or ".join(reasons),
                fix="write a value of that type in registry.yaml",
            ) from None
