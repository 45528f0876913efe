"""YAML text -> pydantic model; errors have ``file:line`` and the closest known key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError

from kdkit.core.base.errors import KdkitError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Located:
    """A parsed YAML document with its line numbers. Others may hold the same ``tree``: it is read only."""

    origin: str
    tree: Any

    @property
    def plain(self) -> Any:
        """The document in plain Python types."""
        return _plain(self.tree)

    def where(self, place: Place) -> str:
        """``file:line`` of the deepest part of ``place`` (keys and indices from the top) that exists."""
        node, line = self.tree, 0
        for step in place:
            if isinstance(node, CommentedMap) and step in node:
                line = node.lc.key(step)[0]
            elif isinstance(node, CommentedSeq) and isinstance(step, int) and step < len(node):
                line = node.lc.item(step)[0]
            else:
                break
            node = node[step]
        return f"{self.origin}:{line + 1}"


def read_model(model: type[Model], text: str, origin: str) -> tuple[Model, Located]:
    """Parse and validate ``text``.

    Args:
        model: what the file must be.
        text: YAML 1.2.
        origin: the file's name, for messages.

    Raises:
        KdkitError: invalid YAML, an unknown or missing key, or a wrong value.
    """
    located = read_mapping(text, origin)
    return validate_at(model, located.plain, located), located


def read_mapping(text: str, origin: str) -> Located:
    """Parse ``text`` alone.

    Raises:
        KdkitError: invalid YAML, or no mapping.
    """
    located = Located(origin, _parse(text, origin))
    if not isinstance(located.tree, CommentedMap):
        raise KdkitError("KD-BASE-003", "not a mapping", where=f"{origin}:1", fix="write 'key: value' lines")
    return located


def validate_at(model: type[Model], data: Any, located: Located, place: Place = ()) -> Model:
    """Validate ``data``, which stand at ``place`` of the document or are made from what stands there.

    Raises:
        KdkitError: an unknown or missing key, or a wrong value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(model, located, error, place) from None


def _parse(text: str, origin: str) -> Any:
    try:
        return _tree(text)
    except DuplicateKeyError as error:
        key = str(error.problem).split('"')[1]
        raise KdkitError(
            "KD-BASE-004", f"the key '{key}' is given twice", where=_mark(origin, error), fix="keep one of the two"
        ) from None
    except MarkedYAMLError as error:
        what = f"not valid YAML: {error.problem}"
        raise KdkitError("KD-BASE-005", what, where=_mark(origin, error), fix="correct this line") from None
    except Exception as error:  # beside YAMLError: the parser raises anything for odd keys, tags and numbers
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise KdkitError("KD-BASE-006", "not valid YAML", where=origin, why=why, fix="correct the file") from None


@lru_cache(maxsize=16)
def _tree(text: str) -> Any:
    """A command asks for the registry and the recipe again and again; parsing them takes most of that time."""
    return YAML(typ="rt", pure=True).load(text)


def _mark(origin: str, error: MarkedYAMLError) -> str:
    return f"{origin}:{error.problem_mark.line + 1}" if error.problem_mark else origin


def _plain(node: Any) -> Any:
    """Round-trip types of the parser -> plain Python."""
    if isinstance(node, dict):
        return {str(key) if isinstance(key, dict | list) else _plain(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _explain(model: type[BaseModel], located: Located, error: ValidationError, start: Place) -> KdkitError:
    problems = error.errors()
    # A misspelt key is also a missing key; report the former.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    place = tuple(step for step in first["loc"] if not str(step).startswith("<"))  # tags of unions
    key = ".".join(str(step) for step in (*start, *place))
    more = f"{len(problems) - 1} more in this file" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = [
            field.alias or name
            for part in _models(_annotation(model, place[:-1]))
            for name, field in part.model_fields.items()
        ]
        what, fix = f"unknown key '{key}'", did_you_mean(str(place[-1]), known)
        if fix.startswith("known") and "options" in known:
            fix += "; if it is an option of the plugin that is named there, it belongs under 'options'"
    elif first["type"] == "missing":
        what, fix = f"the key '{key}' is missing", f"add '{place[-1]}'"
    else:
        message = first["msg"].removeprefix("Value error, ")
        what, fix = (f"{key}: {message}" if key else message), "correct the value"
    return KdkitError("KD-BASE-007", what, where=located.where((*start, *place)), why=more, fix=fix)


def _annotation(model: type[BaseModel], place: Place) -> Any:
    """The declared type of what lies at ``place``."""
    here: Any = model
    for step in place:
        candidates = [field for part in _models(here) for field in [_field(part, str(step))] if field is not None]
        here = candidates[0] if candidates else here
    return here


def _field(model: type[BaseModel], key: str) -> Any:
    for name, field in model.model_fields.items():
        if key in (name, field.alias):
            return field.annotation
    return None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation such as ``dict[str, Part]`` or ``Part | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType) or get_args(annotation):
        return [part for argument in get_args(annotation) for part in _models(argument)]
    return []
