"""Scores on disk, so that a repeated evaluation computes nothing."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import kdkit
from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.json_record import with_checksum, without_checksum
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import (
    FINDINGS,
    METADATA,
    DomainScore,
    EvaluationTask,
    ExplainsSkips,
    Method,
    Sample,
    StatesMethod,
)
from kdkit.core.evaluation.scores import score_from_json, score_to_json

if TYPE_CHECKING:
    from kdkit.core.evaluation.evaluator import FeatureEvaluator

UNREAD = (METADATA, FINDINGS)
"""What the digest of a sample leaves out."""


@runtime_checkable
class Fingerprinted(Protocol):
    """A model whose features are known by a digest."""

    def fingerprint(self) -> str: ...


class CachedTask:
    """A task whose scores are read from ``folder`` where model, samples, options and code are the same.

    Known are the version of kdkit, its source files that measure, and those in the task's folder. People may delete
    the folder; a damaged file counts as absent. Models without a fingerprint are scored each time.
    """

    def __init__(self, evaluator: FeatureEvaluator, folder: Path) -> None:
        self._task: EvaluationTask = evaluator.task
        self._folder, self._table = folder, evaluator.table
        self._digest = dict(zip(self._table.ids, self._table.digests.tolist(), strict=True))
        fitted = [self._known(evaluator.training), self._known(evaluator.calibration)]
        inputs = [dict(evaluator.settings), evaluator.prompts, evaluator.subgroups, *fitted]
        self._setting = [kdkit.__version__, _source_digest(type(self._task)), _source_digest(CachedTask), inputs]

    def evaluate(self, view: Any, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """The task's scores of ``view``. Raises: as the task."""
        if not isinstance(view, Fingerprinted):
            return self._task.evaluate(view, samples)
        inputs = [self._setting, view.fingerprint(), self._known(samples)]
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        path = self._folder / f"{key[:32]}.json"
        found = _read(path)
        if found is None:
            found = list(self._task.evaluate(view, samples))
            plain = with_checksum({"scores": [score_to_json(score) for score in found]})
            with optional_write("the cache of scores"):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, json.dumps(plain, allow_nan=False).encode())
        return found

    def why_skipped(self, samples: Sequence[Sample]) -> str:
        """Why samples of one domain have no score; empty if the task does not say."""
        return self._task.why_skipped(samples) if isinstance(self._task, ExplainsSkips) else ""

    def method(self) -> Method:
        """What the task states of its method; nothing if it does not say."""
        return self._task.method() if isinstance(self._task, StatesMethod) else Method({})

    def _known(self, samples: Sequence[Sample]) -> list[list[Any]]:
        """Everything that a score can depend on: the digest covers image, text and the rest of ``extra``."""
        return [
            [s.id, self._digest[s.id], s.domain, s.label, s.split, str(s.image), *map(s.extra.get, UNREAD)]
            for s in samples
        ]


def _source_digest(kind: type) -> str:
    """Of the module that defines the class and those beside it, which authors edit without a new version."""
    try:
        files = sorted(Path(inspect.getfile(kind)).parent.glob("*.py"))
        return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    except (OSError, TypeError):
        return ""


def _read(path: Path) -> list[DomainScore] | None:
    try:
        facts: Mapping[str, Any] = without_checksum(json.loads(path.read_bytes()))
        return [score_from_json(score) for score in facts["scores"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
