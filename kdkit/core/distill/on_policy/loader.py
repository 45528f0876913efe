"""Batches in which the student answers a part of the questions itself, and live teachers score its answers.

The answers of a step come from the weights that the step before left. They are drawn between the two steps, with
numbers that follow from seed, step and sample: a resumed run draws them again, bit for bit. Nothing of them is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import OWN_TOKENS, Answer, Answering, Decoding, OwnTokens, Reporter, Sample, Student
from kdkit.core.contracts.token_signals import TOKENS
from kdkit.core.data.images import open_image
from kdkit.core.distill.loop.dataloader import DistillBatch, DistillDataLoader
from kdkit.core.distill.loop.distributed import get_rank
from kdkit.core.distill.loop.live_teacher import LiveTeacher
from kdkit.core.distill.on_policy.rows import OwnRows
from kdkit.core.distill.plan.checks import TOKENIZER, token_losses
from kdkit.core.distill.plan.compatibility import MAX_ANSWER
from kdkit.core.distill.plan.types import Floats, Indices, Plan
from kdkit.core.features.extract.answers import TOKENS as TEACHER_TOKENS
from kdkit.core.plugin_system.failures import plugin_errors
from kdkit.core.project.recipe import OnPolicyPart

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL.Image import Image

    from kdkit.core.data import SampleIndex
    from kdkit.core.distill.plan.inventory import TeachingInventory
    from kdkit.core.plugin_system.catalogue import Catalogue

Own = Mapping[str, Floats]
"""Teacher -> (b,) trust where it scores an own answer, else 0."""


class OnPolicyDataLoader:
    """The batches of a run with own answers; implements ``train.Batches``.

    Args:
        given: the batches with given answers, in which no teacher teaches the rows of own answers.
        own: puts own answers there.
        accelerator: for the precision of the student.
    """

    pauses: frozenset[int] = frozenset()

    def __init__(self, given: DistillDataLoader, own: OwnAnswers, accelerator: Accelerator) -> None:
        self._given, self._own, self._accelerator = given, own, accelerator

    def batches(self, start: int) -> Iterator[tuple[int, DistillBatch]]:
        """As ``train.Batches``: own answers of a step are drawn after the step before it."""
        for step, batch in self._given.batches(start):
            rows, weights = self._given.own(step)
            yield step, self._own.put_into(batch, step, rows, weights, self._accelerator.autocast())


@dataclass(frozen=True)
class OwnAnswers:
    """Draws the student's answers and collects the distributions of live teachers along them.

    Attributes:
        student: fulfills ``contracts.Student`` and ``contracts.Answering``.
        scorers: live teachers by name.
        part: of the recipe.
        seed: of the run.
        same_tokens: a loss compares token by token, so a teacher that splits an answer otherwise cannot teach it.
        reporter: hears of the first answer that a teacher cannot score.
    """

    student: nn.Module
    index: SampleIndex
    scorers: Mapping[str, LiveTeacher]
    part: OnPolicyPart
    seed: int
    same_tokens: bool
    reporter: Reporter
    _told: set[str] = field(default_factory=set)

    @property
    def rows(self) -> OwnRows:
        """Which samples have own answers."""
        return OwnRows(self.part.share, frozenset(self.scorers), self.seed)

    @cached_property
    def _identity(self) -> Mapping[str, str]:
        return dict(cast(Student, self.student).identity())

    def put_into(
        self, batch: DistillBatch, step: int, rows: Indices, weights: Own, precision: AbstractContextManager[Any]
    ) -> DistillBatch:
        """The batch of ``step`` with own answers in place of given ones.

        Args:
            rows: (b,) rows of the index of this rank's shard.
            weights: of the teachers that score own answers; a sample without one keeps its given answer.
            precision: context in which the student answers.
        """
        own = np.logical_or.reduce([weight > 0 for weight in weights.values()])
        places = np.flatnonzero(own)
        batch = replace(batch, own=torch.from_numpy(own))
        if not len(places):
            return batch
        samples = [self.index.samples[row] for row in rows[places].tolist()]
        images = [open_image(sample) for sample in samples]
        with precision:
            answers = self._answer(images, samples, step, rows[places])
        answered = dict(zip(places.tolist(), map(self._answered, samples, answers), strict=True))
        inputs = {
            place: prepared
            for image, (place, sample) in zip(images, answered.items(), strict=True)
            if (prepared := self._prepare(image, sample)) is not None
        }
        learned = {place: answered[place] for place in inputs}
        return self._scored(_with_inputs(batch, inputs), learned, weights)

    def _answer(self, images: Sequence[Image], samples: Sequence[Sample], step: int, rows: Indices) -> list[Answer]:
        part = self.part
        most = min(part.max_new or math.inf, int(self._identity.get(MAX_ANSWER, Decoding.max_new)))
        decoding = Decoding(max_new=int(most), batch_size=len(samples))
        if part.temperature:
            decoding = replace(
                decoding,
                samples=1,
                temperature=part.temperature,
                top_p=part.top_p,
                seed=_seed(self.seed, 10, step),
                seeds=tuple(_seed(self.seed, 11, step, row) for row in rows.tolist()),
            )
        with plugin_errors(f"the student failed to answer '{samples[0].id}' or a sample beside it", self.student):
            found = cast(Answering, self.student).answer(images, samples, decoding)
        return [answers[0] for answers in found]

    def _answered(self, sample: Sample, answer: Answer) -> Sample:
        """The sample with an own answer in place of its text."""
        own = {OWN_TOKENS: OwnTokens(self._identity.get(TOKENIZER, ""), answer.ids)} if answer.ids else {}
        return replace(sample, text=answer.text, extra={**sample.extra, **own})

    def _prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor] | None:
        """The student's inputs; None for a text that it cannot be taught."""
        try:
            return cast(Student, self.student).prepare(image, sample)
        except KdkitError as error:
            self._tell("the student", error)
            return None

    def _scored(self, batch: DistillBatch, answered: Mapping[int, Sample], weights: Own) -> DistillBatch:
        """The batch with the distributions and the trust of the scorers at the places of ``answered``."""
        first = get_rank() * len(next(iter(batch.inputs.values())))
        targets, trust, ids = dict(batch.targets), dict(batch.weights), batch.inputs.get(TOKENS)
        for name, teacher in self.scorers.items():
            places = [place for place in answered if weights[name][place] > 0]
            if not places:
                continue
            targets[name] = {signal: x.clone() for signal, x in targets[name].items()}
            trust[name] = trust[name].clone()
            for place, scored in zip(places, teacher.score([answered[place] for place in places]), strict=True):
                if isinstance(scored, KdkitError):
                    self._tell(f"teacher '{name}'", scored)
                elif ids is None or not self.same_tokens or _same_tokens(scored[TEACHER_TOKENS], ids[place].numpy()):
                    trust[name][first + place] = float(weights[name][place])
                    for signal, x in targets[name].items():
                        x[place] = torch.from_numpy(np.asarray(scored[signal]))
        return replace(batch, targets=targets, weights=trust)

    def _tell(self, who: str, error: KdkitError) -> None:
        if who not in self._told:
            self._told.add(who)
            self.reporter.warn(
                f"{who} cannot read an answer that the student gave ({error.what}); such answers teach nothing, and "
                "the log counts them as own/unscored"
            )


def make_own_answers(
    plan: Plan, inventory: TeachingInventory, student: nn.Module, catalogue: Catalogue, reporter: Reporter
) -> OwnAnswers | None:
    """Those of a plan; None for an offline run."""
    part = plan.recipe.on_policy
    if plan.on_policy is None or part is None:
        return None
    scorers = {name: inventory.live[name] for name in plan.on_policy.scorers}
    same = bool(token_losses(plan.recipe, catalogue))
    return OwnAnswers(student, inventory.index, scorers, part, plan.settings.seed, same, reporter)


def _with_inputs(batch: DistillBatch, prepared: Mapping[int, Mapping[str, Tensor]]) -> DistillBatch:
    """The batch with other student inputs at some places."""
    inputs = {name: x.clone() for name, x in batch.inputs.items()}
    for place, row in prepared.items():
        for name, x in row.items():
            inputs[name][place] = x
    return replace(batch, inputs=inputs)


def _same_tokens(theirs: np.ndarray[Any, Any], ours: np.ndarray[Any, Any]) -> bool:
    """Whether ids are equal wherever both have one."""
    most = min(len(theirs), len(ours))
    a, b = theirs[:most], ours[:most]
    return bool(((a == b) | (a < 0) | (b < 0)).all())


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
