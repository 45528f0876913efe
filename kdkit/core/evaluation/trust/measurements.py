"""Measured trust on disk: counts, not decisions, so that policies are chosen afterwards.

``features/trust.json`` holds one entry per teacher with the fingerprint of what it was measured on. It
outlives the teacher: scores of one that exists no more stay usable.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.json_record import with_checksum, without_checksum
from kdkit.core.base.locks import file_lock
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import TrustBasis, TrustTable
from kdkit.core.evaluation.metrics import wilson
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.features.imports.rows import LISTED

FORMAT = 3
LEVEL = 0.95
"""Coverage of the bounds."""
SCORES: Mapping[TrustBasis, str] = {"label": "trust", "caption": "caption", "list": LISTED}
"""Names of the per-sample scores beside a column: probability of the true class, or score of the answer; probability
that the true caption is first (:mod:`~kdkit.core.evaluation.trust.retrieval`); 1 for samples of an imported list."""
_SECTIONS: Mapping[TrustBasis, str] = {"label": "teachers", "caption": "by_caption", "list": "by_list"}


@dataclass(frozen=True)
class DomainCount:
    """One teacher on one domain: ``correct`` of ``count`` calibration samples, against ``chance`` in [0, 1].

    For answers, ``correct`` is the sum of scores in [0, 1]. Each sample counts ``evidence`` times for the bounds:
    graded scores vary less than right and wrong. Samples of one group (patient) say less than as many of others.
    ``parts``: the accuracy of each classifier of a probe.
    """

    correct: float
    count: int
    chance: float
    evidence: float = 1.0
    parts: Mapping[str, float] = field(default_factory=dict)


def chance_level(labels: np.ndarray[Any, Any], classes: int) -> float:
    """Accuracy without looking: of guessing, or of always naming the most frequent class of ``labels`` (N,)."""
    return max(1 / classes, float(np.bincount(labels).max(initial=0)) / max(len(labels), 1))


@dataclass(frozen=True)
class TeacherMeasurement:
    """One teacher: counts of each measurable domain, and the fingerprint of their inputs.

    ``probe``: the signal that probes classified (:mod:`~kdkit.core.evaluation.trust.probe`), for want of the other.
    """

    fingerprint: str
    domains: Mapping[str, DomainCount]
    probe: str = ""


def trust_file(features: Path) -> Path:
    """The file of measured scores in the folder of the feature store."""
    return features / "trust.json"


def load_measurements(path: Path, by: TrustBasis = "label") -> dict[str, TeacherMeasurement]:
    """Teacher -> saved scores; empty before the first measurement.

    Raises:
        KdkitError: when the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        data = without_checksum(json.loads(path.read_text(encoding="utf-8")))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}; this kdkit reads {FORMAT}")
        return {
            name: TeacherMeasurement(
                entry["fingerprint"],
                {domain: DomainCount(**counts) for domain, counts in entry["domains"].items()},
                str(entry["probe"]),
            )
            for name, entry in data.get(_SECTIONS[by], {}).items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KdkitError(
            "KD-TRUST-002",
            "the saved trust scores cannot be read",
            where=str(path),
            why=f"{type(error).__name__}: {error}",
            fix="delete the file; 'kdkit trust' measures again from the feature store",
        ) from None


def save_measurement(
    path: Path, teacher: str, measured: TeacherMeasurement, by: TrustBasis = "label", *, logit_scale: float
) -> None:
    """Add the entry of one teacher; ``logit_scale`` of the per-sample scores is recorded.

    Entries that other commands have written meanwhile stay. A full or read-only disk is a warning: trust is then
    measured again by the next command.
    """
    with optional_write("measured trust"), _locked(path):
        saved = {basis: load_measurements(path, basis) for basis in _SECTIONS}
        saved[by][teacher] = measured
        data = {"format": FORMAT, "logit_scale": logit_scale} | {
            _SECTIONS[basis]: {name: asdict(entry) for name, entry in sorted(teachers.items())}
            for basis, teachers in saved.items()
        }
        write_atomically(path, (json.dumps(with_checksum(data), indent=1) + "\n").encode())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for another command that writes the file, for a few seconds at most: it writes within milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    busy, deadline = path.with_suffix(".busy"), time.monotonic() + 5
    while True:
        with file_lock(busy) as free:
            if free is not False or time.monotonic() > deadline:
                try:
                    yield
                finally:
                    if free:
                        busy.unlink(missing_ok=True)
                return
        time.sleep(0.02)


def make_trust_table(
    measured: Mapping[str, TeacherMeasurement],
    teachers: Sequence[str],
    domains: Sequence[str],
    level: float,
    by: TrustBasis = "label",
) -> TrustTable:
    """Rows in the order of ``teachers``, columns in that of ``domains``; NaN where nothing was counted."""
    shape = (len(teachers), len(domains))
    count, correct, chance = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.full(shape, -np.inf)
    evidence = np.ones(shape)
    for row, teacher in enumerate(teachers):
        for column, domain in enumerate(domains):
            found = measured[teacher].domains.get(domain)
            if found is not None:
                correct[row, column], count[row, column] = found.correct, found.count
                chance[row, column], evidence[row, column] = found.chance, found.evidence
    lower, upper = wilson(correct * evidence, count * evidence, level)
    return TrustTable(
        teachers=tuple(teachers),
        domains=tuple(domains),
        accuracy=np.where(count > 0, correct / np.maximum(count, 1), np.nan),
        lower=lower,
        upper=upper,
        count=count.max(axis=0, initial=0),
        chance=np.where((count > 0).any(axis=0), chance.max(axis=0, initial=-np.inf), np.nan),
        level=level,
        probed={teacher: measured[teacher].probe for teacher in teachers if measured[teacher].probe},
        parts={teacher: _parts(measured[teacher].domains) for teacher in teachers if measured[teacher].probe},
        by=by,
    )


def _parts(domains: Mapping[str, DomainCount]) -> dict[str, Mapping[str, float]]:
    return {domain: count.parts for domain, count in domains.items()}


def table_of_scores(evaluation: Evaluation) -> TrustTable:
    """The headline of every teacher on every domain of an evaluation, for an oracle that chooses by it."""
    teachers, shape = evaluation.of_role("teacher"), (len(evaluation.of_role("teacher")), len(evaluation.domains))
    values = np.full((3, *shape), np.nan)
    count = np.zeros(shape[1], dtype=np.int64)
    for row, teacher in enumerate(teachers):
        for column, domain in enumerate(evaluation.domains):
            score = teacher.domains.get(domain)
            if score is not None and evaluation.headline in score.metrics:
                values[:, row, column] = score.metrics[evaluation.headline], *score.intervals[evaluation.headline]
                count[column] = max(count[column], score.count)
    return TrustTable(
        teachers=tuple(teacher.name for teacher in teachers),
        domains=evaluation.domains,
        accuracy=values[0],
        lower=values[1],
        upper=values[2],
        count=count,
        chance=np.full(shape[1], np.nan),
    )
