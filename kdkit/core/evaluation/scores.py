"""Scores of models side by side: typed records that go to JSON and back without loss."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import TypeAdapter

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Calibration, Confusion, Curve, DomainScore, SubgroupScore

FORMAT = 1
LEFT_OUT = "teachers_left_out"
"""Key of an evaluation's settings: teacher that is not scored -> the signals that it lacks."""
ACCURACY = "accuracy"
HEADLINE = "headline"
"""Key of an evaluation's settings with the metric that stands for the task; without it, :data:`ACCURACY`."""
METHOD = "method"
"""Key of an evaluation's settings: fact -> text, what a task states of its method."""
PRIVATE = "method_private"
"""Key of an evaluation's settings: the names of those facts that are not published."""
SUITE = "suite"
"""Key of an evaluation's settings with the benchmark suite that its data is of."""
OTHER_RELEASE = "suite_other_release"
"""Key of an evaluation's settings with the data sets of a suite whose files are not those of its definition."""
OVERLAP = "suite_overlap"
"""Key of an evaluation's settings: data set of a suite -> teacher -> what of it the teacher has seen in training."""
Role = Literal["student", "teacher", "oracle"]
T = TypeVar("T")


@dataclass(frozen=True)
class ModelScores:
    """One model on every domain.

    Attributes:
        name: of the model; the two oracles are ``oracle`` and ``oracle-on-test``.
        role: what it is.
        domains: domain -> its score.
        means: metric -> mean over the evaluation's domains.
        intervals: metric -> bounds of that mean.
        chosen: for an oracle, domain -> the teacher it stands for there.
    """

    name: str
    role: Role
    domains: Mapping[str, DomainScore]
    means: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    chosen: Mapping[str, str] = field(default_factory=dict)

    def values(self, metric: str, domains: tuple[str, ...]) -> list[float]:
        """The metric on each of ``domains``, NaN where there is no score."""
        return [self.domains[d].metrics.get(metric, math.nan) if d in self.domains else math.nan for d in domains]


@dataclass(frozen=True)
class Evaluation:
    """Models side by side on the same samples.

    Attributes:
        split: which samples.
        domains: those that were scored, in the order of the table.
        models: students first, then teachers, then oracles.
        settings: what the figures depend on (task, logit scale, resamples, seed, level).
        skipped: domain -> why it was not scored.
        ratios: student -> metric -> its mean over the oracle's, on the same domains.
        against_oracle: student -> domain -> (difference, low, high) of the headline to that of the oracle, on the same
            samples, with a paired bootstrap interval over samples or, where known, groups of them.
        groups: domain -> the group (patient) of each of its ``ids``, as a number; only for domains where a group has
            several samples.
        columns: column -> domain -> the value of each of its ``ids``; None where a sample has none.
    """

    split: str
    domains: tuple[str, ...]
    models: tuple[ModelScores, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    against_oracle: Mapping[str, Mapping[str, tuple[float, float, float]]] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, tuple[str | None, ...]]] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The metric that stands for the task."""
        return str(self.settings.get(HEADLINE, ACCURACY))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of figures without a scale of 0 to 1, such as a median rank."""
        scores = (score for model in self.models for score in model.domains.values())
        return tuple(dict.fromkeys(name for score in scores for name in score.figures))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the task's order."""
        return tuple(dict.fromkeys(name for model in self.models for name in model.means))

    def of_role(self, role: Role) -> tuple[ModelScores, ...]:
        return tuple(model for model in self.models if model.role == role)

    def model(self, name: str) -> ModelScores:
        """The scores of one model.

        Raises:
            KdkitError: when it was not evaluated.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise KdkitError(
            "KD-EVAL-008",
            f"'{name}' is not in this evaluation",
            fix="it has: " + ", ".join(m.name for m in self.models),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers; NaN becomes null. Ids of samples are written once for all models,
        bootstrap draws for students alone."""
        plain: dict[str, Any] = to_plain(self)
        for model in plain["models"]:
            for score in model["domains"].values():
                del score["ids"], score["domain"], score["units"]  # 'groups' of the evaluation are the units
                if model["role"] != "student":
                    del score["draws"]
        scores = {domain: score for model in self.models for domain, score in model.domains.items()}
        return {"format": FORMAT, **plain, "samples": {domain: list(scores[domain].ids) for domain in self.domains}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """The inverse of :meth:`to_json`; raises KeyError, TypeError or ValueError on anything else."""
        if data["format"] != FORMAT:
            raise ValueError(f"evaluation format {data['format']!r}; this kdkit reads {FORMAT}")
        ids = {domain: tuple(map(str, names)) for domain, names in data["samples"].items()}
        return cls(
            split=data["split"],
            domains=tuple(data["domains"]),
            models=tuple(_model_from_json(model, ids) for model in data["models"]),
            settings=data["settings"],
            skipped=data["skipped"],
            ratios=data["ratios"],
            against_oracle={
                student: {domain: _three(values) for domain, values in domains.items()}
                for student, domains in data.get("against_oracle", {}).items()
            },
            groups={domain: tuple(map(int, numbers)) for domain, numbers in data.get("groups", {}).items()},
            columns={
                column: {domain: tuple(values) for domain, values in domains.items()}
                for column, domains in data.get("columns", {}).items()
            },
        )

    def save(self, path: Path) -> None:
        """Write ``path`` in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(self.to_json(), allow_nan=False) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read a file that :meth:`save` wrote.

        Raises:
            KdkitError: when it is missing or is no such file.
        """
        return read_scores(path, cls.from_json)


_DETAILS: Mapping[str, TypeAdapter[Any]] = {
    "subgroups": TypeAdapter(tuple[SubgroupScore, ...]),
    "calibration": TypeAdapter(Calibration | None),
    "confusion": TypeAdapter(Confusion | None),
    "curves": TypeAdapter(tuple[Curve, ...]),
}


def read_scores(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> T:
    """Parse a JSON file of an evaluation.

    Raises:
        KdkitError: when the file is missing or ``parse`` rejects it.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KdkitError(
            "KD-EVAL-009",
            "this evaluation cannot be read",
            where=str(path),
            why=f"{type(error).__name__}: {error}",
            fix="run 'kdkit evaluate' to make it again",
            code=ExitCode.MISSING,
        ) from None


def _model_from_json(data: Mapping[str, Any], ids: Mapping[str, tuple[str, ...]]) -> ModelScores:
    return ModelScores(
        name=data["name"],
        role=data["role"],
        domains={name: _score_from_json(name, score, ids[name]) for name, score in data["domains"].items()},
        means={name: null_to_nan(value) for name, value in data["means"].items()},
        intervals={name: (null_to_nan(low), null_to_nan(high)) for name, (low, high) in data["intervals"].items()},
        chosen=data["chosen"],
    )


def _score_from_json(domain: str, data: Mapping[str, Any], ids: tuple[str, ...]) -> DomainScore:
    return DomainScore(
        domain=domain,
        count=data["count"],
        metrics={name: null_to_nan(value) for name, value in data["metrics"].items()},
        intervals={name: (null_to_nan(low), null_to_nan(high)) for name, (low, high) in data["intervals"].items()},
        level=data["level"],
        ids=ids,
        outcomes={name: _unpack(values) for name, values in data["outcomes"].items()},
        notes=tuple(data["notes"]),
        figures={name: _three(values) for name, values in data.get("figures", {}).items()},
        pooled=tuple(data.get("pooled", ())),
        draws={name: _unpack(values) for name, values in data.get("draws", {}).items()},
        groups=int(data.get("groups", 0)),
        units=tuple(map(int, data.get("units", ()))),
        **{name: read.validate_python(data[name]) for name, read in _DETAILS.items() if name in data},
    )


def score_to_json(score: DomainScore) -> dict[str, Any]:
    """Plain data of one score."""
    plain: dict[str, Any] = to_plain(score)
    return plain


def score_from_json(data: Mapping[str, Any]) -> DomainScore:
    """The inverse of :func:`score_to_json`; raises KeyError, TypeError or ValueError on anything else."""
    return _score_from_json(data["domain"], data, tuple(map(str, data["ids"])))


def _three(values: Any) -> tuple[float, float, float]:
    value, low, high = map(null_to_nan, values)
    return value, low, high


def to_plain(value: Any) -> Any:
    """Records as dicts, tuples as lists, arrays packed, NaN as null."""
    if is_dataclass(value):
        return {item.name: to_plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _pack(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _pack(values: np.ndarray[Any, Any]) -> str | list[float | None]:
    """Right or wrong as a string of 1 and 0; any other outcome as numbers, NaN as null."""
    if np.isin(values, (0, 1)).all():
        return "".join("1" if value else "0" for value in values)
    return [None if np.isnan(value) else float(value) for value in values]


def _unpack(values: str | list[float | None]) -> np.ndarray[Any, Any]:
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)


def null_to_nan(value: float | None) -> float:
    """The inverse of :func:`to_plain` for numbers."""
    return math.nan if value is None else float(value)
