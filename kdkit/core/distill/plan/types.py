"""What a run is made of, decided before it starts: frozen values without behavior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from kdkit.core.project.recipe import PreviousPart, Recipe

Indices = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

PREVIOUS = "@previous"
"""Name of the student's previous version where it takes part as a teacher; no teacher can have it."""


@dataclass(frozen=True)
class SamplePool:
    """Samples from which a share of every batch is drawn.

    Attributes:
        indices: rows of the sample index.
        domain: domain of each of them, same length.
        share: fraction of the batch in (0, 1].
        domain_power: domains are drawn with probability proportional to (their size) ** domain_power:
            1 keeps the data's proportions, 0 makes all domains equal.
        domains_per_batch: how many domains one batch mixes; None for all.
        group: equal numbers for samples of one group (patient), same length; None if ``max_per_group`` is None.
        max_per_group: samples of a group, at most, in one pass over its domain; others follow in later passes. A
            domain's size counts no more of them.
        image: equal numbers for the captions of one image, same length: a pass takes one of them, at random. None if
            no image has several captions.
        conversation: equal numbers for the turns of one conversation, same length, which follow each other in a pass;
            None to mix them.
        blocks: neighbors in the index are drawn in neighboring steps, so that a store is read block by block.
        ranges: each fills an equal share of a batch, in order, from its own range of the rows of every domain.
    """

    indices: Indices
    domain: Indices
    share: float = 1.0
    domain_power: float = 1.0
    domains_per_batch: int | None = None
    group: Indices | None = None
    max_per_group: int | None = None
    image: Indices | None = None
    conversation: Indices | None = None
    blocks: bool = False
    ranges: int = 1

    def range_of_each(self) -> Indices:
        """The range of each sample, in [0, ranges); samples of one group, image or conversation share one."""
        found = np.empty(len(self.indices), dtype=np.int64)
        for domain in np.unique(self.domain):
            members = np.flatnonzero(self.domain == domain)
            members = members[np.argsort(self.indices[members], kind="stable")]
            found[members] = np.arange(len(members)) * self.ranges // len(members)
        for numbers in (self.conversation, *(numbers for numbers, _ in self.limits)):
            if numbers is not None:
                pairs = np.stack([self.domain, numbers])
                _, first, which = np.unique(pairs, axis=1, return_index=True, return_inverse=True)
                found = found[first[which.reshape(-1)]]
        return found

    @property
    def limits(self) -> list[tuple[Indices, int]]:
        """(numbers, how many samples of one number a pass takes) pairs, in the order in which they apply."""
        found = [] if self.image is None else [(self.image, 1)]
        if self.group is not None and self.max_per_group is not None:
            found.append((self.group, self.max_per_group))
        return found

    def part(self, chosen: Mask, share: float) -> SamplePool:
        """A pool of the ``chosen`` samples alone."""
        numbers = (self.group, self.image, self.conversation)
        group, image, turns = (None if one is None else one[chosen] for one in numbers)
        indices, domain = self.indices[chosen], self.domain[chosen]
        return replace(self, indices=indices, domain=domain, group=group, image=image, conversation=turns, share=share)

    def pass_sizes(self) -> dict[int, int]:
        """Domain -> samples of one pass over it."""
        kept = np.arange(len(self.domain))
        for numbers, limit in self.limits:
            kept = first_of_each(kept, self.domain, numbers, limit)
        domains, counts = np.unique(self.domain[kept], return_counts=True)
        return dict(zip(domains.tolist(), counts.tolist(), strict=True))


def first_of_each(order: Indices, domain: Indices, numbers: Indices, limit: int) -> Indices:
    """The places ``order`` without those that follow ``limit`` others of the same domain and number.

    Example:
        >>> zeros = np.zeros(5, dtype=np.int64)
        >>> first_of_each(np.array([3, 0, 4, 1, 2]), zeros, np.array([0, 0, 0, 1, 1]), 1).tolist()
        [3, 0]
    """
    pairs = np.stack([domain[order], numbers[order]])
    by_pair = np.lexsort(pairs)  # stable
    starts = np.flatnonzero(np.r_[True, (np.diff(pairs[:, by_pair]) != 0).any(axis=0)][: len(order)])
    rank = np.empty(len(order), dtype=np.int64)
    rank[by_pair] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return order[rank < limit]


@dataclass(frozen=True)
class TrainSettings:
    """How to train; all of it follows from the recipe and the plan.

    Attributes:
        steps: optimizer steps.
        lr: peak learning rate.
        warmup: fraction of the steps with a linear rise.
        schedule: ``cosine`` to zero, or ``constant``.
        clip_norm: global gradient norm, or None.
        ema: decay of an exponential moving average of the weights, which the run then keeps; or None.
        most_skipped: steps in a row whose loss or gradient is not a finite number before the run ends; 0 for none.
        checkpoint_seconds: time between checkpoints.
    """

    steps: int
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    warmup: float
    schedule: str
    clip_norm: float | None
    seed: int
    ema: float | None = None
    most_skipped: int = 0
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True, eq=False)
class CorrectionSchedule:
    """The correction rounds of a run: the student answers, and is then also taught what it got wrong.

    Attributes:
        steps: a round follows each of these optimizer steps; ascending, none after the last step.
        epoch: steps of one epoch; may be fractional.
        samples: rows of the sample index that rounds draw from; ``per_round`` of them each time.
        corrector: the teacher that rewrites, or ``reference``.
        fingerprint: of that teacher; empty for the reference.
        seed: of the draws.
    """

    steps: tuple[int, ...]
    epoch: float
    samples: Indices
    per_round: int
    corrector: str
    fingerprint: str
    seed: int

    def chosen(self, number: int) -> Indices:
        """(per_round,) rows of round ``number``, ascending."""
        if self.per_round == len(self.samples):
            return self.samples
        drawn = np.random.default_rng([self.seed, 5, number]).permutation(self.samples)[: self.per_round]
        return np.sort(drawn)

    def epoch_of(self, number: int) -> float:
        """Epochs before round ``number``."""
        return round(self.steps[number] / self.epoch, 3)

    def to_json(self) -> dict[str, Any]:
        """The form of ``--dry-run --json``."""
        return {"steps": list(self.steps), "answers_per_round": self.per_round, "corrector": self.corrector}


@dataclass(frozen=True)
class OnPolicyPlan:
    """The own answers of a run with ``on_policy``.

    Attributes:
        scorers: live teachers that give their distributions along own answers -> how many, about.
        given_only: other teachers of the run, which teach along given answers alone -> why.
        answers: own answers, about: the share of the drawn samples that a scorer may teach.
        drawn: samples that batches draw in all.
    """

    scorers: Mapping[str, int]
    given_only: Mapping[str, str]
    answers: int
    drawn: int


@dataclass(frozen=True)
class PlannedTeacher:
    """One teacher's part in a run.

    Attributes:
        admitted: domain -> trust weight.
        samples: training samples that it may teach.
        new: the parent version has not learned from it (in this state of its weights and preprocessing).
        live: it computes its signals during training.
        skipping_losses: losses of the recipe that need a signal that it does not give.
    """

    name: str
    fingerprint: str
    admitted: Mapping[str, float]
    samples: int
    new: bool
    live: bool = False
    skipping_losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class StagePlace:
    """Where a plan stands in a recipe with stages.

    Attributes:
        number: from 1.
        count: of the recipe's stages, those that a run leaves out included.
        recipe: the whole one, in the plan of the last stage.
    """

    number: int
    count: int
    recipe: Recipe | None = None

    @property
    def title(self) -> str:
        """``stage 2 of 2``."""
        return f"stage {self.number} of {self.count}"


@dataclass(frozen=True)
class Plan:
    """A run, or one stage of it.

    Attributes:
        parent: the version that an increment starts from; None for a run from scratch.
        teachers: in the order of the registry.
        domains_without_teacher: domains of the training split that no teacher may teach; none if the recipe reads no
            teacher.
        domains_without_rehearsal: domains that the parent knows and that no teacher rehearses here, in the training
            split or not. Without teachers, those without a training sample.
        captions: domain -> trust weight of its captions; 1 unless the trust policy weighs them.
        better: known domain -> new teachers that are better there than the parent, so that its samples are fresh.
        previous: how the parent itself takes part: as an extra teacher, by directions of its weights that stay.
        pools: where batches are drawn from; the last one holds the fresh samples.
        fresh: training samples that bring something new; ``replayed``: samples rehearsed beside them.
        skipped_samples: training samples that no teacher covers and whose own text, if any, does not count.
        digest: of everything that decides the result; an interrupted run continues only under the same one.
        correction: rounds of correction; None without them.
        on_policy: own answers; None without them.
        finished: the version that this plan has made already, if any.
        idle_losses: losses of the recipe that a batch of this size cannot teach.
        augmented: training samples that get random views, because no teacher covers them.
        domains_not_judged: domains that the run trains and the calibration split cannot measure.
        domains: names of the domain numbers in ``pools``.
        continued: it starts from the parent, and does what a run from scratch does: all samples, the recipe's own
            length and rate.
        stage: None where the recipe has no stages.
    """

    recipe: Recipe
    parent: str | None
    teachers: tuple[PlannedTeacher, ...]
    domains_without_teacher: tuple[str, ...]
    domains_without_rehearsal: tuple[str, ...]
    captions: Mapping[str, float]
    better: Mapping[str, tuple[str, ...]]
    previous: PreviousPart
    pools: tuple[SamplePool, ...]
    fresh: int
    replayed: int
    skipped_samples: int
    batch_size: int
    settings: TrainSettings
    digest: str
    correction: CorrectionSchedule | None = None
    on_policy: OnPolicyPlan | None = None
    domains_not_judged: tuple[str, ...] = ()
    idle_losses: tuple[str, ...] = ()
    augmented: int = 0
    finished: str | None = None
    domains: tuple[str, ...] = ()
    continued: bool = False
    stage: StagePlace | None = None

    @property
    def increments(self) -> bool:
        """Whether ``increment`` of the recipe applies."""
        return self.parent is not None and not self.continued

    @property
    def whole_recipe(self) -> Recipe:
        """In the plan of the last stage that of the run, with all stages; else that of the plan."""
        return self.recipe if self.stage is None or self.stage.recipe is None else self.stage.recipe

    @property
    def new_teachers(self) -> tuple[str, ...]:
        return tuple(teacher.name for teacher in self.teachers if teacher.new)

    @property
    def samples(self) -> Indices:
        """Rows of the sample index that batches are drawn from, ascending."""
        return np.unique(np.concatenate([pool.indices for pool in self.pools]))

    @property
    def rehearsed(self) -> Indices:
        """Rows that the previous version teaches: the replayed ones, ascending.

        Without replay the new ones instead (LwF, arXiv 1606.09282): there are no others.
        """
        return np.unique(np.concatenate([pool.indices for pool in self.pools[:-1] or self.pools]))

    def to_json(self) -> dict[str, Any]:
        """The form of ``--dry-run --json``."""
        return {
            "recipe": self.recipe.name,
            "stage": None if self.stage is None else {"number": self.stage.number, "count": self.stage.count},
            "parent": self.parent,
            "continued": self.continued,
            "teachers": [asdict(teacher) for teacher in self.teachers],
            "trust": self.recipe.trust.model_dump(mode="json"),
            "domains_without_teacher": list(self.domains_without_teacher),
            "domains_without_rehearsal": list(self.domains_without_rehearsal),
            "captions": dict(self.captions),
            "better": {domain: list(names) for domain, names in self.better.items()},
            "previous": self.previous.model_dump(mode="json"),
            "fresh_samples": self.fresh,
            "replayed_samples": self.replayed,
            "skipped_samples": self.skipped_samples,
            "batch_size": self.batch_size,
            "steps": self.settings.steps,
            "lr": self.settings.lr,
            "seed": self.settings.seed,
            "digest": self.digest,
            "finished": self.finished,
            "idle_losses": list(self.idle_losses),
            "augmented_samples": self.augmented,
            "domains_not_judged": list(self.domains_not_judged),
            "correction": None if self.correction is None else self.correction.to_json(),
            "on_policy": None if self.on_policy is None else asdict(self.on_policy),
        }
