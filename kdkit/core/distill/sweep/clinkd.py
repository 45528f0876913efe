"""ClinKD's tables (arXiv 2502.05928) as a sweep: its parts one by one, the methods beside it, and alpha.

Table 2: Pseudo-KD, MCG-RoPE, selective generation (SASG) and all together, against the answers alone. Table 3 puts
RoPE-Mixed and V_kD beside them. Figure 4 is read as alpha of eq. 16, the weight of the teachers' distributions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.base.journal import Journal
from kdkit.core.contracts import IMAGE, TEXT, Answering, Decoding, Reporter, Split, StudentSpec, TaskSpec
from kdkit.core.contracts.token_signals import HIDDEN
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.sweep.values import SweptKey, parse_keys
from kdkit.core.distill.sweep.variation import Asked, Question, Reranking, Variation
from kdkit.core.distill.trials.trial import Measurement, digest_of
from kdkit.core.evaluation.answering.rerank import Reranker
from kdkit.core.evaluation.answering.select import select_answers
from kdkit.core.evaluation.answers import GivenAnswers
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.features import evaluating
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.evaluation.sweeps.clinkd import FIGURE_4, TABLE_2, TABLE_3
from kdkit.core.project.recipe import LossPart, Recipe, signals_read
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.teachers import open_teacher

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

CE, KD, VKD = "answer-ce", "token-kd", "answer-vkd"
ALPHAS = (0.0, 0.25, 0.5, 1.0, 2.0)
BASELINE = "answers alone"


@dataclass(frozen=True)
class _Settings:
    """Arguments of the question."""

    alphas: tuple[float, ...] = ALPHAS
    rope_alphas: tuple[float, ...] = ()
    rerank: str = ""
    samples: int = 5


def clinkd_question(asked: Asked) -> Question:
    """The rows of Table 2, Table 3 and Figure 4 on the project's data, student and teachers."""
    project = asked.project
    spec = project.catalogue.spec(StudentSpec, project.registry.student.family)
    if project.catalogue.spec(TaskSpec, spec.task).reads != "answers":
        raise KdkitError(
            "KD-DIST-398",
            f"the student '{project.registry.student.family}' does not answer questions",
            where=str(project.registry_path),
            fix="this question is for students of the family 'clinkd': docs/howto/answering-student.md",
        )
    settings, base = _settings(asked), _base(asked)
    rows = _Rows(asked, base, spec)
    sft, kd = rows.alone(), rows.distilled(0.5) if not _own_alpha(base) else base
    lacks_rope = rows.lacks("rope")
    mcg = {"rope": "mcg-rope"}
    both, every = (TABLE_2, TABLE_3), (TABLE_2, TABLE_3, FIGURE_4)
    rerank, lacks_rerank = _reranking(asked, settings)
    variations = [
        rows.make(BASELINE, sft, parts=every if 0.0 in settings.alphas else both, alpha=0.0),
        rows.make("Pseudo-KD", kd, parts=both),
        rows.make("MCG-RoPE", sft, parts=both, config=mcg, impossible=lacks_rope),
        rows.make("SASG", sft, parts=(TABLE_2,), rerank=rerank, impossible=lacks_rerank),
        rows.make("Pseudo-KD, MCG-RoPE", kd, parts=both, config=mcg, impossible=lacks_rope),
        rows.make("all", kd, parts=both, config=mcg, rerank=rerank, impossible=lacks_rope or lacks_rerank),
        rows.make(
            "RoPE-Mixed",
            sft,
            parts=(TABLE_3,),
            config={"vision_rope": "rope-mixed"},
            impossible=rows.lacks("vision_rope"),
        ),
        rows.make("V_kD", rows.orthogonal(), parts=(TABLE_3,), impossible=_lacks_hidden(asked)),
    ]
    for alpha in settings.alphas:
        if alpha:
            variations.append(rows.make(f"alpha {alpha:g}", rows.distilled(alpha), parts=(FIGURE_4,), alpha=alpha))
    for alpha in settings.rope_alphas:
        config = {"rope": {"name": "mcg-rope", "options": {"alpha": alpha}}}
        name = f"MCG-RoPE, alpha {alpha:g}"
        variations.append(rows.make(name, sft, parts=(TABLE_3,), config=config, impossible=lacks_rope))
    notes = (
        f"Recipe {base.name}: the rows differ in losses, positions and choice of answers alone, and take the same "
        "steps. Averages are means over modalities, then over tasks, as in the paper",
        "Alpha of Figure 4 is read as that of eq. 16, (CE + alpha T^2 KL) / (1 + alpha); rope-alpha=1,2,4 adds rows "
        "with other distances of MCG-RoPE",
    )
    return Question(tuple(variations), "alpha", notes)


@dataclass(frozen=True)
class _Rows:
    """Makes the rows."""

    asked: Asked
    base: Recipe
    spec: StudentSpec

    def make(
        self,
        name: str,
        recipe: Recipe,
        *,
        parts: tuple[str, ...],
        config: Mapping[str, Any] | None = None,
        alpha: float | None = None,
        rerank: Reranking | None = None,
        impossible: str = "",
    ) -> Variation:
        """A row; teachers that the recipe cannot read, such as the dual encoder that chooses, take no part."""
        project, catalogue = self.asked.project, self.asked.project.catalogue
        read = {signal for stage in recipe.in_order for signal in signals_read(stage, catalogue)}
        locked = project.lock.teachers
        names = [n for n in project.registry.teachers if n not in locked or set(locked[n].signals) & read]
        registry = self.asked.with_teachers(names).registry
        own = {"rope": "mrope"} if "rope" in self.spec.names else {}
        student = registry.student.model_copy(update={"config": {**registry.student.config, **own, **(config or {})}})
        values = {**(config or {}), **({} if alpha is None else {"alpha": alpha})}
        return Variation(
            name,
            project.with_registry(registry.model_copy(update={"student": student})),
            recipe,
            values | ({"answers": rerank.samples, "rerank": rerank.teacher} if rerank else {}),
            parts=parts,
            reranking=rerank,
            impossible=impossible,
        )

    def alone(self) -> Recipe:
        """Fine-tuning on the answers."""
        return self.with_losses((LossPart(name=CE, weight=1.0),))

    def distilled(self, alpha: float) -> Recipe:
        """Eq. 16 with this alpha, as two losses whose weights add up to 1."""
        options = next(loss.options for loss in _distilling(self.base).losses if loss.name == KD)
        weights = round(1 / (1 + alpha), 4), round(alpha / (1 + alpha), 4)
        return self.with_losses(
            (LossPart(name=CE, weight=weights[0]), LossPart(name=KD, weight=weights[1], options=options))
        )

    def orthogonal(self) -> Recipe:
        """V_kD of the states that predict the answer."""
        losses = LossPart(name=CE, weight=1.0), LossPart(name=VKD, weight=1.0)
        return self.with_losses(losses, heads="orthogonal")

    def with_losses(self, losses: tuple[LossPart, ...], **more: Any) -> Recipe:
        """The recipe with these losses in place of Pseudo-KD; its other stages stay."""

        def change(stage: Recipe) -> Recipe:
            return stage.model_copy(update={"losses": losses, **more}) if _distills(stage) else stage

        return self.base.in_every_stage(change)

    def lacks(self, key: str) -> str:
        """Why a row cannot vary this key of the student's config; empty if it can."""
        if key in self.spec.names:
            return ""
        return f"students of the family '{self.asked.project.registry.student.family}' have no '{key}'"


def _distills(stage: Recipe) -> bool:
    return {CE, KD} <= {loss.name for loss in stage.losses}


def _distilling(base: Recipe) -> Recipe:
    """The stage that is Pseudo-KD."""
    return next(stage for stage in base.in_order if _distills(stage))


def _own_alpha(base: Recipe) -> bool:
    return {loss.name for loss in _distilling(base).losses} == {CE, KD}


def _base(asked: Asked) -> Recipe:
    """The project's recipe if it, or a stage of it, is Pseudo-KD; else ``clinkd``."""
    if any(_distills(stage) for stage in asked.recipe.in_order):
        return asked.recipe
    project = asked.project
    return load_recipe("clinkd", project.catalogue, project.root).changed_by(project.registry)


def _settings(asked: Asked) -> _Settings:
    """Parse ``rerank=NAME``, ``samples=N``, ``alpha=A,A`` and ``rope-alpha=A,A``."""
    given: dict[str, Any] = {}
    for key in parse_keys(asked.arguments):
        if key.key in ("alpha", "rope-alpha"):
            given["alphas" if key.key == "alpha" else "rope_alphas"] = _numbers(key)
        elif key.key == "rerank":
            given["rerank"] = str(_only(key))
        elif key.key == "samples":
            count = _only(key)
            if not isinstance(count, int) or count < 2:
                raise KdkitError(
                    "KD-DIST-399", f"samples is {count}", where=key.place, fix="give a whole number from 2"
                )
            given["samples"] = count
        else:
            known = ["alpha", "rope-alpha", "rerank", "samples"]
            raise KdkitError(
                "KD-ANS-380",
                f"this question has no setting '{key.key}'",
                where=key.place,
                fix=did_you_mean(key.key, known),
            )
    return _Settings(**given)


def _numbers(key: SweptKey) -> tuple[float, ...]:
    for number, value in enumerate(key.values):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1000:
            raise KdkitError(
                "KD-ANS-381",
                f"{key.key} cannot be {value!r}",
                where=key.where(number),
                fix="give numbers of at least 0",
            )
    return tuple(float(value) for value in key.values)


def _only(key: SweptKey) -> Any:
    if len(key.values) != 1:
        raise KdkitError("KD-ANS-382", f"'{key.key}' has one value", where=key.place, fix="give one")
    return key.values[0]


def _reranking(asked: Asked, settings: _Settings) -> tuple[Reranking | None, str]:
    """The dual encoder that chooses answers, or why there is none."""
    project = asked.project
    locked = {name: project.lock.teachers.get(name) for name in project.registry.teachers}
    able = [name for name, facts in locked.items() if facts is not None and {IMAGE, TEXT} <= set(facts.signals)]
    if settings.rerank and settings.rerank not in able:
        raise KdkitError(
            "KD-ANS-383",
            f"'{settings.rerank}' is no dual encoder of this project",
            where="rerank",
            fix=did_you_mean(settings.rerank, able) if able else "'kdkit add-teacher NAME' adds one",
        )
    if not able:
        return None, "no dual encoder is in the registry to choose answers ('kdkit add-teacher NAME' adds one)"
    return Reranking(settings.rerank or able[0], settings.samples), ""


def _lacks_hidden(asked: Asked) -> str:
    project = asked.project
    locked = project.lock.teachers
    teaching = [name for name, entry in project.registry.teachers.items() if entry.may_teach]
    if any(name in locked and HIDDEN in locked[name].signals for name in teaching):
        return ""
    return "no teacher gives the states of its answers (the option 'hidden: true' of its loader)"


def measure_reranked(
    project: Project, inventory: TeachingInventory, split: Split, key: str, evaluated: str, reranking: Reranking
) -> Measurement:
    """The evaluation of a student's best of several sampled answers.

    Args:
        project: its registry has the dual encoder.
    """
    fingerprint = project.lock.teacher(reranking.teacher).fingerprint
    decoding = Decoding(samples=reranking.samples)

    def evaluate(student: nn.Module, folder: Path, reporter: Reporter) -> Evaluation:
        index = inventory.index
        evaluator = make_evaluator(project.registry, project.catalogue, index)
        rows = np.intersect1d(evaluator.rows(split), inventory.rows(split))
        device = str(next(student.parameters()).device)
        model = open_teacher(project, reranking.teacher, reporter=reporter).model
        journal = Journal(folder / "answers.jsonl", {"split": split, "samples": reranking.samples, "with": fingerprint})
        if not isinstance(student, Answering):
            raise TypeError("a student of a task that reads answers does not answer")
        with evaluating(student, device):
            reranker = Reranker(reranking.teacher, model, device)
            chosen = select_answers(student, index.keyed(rows), decoding, journal, reranker, reporter)
        view = GivenAnswers({answer.id: answer.text for answer in chosen})
        return compare_models(evaluator.task, [view], [], [index.samples[row] for row in rows], reporter=reporter)

    return Measurement(digest_of([key, evaluated, fingerprint, reranking.samples]), evaluate)
