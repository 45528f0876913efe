"""``losses.1.weight=0.5,1,2`` on the command line: keys of a recipe, their values, and recipes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.project.recipe import Recipe

STUDENT = "student"
"""First part of keys of the student's config in ``registry.yaml``, which is no part of the recipe."""

NAMES = ("name", "policy")
"""Keys that name a plugin object; their options stand beside them."""


@dataclass(frozen=True)
class SweptKey:
    """A key with the values that it takes.

    Attributes:
        place: of the argument, for messages.
    """

    key: str
    values: tuple[Any, ...]
    place: str

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.key.split("."))

    @property
    def numbers(self) -> bool:
        """Whether all values are numbers: then they can be an axis."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    def where(self, number: int) -> str:
        """The place of one value, for messages."""
        return f"{self.place}, value {number + 1}"


def parse_keys(words: Sequence[str]) -> tuple[SweptKey, ...]:
    """Parse ``key=value,value``; values are YAML, and commas inside of brackets and quotes belong to them.

    Raises:
        KdkitError: a word of another form, a value that is no YAML, a key or value that is given twice.

    Example:
        >>> parse_keys(["targets.normalize=unit,none", "optimizer.betas=[0.9, 0.98],[0.9, 0.999]"])[1].values
        ([0.9, 0.98], [0.9, 0.999])
    """
    keys = list[SweptKey]()
    for number, word in enumerate(words, 1):
        place, (key, equals, text) = f"argument {number} ('{word}')", word.partition("=")
        if not equals or not all(key.split(".")) or not text.strip():
            raise KdkitError(
                "KD-DIST-380",
                "this is not KEY=VALUE,VALUE",
                where=place,
                fix="for example losses.1.weight=0.5,1,2; 'kdkit recipes show NAME' shows the keys",
            )
        values = [_parse(part, f"{place}, value {n}") for n, part in enumerate(_split(text), 1)]
        twice = [value for n, value in enumerate(values) if value in values[:n]]
        if twice or key in {other.key for other in keys}:
            what = f"the value {twice[0]} is given twice" if twice else f"the key '{key}' is given twice"
            raise KdkitError("KD-DIST-381", what, where=place, fix="give it once")
        keys.append(SweptKey(key, tuple(values), place))
    return tuple(keys)


def grid(keys: Sequence[SweptKey]) -> list[dict[str, int]]:
    """Every combination of values, as key -> number of its value."""
    numbers = product(*(range(len(key.values)) for key in keys))
    return [dict(zip([key.key for key in keys], chosen, strict=True)) for chosen in numbers]


def with_values(recipe: Recipe, keys: Sequence[SweptKey], chosen: Mapping[str, int]) -> Recipe:
    """The recipe with one value for each key.

    ``optimizer.steps`` and ``optimizer.epochs`` replace each other. A loss is named by its number, from 0, or its name.
    In a recipe with stages, ``stages.0.optimizer.lr`` is a key of the first one. Another policy or loss starts without
    the options of the one that it replaces.

    Args:
        chosen: key -> number of its value.

    Raises:
        KdkitError: an unknown key, or a value of a wrong type, with the place of the argument.
    """
    tree: Any = recipe.model_dump(mode="json")
    length: dict[tuple[str, ...], str] = {}
    for key in sorted(keys, key=lambda key: key.path[-1] not in NAMES):
        value = key.values[chosen[key.key]]
        if key.path[-2:] in (("optimizer", "steps"), ("optimizer", "epochs")):
            if length.setdefault(key.path[:-1], key.path[-1]) != key.path[-1]:
                what = "steps and epochs exclude each other"
                raise KdkitError("KD-DIST-382", what, where=key.place, fix="sweep one of them")
            for name in ("steps", "epochs", "min_steps", "max_epochs"):
                _set(tree, replace(key, key=".".join((*key.path[:-1], name))), None)
        _set(tree, key, value)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise _explained(error, keys, chosen) from None


def with_student_values(
    config: Mapping[str, Any], keys: Sequence[SweptKey], chosen: Mapping[str, int]
) -> dict[str, Any]:
    """A student's config with one value for each key under ``student``; the family checks them."""
    found: dict[str, Any] = dict(config)
    for key in keys:
        here = found
        for step in key.path[1:-1]:
            below = here.get(step)
            here[step] = (
                dict(below) if isinstance(below, Mapping) else {"name": below} if isinstance(below, str) else {}
            )
            here = here[step]
        here[key.path[-1]] = key.values[chosen[key.key]]
    return found


def _split(text: str) -> list[str]:
    """At commas outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += (letter in "[{") - (letter in "]}") if not quote else 0
        if letter == "," and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _parse(text: str, place: str) -> Any:
    try:
        if not text.strip():
            raise ValueError("it is empty")
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise KdkitError(
            "KD-DIST-383", f"'{text}' is no value", where=place, why=why, fix="write it as in YAML"
        ) from None


def _set(tree: Any, key: SweptKey, value: Any) -> None:
    here = tree
    for depth, step in enumerate(key.path[:-1]):
        here = _below(here, step, key, depth)
    last = key.path[-1]
    if isinstance(here, list):
        here[_number(here, last, key, len(key.path) - 1)] = value
    elif isinstance(here, dict) and (last in here or not here or "options" in key.path[:-1]):
        if last in NAMES and "options" in here and here[last] != value:
            here["options"] = {}  # those of the other plugin object
        here[last] = value
    else:
        raise _unknown(here, last, key, len(key.path) - 1)


def _below(here: Any, step: str, key: SweptKey, depth: int) -> Any:
    if isinstance(here, list):
        return here[_number(here, step, key, depth)]
    if isinstance(here, dict) and step in here:
        if here[step] is None:
            here[step] = {}  # a part that is switched off, such as 'augment'; the schema knows its keys
        return here[step]
    raise _unknown(here, step, key, depth)


def _number(items: Sequence[Any], step: str, key: SweptKey, depth: int) -> int:
    """The place of a loss by number or name."""
    names = [str(item.get("name", "")) if isinstance(item, Mapping) else "" for item in items]
    if step.isdecimal() and int(step) < len(items):
        return int(step)
    if names.count(step) == 1:
        return names.index(step)
    raise _unknown(
        {str(number): None for number in range(len(items))} | dict.fromkeys(filter(None, names)), step, key, depth
    )


def _unknown(here: Any, step: str, key: SweptKey, depth: int) -> KdkitError:
    above = ".".join(key.path[:depth])
    known = list(here) if isinstance(here, Mapping) else []
    if depth == 0:
        known = [name for name in known if name not in ("name", "summary", "source")] + [STUDENT]
    return KdkitError(
        "KD-DIST-384",
        f"the recipe has no key '{key.key}'",
        where=key.place,
        why=f"'{step}' is not below '{above}'" if above else "",
        fix=did_you_mean(step, known) if known else f"'{above}' holds a value, no keys",
    )


def _explained(error: ValidationError, keys: Sequence[SweptKey], chosen: Mapping[str, int]) -> KdkitError:
    """The first problem, at the argument that it belongs to."""
    first = error.errors()[0]
    place = tuple(str(step) for step in first["loc"] if not str(step).startswith("<"))

    def common(key: SweptKey) -> int:
        same = [a == b for a, b in zip(key.path, place, strict=False)]
        return same.index(False) if False in same else len(same)

    key = max(keys, key=common)
    message = first["msg"].removeprefix("Value error, ")
    return KdkitError(
        "KD-DIST-385",
        f"{key.key} cannot be {key.values[chosen[key.key]]!r}: {message}",
        where=key.where(chosen[key.key]),
        fix="correct the value; 'kdkit recipes show NAME' shows the keys with their meaning",
    )
