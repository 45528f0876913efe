"""The report of one evaluation: scores, retention and history, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kdkit.core.base.json_record import without_checksum
from kdkit.core.base.result import Result, Section
from kdkit.core.evaluation.continual import ContinualMetrics
from kdkit.core.evaluation.report.details import detail_sections
from kdkit.core.evaluation.report.tables import evaluation_notes, evaluation_sections, percent, retention_sections
from kdkit.core.evaluation.retention import Retention
from kdkit.core.evaluation.scores import Evaluation, read_scores


@dataclass(frozen=True)
class EvaluationReport(Result):
    """A version beside its ancestors, every teacher and the oracle.

    Attributes:
        version: the evaluated version; a model of ``evaluation`` has its name.
        history: the evaluated ancestors and the version, oldest first.
        evaluation: scores of all models.
        retention: against the parent, on domains that were not new to the version; None without a parent.
        continual: over ``history``; None when that is one version.
        learned: domain -> the version of ``history`` that was first taught it.
        repair: how the version was repaired, if it broke the guard as it was trained.
        own_task: the evaluation is by the task of the student's family, which the guard and the model card use.
        weights: version of ``history`` -> digest of the student that was evaluated, see ``Manifest.student_digest``.
    """

    version: str
    history: tuple[str, ...]
    evaluation: Evaluation
    retention: Retention | None
    continual: ContinualMetrics | None
    learned: Mapping[str, str]
    weights: Mapping[str, str]
    repair: str | None = None
    own_task: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes null. :meth:`Evaluation.from_json` reads it too."""
        return {
            **self.evaluation.to_json(),
            "version": self.version,
            "history": list(self.history),
            "learned": dict(self.learned),
            "weights": dict(self.weights),
            "repair": self.repair,
            "own_task": self.own_task,
            "retention": None if self.retention is None else self.retention.to_json(),
            "continual": None if self.continual is None else self.continual.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`; raises KeyError, TypeError or ValueError on anything else."""
        retention, continual = data["retention"], data["continual"]
        return cls(
            version=str(data["version"]),
            history=tuple(data["history"]),
            evaluation=Evaluation.from_json(data),
            retention=None if retention is None else Retention.from_json(retention),
            continual=None if continual is None else ContinualMetrics.from_json(continual),
            learned=dict(data["learned"]),
            weights=dict(data["weights"]),
            repair=data.get("repair"),
            own_task=bool(data.get("own_task", True)),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that :func:`~kdkit.core.evaluation.report.write.write_report` wrote.

        Raises:
            KdkitError: when it is missing, was changed, or holds no report.
        """
        return read_scores(path, lambda data: cls.from_json(without_checksum(data)))

    def sections(self) -> list[Section]:
        """Tables and lines for people: domains by models, means, the oracle, retention, notes."""
        evaluation = self.evaluation
        sections = [*evaluation_sections(evaluation), *detail_sections(evaluation, self.version)]
        if self.retention is not None:
            sections += [f"Change since {self.history[-2]}", *retention_sections(self.retention)]
            new = tuple(d for d, version in self.learned.items() if version == self.version)
            if new:
                before, after = (evaluation.model(name).values(evaluation.headline, new) for name in self.history[-2:])
                gains = (f"{d} {percent(x)} -> {percent(y)}" for d, x, y in zip(new, before, after, strict=True))
                sections.append(f"new in {self.version}: {', '.join(gains)}")
        if self.repair is not None:
            sections.append(f"{self.version}: {self.repair}")
        if self.continual is not None:
            figures = self.continual
            sections.append(
                f"Over {' -> '.join(self.history)}: Average {percent(figures.average)}, "
                f"Last {percent(figures.last)}, Transfer {percent(figures.transfer)}, "
                f"backward transfer {percent(figures.backward_transfer, sign=True)}, "
                f"forgetting {percent(figures.forgetting, sign=True)}"
            )
        return sections + evaluation_notes(evaluation)
