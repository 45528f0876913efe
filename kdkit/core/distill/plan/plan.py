"""What a run will do, decided before anything is trained: who is new, what is replayed, how long."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.distill.correction.schedule import Rounds
from kdkit.core.distill.loop.sampler import Indices, Pool
from kdkit.core.distill.loop.train import TrainSettings
from kdkit.core.distill.plan.inventory import WITHOUT_TEACHERS, Survey
from kdkit.core.project.recipe import PreviousPart, Recipe
from kdkit.core.project.versions import Version


@dataclass(frozen=True)
class PlannedTeacher:
    """One teacher's part.

    Attributes:
        admitted: domain -> trust weight.
        samples: training samples that it may teach.
        new: the current version has not learnt from it (in this state of its weights and preprocessing).
        live: it is asked while training.
    """

    name: str
    fingerprint: str
    admitted: Mapping[str, float]
    samples: int
    new: bool
    live: bool = False


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        parent: the version that an increment starts from; None for a run from scratch.
        teachers: in the order of the registry.
        uncovered: domains of the training split that no teacher may teach; none where the recipe reads no teacher.
        unguarded: domains that the parent knows and no teacher may teach here, whether they are in the training
            split or not: what it knows of them nobody repeats. Without teachers, those without a training sample.
        previous: how the parent itself takes part; without weight, not at all.
        pools: where batches are drawn from.
        fresh: training samples that bring something new; ``replayed``: samples rehearsed beside them.
        left_out: training samples that nobody speaks of: no teacher may teach them, and no loss needs none.
        digest: of everything that decides the result; a run in progress is continued only under the same one.
        rounds: when the run is corrected; None for never.
    """

    recipe: Recipe
    parent: str | None
    teachers: tuple[PlannedTeacher, ...]
    uncovered: tuple[str, ...]
    unguarded: tuple[str, ...]
    previous: PreviousPart
    pools: tuple[Pool, ...]
    fresh: int
    replayed: int
    left_out: int
    batch_size: int
    settings: TrainSettings
    digest: str
    rounds: Rounds | None = None

    @property
    def new_teachers(self) -> tuple[str, ...]:
        return tuple(teacher.name for teacher in self.teachers if teacher.new)

    def to_json(self) -> dict[str, Any]:
        """What ``--dry-run --json`` prints."""
        return {
            "recipe": self.recipe.name,
            "parent": self.parent,
            "teachers": [asdict(teacher) for teacher in self.teachers],
            "uncovered": list(self.uncovered),
            "unguarded": list(self.unguarded),
            "previous": self.previous.model_dump(mode="json"),
            "fresh_samples": self.fresh,
            "replayed_samples": self.replayed,
            "left_out_samples": self.left_out,
            "batch_size": self.batch_size,
            "steps": self.settings.steps,
            "lr": self.settings.lr,
            "seed": self.settings.seed,
            "digest": self.digest,
            "correction": None if self.rounds is None else self.rounds.to_json(),
        }


def make_plan(recipe: Recipe, survey: Survey, parent: Version | None, student: Mapping[str, Any], *, seed: int) -> Plan:
    """Plan a run from scratch (``parent`` None) or an increment on ``parent``.

    Args:
        student: the registry's student entry as data; part of the digest.

    Raises:
        KdkitError: when nothing may be taught, or an increment would bring nothing new.
    """
    train = _training_samples(survey)
    known = {} if parent is None else {t.name: t.fingerprint for t in parent.lineage.teachers}
    teachers, taught = _teachers(survey, train, known)
    if teachers and not any(teacher.samples for teacher in teachers):
        raise KdkitError(
            "KD-DIST-033",
            "no teacher may teach any training sample",
            fix=f"'kdkit trust' shows the scores and what each policy would admit; {WITHOUT_TEACHERS}",
            code=ExitCode.FOUND,
        )
    present = [survey.table.domains[i] for i in np.unique(survey.table.domain_index[train])]
    covered = {domain for teacher in teachers for domain in teacher.admitted} if teachers else set(present)
    taught_here = covered & set(present)
    unguarded = () if parent is None else tuple(sorted(set(parent.lineage.data.known) - taught_here))
    spoken = _spoken_of(recipe, survey, train, taught, parent, unguarded)
    train, taught, left_out = train[spoken], {name: rows[spoken] for name, rows in taught.items()}, int((~spoken).sum())
    pools = _pools(recipe, survey, train, taught, teachers, parent, left_out)
    batch_size = min(recipe.optimizer.batch_size, len(train))
    plan = Plan(
        recipe=recipe,
        parent=None if parent is None else parent.name,
        teachers=teachers,
        uncovered=tuple(domain for domain in present if domain not in covered),
        unguarded=unguarded,
        previous=_previous(recipe, replays=len(pools) > 1, unguarded=unguarded),
        pools=pools,
        fresh=len(pools[-1].indices),
        replayed=sum(len(pool.indices) for pool in pools[:-1]),
        left_out=left_out,
        batch_size=batch_size,
        settings=_settings(recipe, len(train), batch_size, increment=parent is not None, seed=seed),
        digest="",
    )
    return replace(plan, digest=_digest(plan, survey, parent, student))


def _training_samples(survey: Survey) -> Indices:
    """Table rows that a run can use; without teachers, those that have a text to learn."""
    train = survey.samples("train")
    if survey.teachers:
        return train
    told: Indices = np.array([row for row in train if survey.table.samples[row].text], dtype=np.int64)
    if not len(told):
        raise KdkitError(
            "KD-DIST-034",
            "no training sample has an answer or a caption",
            why="the losses of the recipe read no teacher, and there is nothing else to learn from",
            fix="'kdkit data check' counts the samples; 'kdkit pseudo-label' lets a teacher answer open questions",
            code=ExitCode.FOUND,
        )
    return told


def _teachers(
    survey: Survey, train: Indices, known: Mapping[str, str]
) -> tuple[tuple[PlannedTeacher, ...], dict[str, np.ndarray[Any, Any]]]:
    taught = {name: survey.taught(name)[train] for name in survey.teachers}
    planned = tuple(
        PlannedTeacher(
            name=name,
            fingerprint=survey.columns[name].fingerprint,
            admitted=survey.admitted(name),
            samples=int(taught[name].sum()),
            new=known.get(name) != survey.columns[name].fingerprint,
            live=name in survey.live,
        )
        for name in survey.teachers
    )
    return planned, taught


def _spoken_of(
    recipe: Recipe,
    survey: Survey,
    train: Indices,
    taught: Mapping[str, np.ndarray[Any, Any]],
    parent: Version | None,
    unguarded: Sequence[str],
) -> np.ndarray[Any, Any]:
    """(N,) training samples of which somebody speaks: a teacher, a loss that needs none, or the previous version.

    Others would only take places in batches, and count as known when a teacher for them comes. What the parent has
    seen stays, to be rehearsed; where nothing is rehearsed the previous version, if it takes part, speaks of all.
    """
    if survey.alone or not taught:
        return np.ones(len(train), dtype=bool)
    able: np.ndarray[Any, Any] = np.logical_or.reduce(list(taught.values()))
    if parent is None:
        return able
    seen = np.isin(survey.table.digests[train], parent.known_samples())
    rehearses = bool(recipe.increment.replay) and seen.any()
    if not rehearses and _previous(recipe, replays=False, unguarded=unguarded).weight:
        return np.ones(len(train), dtype=bool)
    return able | seen


def _pools(
    recipe: Recipe,
    survey: Survey,
    train: Indices,
    taught: Mapping[str, np.ndarray[Any, Any]],
    teachers: tuple[PlannedTeacher, ...],
    parent: Version | None,
    left_out: int,
) -> tuple[Pool, ...]:
    """Replayed samples first, those that bring something new last.

    Fresh are samples that the version has not seen; without any, those that a new teacher may teach. (What a
    new teacher says about samples that are known reaches the student in the replay pool as well.) No fresh
    sample is shown more than ``increment.oversample`` times as often as a run from scratch would show it.
    """
    if parent is None:
        return (_pool(recipe, survey, train, np.ones(len(train), dtype=bool), 1.0),)
    unseen = ~np.isin(survey.table.digests[train], parent.known_samples())
    newly = np.zeros(len(train), dtype=bool)
    for teacher in teachers:
        if teacher.new:
            newly |= taught[teacher.name]
    fresh = unseen if unseen.any() else newly
    if not fresh.any():
        raise _nothing_new(parent, teachers, left_out)
    if not recipe.increment.replay or unseen.all():
        return (_pool(recipe, survey, train, unseen | newly, 1.0),)
    share = min(1 - recipe.increment.replay, recipe.increment.oversample * fresh.mean() / recipe.increment.steps)
    return (
        _pool(recipe, survey, train, ~unseen, 1 - share),
        _pool(recipe, survey, train, fresh, share),
    )


def _pool(recipe: Recipe, survey: Survey, train: Indices, chosen: np.ndarray[Any, Any], share: float) -> Pool:
    indices = train[chosen]
    return Pool(
        indices=indices,
        domain=survey.table.domain_index[indices],
        share=share,
        domain_power=recipe.sampling.domain_power,
        domains_per_batch=recipe.sampling.domains_per_batch,
    )


def _previous(recipe: Recipe, *, replays: bool, unguarded: Sequence[str]) -> PreviousPart:
    """The recipe's ``previous``, or what stands in for a replay that is not possible here."""
    increment = recipe.increment
    stand_in = bool(increment.replay and unguarded) and not replays
    return increment.without_replay if stand_in and not increment.previous.weight else increment.previous


def _nothing_new(parent: Version, teachers: tuple[PlannedTeacher, ...], left_out: int) -> KdkitError:
    idle = [teacher.name for teacher in teachers if teacher.new]
    why = f"{parent.name} has learnt from every teacher and every training sample of the registry"
    fix = "'kdkit add-teacher NAME' or add data; 'kdkit trust' shows what the policy admits"
    if left_out:
        why = f"no teacher may teach any of the {left_out} training samples that it has not seen"
    if not teachers:
        why = f"the recipe reads no teacher, and {parent.name} has seen every training sample"
        fix = "add data, or name a recipe that reads teachers: 'kdkit recipes'"
    if idle:
        why = f"the new teacher {', '.join(idle)} may teach no sample: the trust policy admits it nowhere"
    return KdkitError(
        "KD-DIST-035",
        f"there is nothing new since {parent.name}",
        why=why,
        fix=fix,
    )


def _settings(recipe: Recipe, samples: int, batch_size: int, *, increment: bool, seed: int) -> TrainSettings:
    optimizer, change = recipe.optimizer, recipe.increment
    steps = optimizer.steps or max(1, math.ceil((optimizer.epochs or 1) * samples / batch_size))
    lr = optimizer.lr
    if increment:
        steps, lr = max(1, math.ceil(change.steps * steps)), change.lr_factor * lr
    return TrainSettings(
        steps=steps,
        lr=lr,
        weight_decay=optimizer.weight_decay,
        betas=optimizer.betas,
        warmup=optimizer.warmup,
        schedule=optimizer.schedule,
        clip_norm=optimizer.clip_norm,
        ema=optimizer.ema,
        seed=seed,
    )


def _digest(plan: Plan, survey: Survey, parent: Version | None, student: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the result; where and how fast it runs does not."""
    text = json.dumps(
        {
            "recipe": plan.recipe.model_dump(mode="json"),
            "parent": None if parent is None else [parent.name, parent.lineage.created],
            "student": student,
            "domains": list(survey.table.domains),
            "teachers": [[t.name, t.fingerprint, dict(t.admitted)] for t in plan.teachers],
            "batch_size": plan.batch_size,
            "steps": plan.settings.steps,
            "seed": plan.settings.seed,
        },
        sort_keys=True,
    )
    digest = hashlib.sha256(text.encode())
    for pool in plan.pools:
        digest.update(survey.table.digests[pool.indices].tobytes())
        digest.update(pool.domain.tobytes())
    return digest.hexdigest()
