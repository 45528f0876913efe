"""The evaluation task ``judge``: answers to open questions, judged by a served model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE_MARK, DomainScore, Method, ModelAnswers, Sample
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, RowMetric, Subgroups, score_domain
from kdkit.plugins.answers.judge.prompt import Prompt
from kdkit.plugins.answers.judge.server import Case, JudgeServer
from kdkit.plugins.answers.questions import is_closed
from kdkit.plugins.answers.replies import CHOICES, Reply
from kdkit.plugins.answers.task import answers_of, task_of, units_of

Array = np.ndarray[Any, Any]
WRITTEN = ("roc", "rc", "mia")
"""Tasks whose answers are texts; of ``vqa`` the open questions are."""
VERDICTS = "verdicts.jsonl"


class Judge:
    """Asks a served model whether answers are right. ``judge_accuracy``: right ones of those with a verdict.

    Only texts are sent: question, reference and answer, once for equal ones. Boxes, closed questions and those with
    options are left to the task ``answers``.

    Args:
        folder: of the judge, with ``endpoint.json`` as of a teacher behind a server; required.
        prompt: text file with ``{question}``, ``{reference}`` and ``{answer}``; empty: the built-in one.
        max_new: tokens of a reply, at least 1.
        resamples, seed, level, subgroups: as of the task ``answers``.
        cache_folder: where verdicts are kept; None: nowhere.

    Raises:
        KdkitError: no folder, or an unusable prompt or ``endpoint.json``.
    """

    def __init__(
        self,
        *,
        folder: str = "",
        prompt: str = "",
        max_new: int = 512,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
        cache_folder: Path | None = None,
    ) -> None:
        if not folder or max_new < 1:
            raise KdkitError(
                "KD-ANS-610",
                "the task 'judge' needs a model that judges" if not folder else "'max_new' must be at least 1",
                where="option 'folder'" if not folder else "option 'max_new'",
                fix="write endpoint.json into a folder and name it: --option folder=judges/NAME",
            )
        self._prompt = Prompt.read(prompt)
        journal = None if cache_folder is None else cache_folder / VERDICTS
        self._server = JudgeServer(Path(folder), self._prompt, max_new, journal)
        self._how = Bootstrap(resamples, seed, level, subgroups or {})

    def method(self) -> Method:
        """``contracts.StatesMethod``."""
        settings, host = self._server.settings, "judge's endpoint"
        facts = {
            "judge": f"{settings.model}{f', revision {settings.revision}' if settings.revision else ''}, temperature 0",
            "judge by its server's name": self._server.named,
            host: self._server.host,
            "judge's system message": settings.system,
            "judge's prompt": self._prompt.text,
            "judge's prompt, SHA-256": self._prompt.digest,
        }
        return Method({name: text for name, text in facts.items() if text}, private=(host,))

    def why_skipped(self, samples: Sequence[Sample]) -> str:  # noqa: ARG002  # of the protocol
        """``contracts.ExplainsSkips``."""
        return "it has no open question; 'kdkit evaluate --task answers' scores the others"

    def evaluate(self, model: ModelAnswers, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain with open questions, in the order in which domains first occur.

        Raises:
            KdkitError: as :meth:`JudgeServer.judge`; a model without answers.
        """
        judged = [sample for sample in samples if is_judged(sample)]
        if not judged:
            return []
        answers = answers_of(model, judged)
        cases = [_case(sample, answer) for sample, answer in zip(judged, answers, strict=True)]
        verdicts = dict(zip((s.id for s in judged), self._server.judge(cases), strict=True))
        domains = dict.fromkeys(sample.domain for sample in judged)
        return [self._score(domain, model.name, samples, verdicts) for domain in domains]

    def _score(
        self, domain: str, model: str, samples: Sequence[Sample], verdicts: dict[str, bool | None]
    ) -> DomainScore:
        every = [sample for sample in samples if sample.domain == domain]
        own = [sample for sample in every if sample.id in verdicts]
        found = [verdicts[sample.id] for sample in own]
        known = np.array([verdict is not None for verdict in found], dtype=np.float64)
        right = np.array([verdict is True for verdict in found], dtype=np.float64)
        notes = [f"{len(every) - len(own)} samples are not judged: no open question"] if len(own) < len(every) else []
        if absent := found.count(None):
            notes.append(f"{model}: {absent} of {len(own)} replies of the judge are no verdict, and are not counted")
        predicted = Predicted(
            own,
            np.zeros(len(own), dtype=np.int64),
            outcomes={"judged": known},
            metrics={"judge_accuracy": _share(right, known)},
            units=units_of(own),
        )
        return score_domain(domain, predicted, self._how, notes=notes)


def is_judged(sample: Sample) -> bool:
    """Whether the reference is a text that can be said in other words."""
    task, extra = task_of(sample), sample.extra
    if not sample.text.strip():
        return False
    closed = extra.get(CHOICES) or is_closed(sample.text, extra.get("answer_type"))
    return task in WRITTEN or (task == "vqa" and not closed)


def _case(sample: Sample, answer: str) -> Case:
    reply = Reply.of(answer, sample.text, sample.extra)
    messages = sample.extra.get("messages") or ()
    said = [(str(m["role"]), str(m["content"]).replace(IMAGE_MARK, "").strip()) for m in messages]
    question = said[0][1] if len(said) == 1 else "\n".join(f"{role}: {text}" for role, text in said)
    return Case(question, " or: ".join(reply.references), reply.answer)


def _share(right: Array, known: Array) -> RowMetric:
    """Right answers of those with a verdict; NaN where none has one."""

    def metric(rows: Array, counts: Array | None) -> Array:
        drawn = np.ones((len(rows), 1)) if counts is None else counts
        above, below = right[rows] @ drawn, known[rows] @ drawn
        return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)

    return metric
