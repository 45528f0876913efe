"""The plan of a run, made before anything is trained: which teachers are new, which samples are replayed, how long."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.data.conversations import number_conversations
from kdkit.core.data.index import SampleIndex
from kdkit.core.distill.plan.better_teachers import better_teachers
from kdkit.core.distill.plan.inventory import WITHOUT_TEACHERS, TeachingInventory
from kdkit.core.distill.plan.types import Indices, Mask, Plan, PlannedTeacher, SamplePool, TrainSettings
from kdkit.core.evaluation.sampling import sample_groups
from kdkit.core.project.recipe import PreviousPart, Recipe
from kdkit.core.project.versions import Version

NOTHING_NEW = "KD-DIST-035"
"""Error of an increment that would bring nothing new."""
Taught = Mapping[str, Mask]
"""Teacher -> (n,) which of n training samples it may teach."""


def make_plan(
    recipe: Recipe, inventory: TeachingInventory, parent: Version | None, student: Mapping[str, Any], *, seed: int
) -> Plan:
    """Plan a run from scratch (``parent`` None) or an increment on ``parent``.

    Args:
        recipe: with the registry's changes to its optimizer.
        inventory: samples, columns and trust.
        student: the registry's student entry as data; part of the digest.

    Raises:
        KdkitError: no teacher may teach a training sample, or an increment would bring nothing new.

    Example:
        A recipe that learns from captions alone, and four training samples of which one has no caption:

        >>> from pathlib import Path
        >>> from kdkit.core.contracts import Sample
        >>> from kdkit.core.data import SampleIndex
        >>> texts, digests = ["a cat", "a dog", "", "a cow"], np.arange(4, dtype=np.uint64)
        >>> samples = tuple(Sample(str(n), Path("x.png"), text, "pets") for n, text in enumerate(texts))
        >>> index = SampleIndex(samples, digests, np.zeros(4, dtype=bool))
        >>> recipe = Recipe.model_validate({
        ...     "name": "captions", "summary": "captions alone", "losses": [{"name": "clip"}],
        ...     "trust": {"policy": "all"}, "optimizer": {"lr": 0.01, "batch_size": 2, "epochs": 4},
        ... })
        >>> plan = make_plan(recipe, TeachingInventory.without_teachers(index), None, {}, seed=0)
        >>> plan.pools[0].indices.tolist(), plan.fresh, plan.settings.steps
        ([0, 1, 3], 3, 6)
    """
    if inventory.trust.by != "label":  # recorded, whether the recipe says so or the data have no labels
        trust = recipe.trust.model_copy(update={"by": inventory.trust.by})
        recipe = recipe.model_copy(update={"trust": trust})
    train = _training_samples(inventory)
    teachers = _planned_teachers(inventory, train, parent)
    present = [inventory.index.domains[i] for i in np.unique(inventory.index.domain_index[train])]
    covered = {domain for teacher in teachers for domain in teacher.admitted} if teachers else set(present)
    known = set() if parent is None else set(parent.lineage.data.known)
    unrehearsed = tuple(sorted(known - (covered & set(present))))
    taught = {name: inventory.taught(name)[train] for name in inventory.teachers}
    usable = _usable(recipe, inventory, train, taught, parent, unrehearsed)
    if not usable.any() or (not inventory.learns_alone and not any(teacher.samples for teacher in teachers)):
        raise _nothing_teaches()
    train, taught, skipped = train[usable], {name: rows[usable] for name, rows in taught.items()}, int((~usable).sum())
    better = better_teachers(inventory, teachers, parent)
    fresh = None if parent is None else _fresh(recipe, inventory, train, taught, teachers, better, parent, skipped)
    batch_size = min(recipe.optimizer.batch_size, len(train))
    everything = _all_samples(recipe, inventory, train)
    whole = recipe.optimizer.length(sum(everything.pass_sizes().values()))
    steps = whole if fresh is None else max(1, math.ceil(_length(recipe, float(fresh.mean())) * whole))
    pools = _pools(recipe, everything, fresh, steps / whole)
    plan = Plan(
        recipe=recipe,
        parent=None if parent is None else parent.name,
        teachers=teachers,
        domains_without_teacher=tuple(domain for domain in present if domain not in covered),
        domains_without_rehearsal=unrehearsed,
        captions=inventory.caption_weights,
        better=better,
        previous=_previous(recipe, replays=len(pools) > 1, unrehearsed=unrehearsed),
        pools=pools,
        fresh=len(pools[-1].indices),
        replayed=sum(len(pool.indices) for pool in pools[:-1]),
        skipped_samples=skipped,
        domains=inventory.index.domains,
        batch_size=batch_size,
        settings=_settings(recipe, steps, increment=parent is not None, seed=seed),
        digest="",
    )
    plan = replace(plan, augmented=_augmented(plan, train, taught))
    return replace(plan, digest=_digest(plan, inventory, parent, student))


def _augmented(plan: Plan, train: Indices, taught: Taught) -> int:
    """Samples of which no teacher, nor the previous version, needs the plain view."""
    if plan.recipe.augment is None:
        return 0
    plain = np.logical_or.reduce([np.zeros(len(train), dtype=bool), *taught.values()])
    if plan.parent is not None and plan.previous.weight:
        plain |= np.isin(train, plan.rehearsed)
    return int((~plain & np.isin(train, plan.samples)).sum())


def _training_samples(inventory: TeachingInventory) -> Indices:
    """Rows that a run can use; without teachers, those with a text to learn."""
    train = inventory.rows("train")
    if inventory.teachers:
        return train
    texts: Indices = train[inventory.index.has_text[train]]
    if not len(texts):
        raise KdkitError(
            "KD-DIST-034",
            "no training sample has an answer or a caption",
            why="the losses of the recipe read no teacher, and there is nothing else to learn from",
            fix="'kdkit data check' counts the samples; 'kdkit pseudo-label' lets a teacher answer open questions",
            code=ExitCode.FOUND,
        )
    return texts


def _planned_teachers(
    inventory: TeachingInventory, train: Indices, parent: Version | None
) -> tuple[PlannedTeacher, ...]:
    known = {} if parent is None else {t.name: t.fingerprint for t in parent.lineage.teachers}
    fingerprints = {name: inventory.columns[name].fingerprint for name in inventory.teachers}
    return tuple(
        PlannedTeacher(
            name=name,
            fingerprint=fingerprint,
            admitted=inventory.admitted(name),
            samples=int(inventory.taught(name)[train].sum()),
            new=known.get(name) != fingerprint,
            live=name in inventory.live,
        )
        for name, fingerprint in fingerprints.items()
    )


def _usable(
    recipe: Recipe,
    inventory: TeachingInventory,
    train: Indices,
    taught: Taught,
    parent: Version | None,
    unrehearsed: Sequence[str],
) -> Mask:
    """(n,) training samples from which a teacher, the sample's own text or the previous version can teach.

    Others would waste places in batches, and would count as known when a teacher for them is added. Samples that the
    parent has seen stay, for rehearsal. Without rehearsal the previous version, if it takes part, covers all samples.
    """
    if not taught:
        return np.ones(len(train), dtype=bool)
    covered: Mask = np.logical_or.reduce(list(taught.values()))
    if inventory.learns_alone:
        covered = covered | (inventory.caption_targets().weight[train] > 0)
    if parent is None:
        return covered
    seen = np.isin(inventory.index.digests[train], parent.known_samples())
    rehearses = bool(recipe.increment.replay) and seen.any()
    if not rehearses and _previous(recipe, replays=False, unrehearsed=unrehearsed).weight:
        return np.ones(len(train), dtype=bool)
    return covered | seen


def _fresh(
    recipe: Recipe,
    inventory: TeachingInventory,
    train: Indices,
    taught: Taught,
    teachers: Sequence[PlannedTeacher],
    better: Mapping[str, tuple[str, ...]],
    parent: Version,
    skipped: int,
) -> Mask:
    """(n,) training samples that bring the parent something new: those that it has not seen, and known ones of domains
    in which a new teacher is better than it. Without either, or without replay, all that a new teacher may teach."""
    unseen = ~np.isin(inventory.index.digests[train], parent.known_samples())
    domain, improved, newly_taught = inventory.index.domain_index[train], *np.zeros((2, len(train)), dtype=bool)
    for teacher in (teacher for teacher in teachers if teacher.new):
        newly_taught |= taught[teacher.name]
        wanted = [inventory.index.domains.index(name) for name, found in better.items() if teacher.name in found]
        improved |= taught[teacher.name] & np.isin(domain, wanted)
    fresh: Mask = unseen | (improved if recipe.increment.replay else newly_taught)
    fresh = fresh if fresh.any() else newly_taught
    if not fresh.any():
        raise _nothing_new(parent, teachers, skipped)
    return fresh


def _length(recipe: Recipe, fresh: float) -> float:
    """Steps of an increment as a fraction of a run from scratch; ``fresh``: share of the samples that is fresh."""
    increment = recipe.increment
    if increment.exposure is None:
        return increment.steps
    return min(increment.steps, increment.exposure * fresh / (1 - increment.replay))


def _all_samples(recipe: Recipe, inventory: TeachingInventory, train: Indices) -> SamplePool:
    """The pool of a run from scratch."""
    sampling, (group, image) = recipe.sampling, grouped(inventory.index, train, recipe.sampling.max_per_group)
    domain = inventory.index.domain_index[train]
    power, mixed = sampling.domain_power, sampling.domains_per_batch
    turns = number_turns(recipe, inventory.index, train)
    return SamplePool(
        train,
        domain,
        1.0,
        power,
        mixed,
        group,
        sampling.max_per_group,
        image,
        turns,
        blocks=sampling.order == "blocks",
        ranges=sampling.ranges,
    )


def number_turns(recipe: Recipe, index: SampleIndex, rows: Indices) -> Indices | None:
    """``conversation`` of a :class:`SamplePool` of these rows."""
    if recipe.sampling.conversations == "apart":
        return None
    return number_conversations([index.samples[row] for row in rows])


def tell_conversations(plan: Plan, reporter: Reporter) -> None:
    """Say how many turns come together, where the recipe asks for that; warn if the data has no conversations."""
    found = [pool.conversation for pool in plan.pools if pool.conversation is not None]
    if not found:
        return
    counts = np.concatenate([np.unique(turns, return_counts=True)[1] for turns in found])
    several = counts[counts > 1]
    if len(several):
        reporter.say(f"{int(several.sum())} training samples are turns of {len(several)} conversations")
    else:
        reporter.warn(
            "'sampling.conversations: together' changes nothing: no two training samples share a conversation"
        )


def grouped(index: SampleIndex, rows: Indices, max_per_group: int | None) -> tuple[Indices | None, Indices | None]:
    """``group`` and ``image`` of a :class:`SamplePool` of these rows."""
    group = None if max_per_group is None else sample_groups([index.samples[row] for row in rows])
    image = None if index.caption_groups is None else index.caption_groups[rows]
    if group is not None and image is not None:  # captions of two groups are two images
        image = np.unique(np.stack([image, group]), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return group, image


def _pools(recipe: Recipe, everything: SamplePool, fresh: Mask | None, length: float) -> tuple[SamplePool, ...]:
    """Replayed samples first, fresh ones last; ``fresh`` None: a run from scratch.

    No fresh sample is shown more than ``increment.oversample`` times as often as in a run from scratch.
    """
    if fresh is None:
        return (everything,)
    increment = recipe.increment
    if not increment.replay or fresh.all():
        return (everything.part(fresh, 1.0),)
    share = min(1 - increment.replay, increment.oversample * float(fresh.mean()) / length)
    return (everything.part(~fresh, 1 - share), everything.part(fresh, share))


def _previous(recipe: Recipe, *, replays: bool, unrehearsed: Sequence[str]) -> PreviousPart:
    """The recipe's ``previous``, or its ``without_replay`` where samples that need rehearsal are not here."""
    increment = recipe.increment
    replay_impossible = bool(increment.replay and unrehearsed) and not replays
    return increment.without_replay if replay_impossible and not increment.previous.protects else increment.previous


def _nothing_teaches() -> KdkitError:
    return KdkitError(
        "KD-DIST-033",
        "no teacher may teach any training sample",
        fix=f"'kdkit trust' shows the scores and what each policy would admit; {WITHOUT_TEACHERS}",
        code=ExitCode.FOUND,
    )


def _nothing_new(parent: Version, teachers: Sequence[PlannedTeacher], skipped: int) -> KdkitError:
    idle = [teacher.name for teacher in teachers if teacher.new]
    why = f"{parent.name} has learned from every teacher and every training sample of the registry"
    fix = "'kdkit add-teacher NAME' or add data; 'kdkit trust' shows what the policy admits"
    if skipped:
        why = f"no teacher may teach any of the {skipped} training samples that it has not seen"
    if not teachers:
        why = f"the recipe reads no teacher, and {parent.name} has seen every training sample"
        fix = "add data, or name a recipe that reads teachers: 'kdkit recipes'"
    if idle:
        why = f"the new teacher {', '.join(idle)} may teach no sample: the trust policy admits it nowhere"
    fix += "; --continue trains it once more, on all samples"
    return KdkitError("KD-DIST-035", f"there is nothing new since {parent.name}", why=why, fix=fix)


def _settings(recipe: Recipe, steps: int, *, increment: bool, seed: int) -> TrainSettings:
    optimizer = recipe.optimizer
    return TrainSettings(
        steps=steps,
        lr=optimizer.lr * (recipe.increment.lr_factor if increment else 1),
        weight_decay=optimizer.weight_decay,
        betas=optimizer.betas,
        warmup=optimizer.warmup,
        schedule=optimizer.schedule,
        clip_norm=optimizer.clip_norm,
        ema=optimizer.ema,
        most_skipped=optimizer.max_skipped if optimizer.on_nan == "skip" else 0,
        seed=seed,
    )


def _digest(plan: Plan, inventory: TeachingInventory, parent: Version | None, student: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides the result; device and speed do not.

    What happens after a step that is not finite does not count: a run that stopped there continues with a new choice.
    """
    unread = {"optimizer": {"micro_batch", "pack_tokens", "on_nan", "max_skipped"}}
    text = json.dumps(
        {
            "recipe": plan.recipe.model_dump(mode="json", exclude=unread),
            "parent": None if parent is None else [parent.name, parent.lineage.created],
            "student": student,
            "domains": list(inventory.index.domains),
            "teachers": [[t.name, t.fingerprint, dict(t.admitted)] for t in plan.teachers],
            "captions": dict(plan.captions),
            "batch_size": plan.batch_size,
            "steps": plan.settings.steps,
            "seed": plan.settings.seed,
        },
        sort_keys=True,
    )
    digest = hashlib.sha256(text.encode())
    if inventory.samples is not None:
        digest.update(np.ascontiguousarray(inventory.samples).tobytes())
    for pool in plan.pools:
        digest.update(inventory.index.digests[pool.indices].tobytes())
        digest.update(pool.domain.tobytes())
        for numbers in (pool.group, pool.image):
            if numbers is not None:
                digest.update(numbers.tobytes())
    return digest.hexdigest()
