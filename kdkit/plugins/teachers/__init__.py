"""The built-in catalogue of teachers: facts of published models, in the JSON files of the folder ``facts``.

An entry has the fields of ``TeacherSpec``. Two are written shorter: ``normalization`` names a pair of mean and std, and
``sources`` maps a place to the names of the facts that it gives, separated by spaces. A place that begins with
``unverified:`` is memory or a third party. A fact that no source gives is absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdkit.core.contracts import FactSource, TeacherSpec
from kdkit.core.contracts.hookspecs import hookimpl

NORMALIZATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and std by the names that their users give them."""
UNVERIFIED = "unverified: "


@hookimpl
def kdkit_teachers() -> tuple[TeacherSpec, ...]:
    folder = Path(__file__).with_name("facts")
    return tuple(
        _spec(entry) for path in sorted(folder.glob("*.json")) for entry in json.loads(path.read_text(encoding="utf-8"))
    )


def _spec(entry: dict[str, Any]) -> TeacherSpec:
    fields = {"source": "", "loader": "", **entry}
    if name := fields.pop("normalization", None):
        fields["mean"], fields["std"] = NORMALIZATIONS[name]
    fields["sources"] = tuple(_source(place, facts) for place, facts in fields.get("sources", {}).items())
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return TeacherSpec(**{**fields, **lists})


def _source(place: str, facts: str) -> FactSource:
    names = facts.replace("normalization", "mean std").split()
    verified = not place.startswith(UNVERIFIED)
    return FactSource(facts=tuple(names), source=place.removeprefix(UNVERIFIED), verified=verified)
