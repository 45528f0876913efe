"""Domains and labels by rule: from a part of a sample's id, path or text, or through a table of names.

``domain_by`` and ``label_by`` are options of any data entry, applied to what its source gives.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.templates import fill
from kdkit.core.contracts import Sample, Skipped
from kdkit.core.data.locations import file_of
from kdkit.core.data.teacher_labels import refuse_as_truth
from kdkit.core.project.registry.schema import Part

Target = Literal["domain", "label"]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
NAMED = 10
"""Values without a name that are told one by one; the others are one kind."""


class Rule(Part):
    """How a domain or a label follows from another field.

    Example:
        >>> rule = Rule.model_validate({"of": "path", "pattern": "_(ct|mr)_", "map": {"ct": "CT", "mr": "MRI"}})
        >>> rule.pattern
        '_(ct|mr)_'
    """

    of: Literal["id", "path", "text", "domain", "label", "group"]
    """The field; ``path`` is the image's, relative to the data entry's folder, with slashes."""
    pattern: str | None = None
    """A regular expression that is searched in the field. Its group named ``domain`` or ``label``, or its first group,
    or all that it matches, is the value; without a pattern the whole field is."""
    map: dict[str, Name] | str | None = None
    """Value -> name, or a CSV, JSON or YAML file with them; without it the value is the name."""
    otherwise: Name | None = None
    """The name where the pattern does not match or the map has no name."""


@dataclass(frozen=True)
class Rules:
    """The rules of a data entry.

    Attributes:
        patterns, names: rule's target -> its compiled pattern, and its names, where it has them.
        text: template of the text with ``{domain}`` and ``{label}``, filled in afterwards.
    """

    rules: Mapping[Target, Rule]
    patterns: Mapping[Target, re.Pattern[str]]
    names: Mapping[Target, Mapping[str, str]]
    text: str | None

    def as_json(self) -> dict[str, Any]:
        """All that decides what the rules do."""
        rules = {target: rule.model_dump() for target, rule in self.rules.items()}
        return {
            "rules": rules,
            "names": {target: dict(names) for target, names in self.names.items()},
            "text": self.text,
        }


def read_rules(
    domain_by: Mapping[str, Any] | None, label_by: Mapping[str, Any] | None, text_by: str | None, root: Path
) -> Rules | None:
    """The rules of a data entry; None without any. Maps in files are relative to ``root``, the project.

    Raises:
        KdkitError: a key or a pattern is wrong, or a map cannot be read.
    """
    given: dict[Target, Mapping[str, Any]] = {}
    if domain_by is not None:
        given["domain"] = domain_by
    if label_by is not None:
        given["label"] = label_by
    if not given and text_by is None:
        return None
    rules = {target: _read_rule(target, value) for target, value in given.items()}
    patterns = {target: _compile(target, rule.pattern) for target, rule in rules.items() if rule.pattern is not None}
    names = {target: _names(target, rule.map, root) for target, rule in rules.items() if rule.map is not None}
    return Rules(rules, patterns, names, text_by)


def apply_rules(samples: Iterable[Sample], rules: Rules, folder: Path) -> Iterator[Sample | Skipped]:
    """The samples with domains, labels and texts by rule.

    A sample whose domain does not follow from the rule is left out; one whose label does not keeps no label. Both are
    reported with the value, as warnings.

    Args:
        samples: of the source.
        rules: of its data entry.
        folder: of the data entry, which paths are relative to.
    """
    told: dict[tuple[str, str], str] = {}
    for sample in samples:
        found: dict[str, str | None] = {}
        missing = list[Skipped]()
        for target, rule in rules.rules.items():
            value = _value(rules, target, sample, folder)
            found[target] = None if value is None else rules.names.get(target, {value: value}).get(value)
            if found[target] is None and rule.otherwise is not None:
                found[target] = rule.otherwise
            if found[target] is None:
                missing.append(_unnamed(target, rule, value, sample, told))
        yield from missing
        if found.get("domain", sample.domain) is None:
            continue
        changed = replace(sample, **found)  # type: ignore[arg-type]  # a domain is not None here
        yield changed if rules.text is None else replace(changed, text=_fill(rules.text, changed))


def _value(rules: Rules, target: Target, sample: Sample, folder: Path) -> str | None:
    """What the rule reads; None if the field is empty or the pattern does not match."""
    field = rules.rules[target].of
    if field == "path":
        text: object = Path(os.path.relpath(file_of(sample.image), folder)).as_posix()
    else:
        text = sample.extra.get("group") if field == "group" else getattr(sample, field)
    if text is None or not str(text).strip():
        return None
    if target not in rules.patterns:
        return str(text)
    match = rules.patterns[target].search(str(text))
    if match is None:
        return None
    value = match[target] if target in match.re.groupindex else match[min(1, match.re.groups)]
    return value.strip() or None if value is not None else None


def _unnamed(
    target: Target, rule: Rule, value: str | None, sample: Sample, told: dict[tuple[str, str], str]
) -> Skipped:
    """What is reported of a sample without a domain or label by the rule; each value is a kind of its own."""
    words = f"of '{value}', which {target}_by does not name,"
    if value is None:
        words = f"whose {rule.of} {target}_by does not match,"
    if (target, words) not in told:
        few = sum(known == target for known, _ in told) < NAMED
        told[target, words] = words if few else f"of other values, which {target}_by does not name,"
    what = "samples" if target == "domain" else "labels of samples"
    fix = f"add it to the rule, or name all others: {target}_by: {{otherwise: other}}"
    return Skipped(f"{what} {told[target, words]}", sample.origin or sample.id, fix, level="warning")


def _fill(template: str, sample: Sample) -> str:
    fields = {"domain": sample.domain.replace("_", " ")}
    if sample.label is not None:
        fields["label"] = sample.label.replace("_", " ")
    try:
        return fill(template, fields)
    except (KeyError, ValueError) as error:
        raise KdkitError(
            "KD-DATA-204",
            f"the template '{template}' of text_by cannot be filled in",
            where=sample.origin,
            why=f"sample '{sample.id}' has no {error}" if isinstance(error, KeyError) else str(error),
            fix="a template may use {domain}, and {label} if every sample has a label (label_by: {otherwise: ...})",
        ) from error


def _read_rule(target: Target, value: Mapping[str, Any]) -> Rule:
    try:
        return Rule.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "of"
        raise KdkitError(
            "KD-DATA-201",
            f"the rule {target}_by is wrong at '{place}'",
            why=first["msg"],
            fix=f"for example {target}_by: {{of: path, pattern: '_(ct|mr)_', map: {{ct: CT, mr: MRI}}}}",
        ) from None


def _compile(target: Target, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise KdkitError(
            "KD-DATA-202",
            f"the pattern '{pattern}' of {target}_by is no regular expression",
            why=str(error),
            fix=f"correct it, for example '(?P<{target}>ct|mr)_'",
        ) from error


def _names(target: Target, given: Mapping[str, str] | str, root: Path) -> Mapping[str, str]:
    """Value -> name, without spaces around either."""
    if isinstance(given, Mapping):
        return {value.strip(): name for value, name in given.items()}
    path = Path(os.path.abspath(root / given))
    if path.suffix.lower() == ".csv" and path.is_file():
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            refuse_as_truth(file.readline().strip().split(","), str(path))
    try:
        text = path.read_bytes().decode("utf-8-sig")
        pairs = _csv_pairs(text, target) if path.suffix.lower() in (".csv", ".tsv") else _object_pairs(path, text)
    except (OSError, ValueError, csv.Error, YAMLError) as error:
        raise KdkitError(
            "KD-DATA-203",
            f"the map of {target}_by cannot be read",
            where=str(path),
            why=" ".join(str(error).split()),
            fix=f"write a CSV file with a header and the columns value and {target}, or an object in JSON or YAML",
            code=ExitCode.MISSING if isinstance(error, FileNotFoundError) else ExitCode.USAGE,
        ) from error
    return pairs


def _csv_pairs(text: str, target: Target) -> dict[str, str]:
    """First column -> the column of the target's name, else the second one."""
    header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in text else ",", strict=True)
    column = next((number for number, name in enumerate(header) if number and name.strip().lower() == target), 1)
    if len(header) < 2:
        raise ValueError(f"one column: {', '.join(header)}")
    pairs: dict[str, str] = {}
    for number, row in enumerate((row for row in rows if any(row)), start=2):
        if len(row) != len(header) or not row[column].strip():
            raise ValueError(f"row {number} has no {target}")
        _add(pairs, row[0], row[column])
    return pairs


def _object_pairs(path: Path, text: str) -> dict[str, str]:
    value = json.loads(text) if path.suffix.lower() == ".json" else YAML(typ="safe", pure=True).load(text)
    if not isinstance(value, Mapping):
        raise ValueError("no object with a name for each value")
    pairs: dict[str, str] = {}
    for key, name in value.items():
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"the name of '{key}' is {name!r}, not a text")
        _add(pairs, str(key), name)
    return pairs


def _add(pairs: dict[str, str], value: str, name: str) -> None:
    value, name = value.strip(), name.strip()
    if pairs.setdefault(value, name) != name:
        raise ValueError(f"'{value}' has two names: {pairs[value]}, {name}")
