"""What a run can teach with: samples, the teachers' columns, and which teacher may teach which domain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Split, TrustPolicySpec, TrustTable
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.unreadable import find_skipped
from kdkit.core.distill.loop.live_teacher import LiveTeacher
from kdkit.core.distill.plan.columns import complete_columns, live_device, open_live
from kdkit.core.distill.plan.guard import check_guard
from kdkit.core.distill.plan.targets import CaptionTargets, TeacherTargets
from kdkit.core.distill.plan.types import Floats, Indices, Mask
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.trust.measure import choose_basis, measure_trust, read_sample_scores
from kdkit.core.evaluation.trust.measurements import LEVEL, make_trust_table
from kdkit.core.evaluation.trust.weights import (
    TrustGate,
    domains_of_one_signal,
    domains_without_teacher,
    teachers_without_domain,
    warn_about_gaps,
    without_captions,
)
from kdkit.core.features import Column, FeatureStore
from kdkit.core.features.extract.canary import require_same_model
from kdkit.core.features.extract.missing import extraction_hint
from kdkit.core.project.recipe import Recipe, learns_alone, signals_read

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.lock import Lock
    from kdkit.core.project.registry.schema import Registry
    from kdkit.core.teachers import OpenTeacher

WITHOUT_TEACHERS = "recipes 'sft' (answers) and 'captions' learn from the samples alone"
"""For messages: what a project without teachers can do."""


@dataclass(frozen=True)
class TeachingInventory:
    """Everything that a plan is made from.

    Attributes:
        index: all samples.
        columns: teacher -> its column.
        trust: scores on the calibration split.
        weights: (T, M) trust weights by the policy; rows as ``trust.teachers``, columns as ``trust.domains``.
        samples: (T, N) weights of each sample, if the policy weighs these; ``weights`` are then their means.
        unreadable: (N,) unreadable images that may be skipped and that no column records.
        live: teachers that compute their signals of training samples during training.
        learns_alone: a loss of the recipe learns from samples without any teacher.
        captions: (M,) trust weights of the captions; None for 1 everywhere.
        gate: what ``weights`` and ``captions`` come from; None without teachers.
    """

    index: SampleIndex
    columns: Mapping[str, Column]
    trust: TrustTable
    weights: np.ndarray[Any, Any]
    unreadable: Mask | None = None
    live: Mapping[str, LiveTeacher] = field(default_factory=dict)
    learns_alone: bool = True
    captions: np.ndarray[Any, Any] | None = None
    gate: TrustGate | None = None
    samples: Floats | None = None

    @classmethod
    def without_teachers(cls, index: SampleIndex, unreadable: Mask | None = None) -> TeachingInventory:
        """The samples alone, for recipes whose losses read no teacher."""
        trust = make_trust_table({}, (), index.domains, LEVEL)
        return cls(index, {}, trust, trust.accuracy, unreadable)

    @property
    def teachers(self) -> tuple[str, ...]:
        return self.trust.teachers

    @property
    def skipped(self) -> Mask:
        """(N,) unreadable images that may be skipped."""
        unreadable = np.zeros(len(self.index), dtype=bool)
        if self.unreadable is not None:
            unreadable |= self.unreadable
        for column in self.columns.values():
            unreadable |= column.unreadable(self.index) & self.index.may_skip
        return unreadable

    def rows(self, split: Split, labeled: bool | None = None) -> Indices:
        """Index rows of a split, without open questions and without unreadable images that may be skipped."""
        chosen = self.index.select(split=split, labeled=labeled)
        chosen = chosen[~self.index.unanswered[chosen]]
        return chosen[~self.skipped[chosen]]

    def admitted(self, teacher: str) -> dict[str, float]:
        """Domain -> weight, where the teacher may teach."""
        row = self.weights[self.trust.teachers.index(teacher)]
        return {domain: float(w) for domain, w in zip(self.trust.domains, row, strict=True) if w > 0}

    def without(self, sources: Collection[str]) -> TeachingInventory:
        """The same samples and columns, with weights as if ``sources`` did not exist; see :meth:`TrustGate.weights`."""
        if self.gate is None:
            return self
        given = self.gate.weights(sources)
        return replace(self, weights=given.teachers, captions=given.captions, samples=given.samples)

    def targets(self, teacher: str, outputs: Mapping[str, int], signals: Collection[str]) -> TeacherTargets:
        """The teacher's targets for all samples.

        Args:
            outputs: of the student; a signal of the same name is compared with it.
            signals: those that the recipe's losses read.
        """
        column, live = self.columns[teacher], self.live.get(teacher)
        rows, read = self._column_rows(teacher), [spec for spec in column.signals if spec.name in signals]
        weight: Floats = np.where(rows >= 0, self.sample_weights(teacher), 0).astype(np.float32)
        compared = [spec for spec in read if spec.name in outputs and len(spec.shape) in (1, 2)]
        return TeacherTargets(
            name=teacher,
            widths={spec.name: spec.shape[-1] for spec in compared},
            rows=rows,
            weight=weight,
            gather=column.gather if live is None else live.gather,
            raw=tuple(spec for spec in read if spec not in compared),
            prefetch=live.prefetch if live is not None and live.offload else None,
            token_lengths={spec.name: spec.shape[0] for spec in compared if len(spec.shape) == 2},
            sharded_gather=live is not None,
        )

    @property
    def caption_weights(self) -> dict[str, float]:
        """Domain -> trust weight of its captions."""
        weights = np.ones(len(self.index.domains)) if self.captions is None else self.captions
        return {domain: float(weight) for domain, weight in zip(self.index.domains, weights, strict=True)}

    def caption_targets(self) -> CaptionTargets:
        """The texts of all samples, weighed by domain; 0 for samples without a text."""
        by_domain = np.array(list(self.caption_weights.values()), dtype=np.float32)
        weight: Floats = np.where(self.index.has_text, by_domain[self.index.domain_index], np.float32(0))
        return CaptionTargets(weight, self.index.text_index)

    def sample_weights(self, teacher: str) -> np.ndarray[Any, Any]:
        """(N,) the teacher's weight on each sample."""
        row = self.trust.teachers.index(teacher)
        if self.samples is not None:
            return np.asarray(self.samples[row])
        return np.asarray(self.weights[row][self.index.domain_index])

    def taught(self, teacher: str) -> Mask:
        """(N,) whether the teacher has the sample and may teach it."""
        return (self._column_rows(teacher) >= 0) & (self.sample_weights(teacher) > 0)

    def _column_rows(self, teacher: str) -> Indices:
        live = self.live.get(teacher)
        return self.columns[teacher].locate(self.index) if live is None else live.rows

    def close(self) -> None:
        """Release the models of live teachers."""
        for teacher in self.live.values():
            teacher.close()


def take_inventory(
    project: Project,
    recipe: Recipe,
    index: SampleIndex,
    before_extraction: Callable[[Sequence[OpenTeacher]], None],
    *,
    device: str,
    reporter: Reporter,
) -> TeachingInventory:
    """Bring every column up to date (extracting what is missing), measure trust, apply the policy.

    A teacher whose column is complete is not loaded; its files need not exist any more. If no loss of the recipe reads
    a teacher's signals, no teacher takes part and nothing is extracted.

    Args:
        before_extraction: called with the teachers that an extraction needs, before it starts.

    Raises:
        KdkitError: no teacher although a loss reads one; what ``before_extraction``, extraction and trust raise.
    """
    registry, lock, catalogue = project.registry, project.lock, project.catalogue
    check_guard(project, index)
    if not signals_read(recipe, catalogue):
        if idle := [name for name in registry.teachers if name != _corrector(recipe)]:
            reporter.say(f"recipe {recipe.name} reads no teacher; not used: {', '.join(idle)}")
        _warn_of_unknown_domains(registry, index, reporter)
        return TeachingInventory.without_teachers(index, find_skipped(index, project.state, reporter, refuse=True))
    teachers = _teachers_with_signals(registry, lock, recipe, reporter)
    if not teachers:
        raise KdkitError(
            "KD-DIST-032",
            "no teacher is chosen that gives signals" if registry.teachers else "no teacher is chosen",
            where=str(project.registry_path),
            fix=f"'kdkit add-teacher NAME'; 'kdkit teachers --available' lists them; {WITHOUT_TEACHERS}",
        )
    store = FeatureStore(project.features)
    opened = open_live(project, teachers, device=device, reporter=reporter)
    columns = complete_columns(
        project, store, index, teachers, live=opened, before=before_extraction, device=device, reporter=reporter
    )
    for name, live_teacher in opened.items():
        require_same_model(live_teacher.model, columns[name].folder)
    evaluator, hint = make_evaluator(registry, catalogue, index), partial(extraction_hint, registry, lock)
    policy, limits = recipe.trust, domain_limits(registry)
    weighs = catalogue.spec(TrustPolicySpec, policy.policy).weighs_captions and learns_alone(recipe, catalogue)
    table = measure_trust(
        evaluator,
        store,
        lock,
        teachers,
        advice=hint,
        captions=weighs,
        by=choose_basis(policy.by, evaluator, reporter),
        every_sample=policy.per_sample,
        reporter=reporter,
    )
    samples = read_sample_scores(evaluator, store, lock, table, reporter) if policy.per_sample else None
    gate = TrustGate(table, catalogue.make("policy", policy.policy, **policy.options), limits, weighs, samples)
    given = gate.weights()
    trust, weights = without_captions(table), given.teachers
    present = {index.domains[number] for number in np.unique(index.domain_index[index.select(split="train")])}
    gaps = [gap for gap in domains_without_teacher(trust, weights, limits) if gap.domain in present]
    warn_about_gaps(gaps, teachers_without_domain(trust, weights, limits), reporter)
    if gaps and learns_alone(recipe, catalogue):
        reporter.say("taught by their own texts alone: " + ", ".join(gap.domain for gap in gaps))
    _warn_of_one_signal(trust, weights, present, learns_alone(recipe, catalogue), reporter)
    _warn_of_unknown_domains(registry, index, reporter)
    unreadable = find_skipped(index, project.state, reporter) if opened else None
    live = {
        name: LiveTeacher(
            teacher,
            index,
            unreadable,
            device=live_device(registry, name, device),
            offload=registry.teachers[name].offload,
        )
        for name, teacher in opened.items()
    }
    alone = learns_alone(recipe, catalogue)
    return TeachingInventory(
        index, columns, trust, weights, unreadable, live, alone, given.captions, gate, given.samples
    )


def domain_limits(registry: Registry) -> dict[str, Sequence[str]]:
    """Teacher -> the domains that the registry allows it, for those with a limit."""
    return {name: entry.domains for name, entry in registry.teachers.items() if entry.domains is not None}


def _teachers_with_signals(registry: Registry, lock: Lock, recipe: Recipe, reporter: Reporter) -> tuple[str, ...]:
    """Teachers whose signals losses can read; the others correct, or teach through pseudo-labels or nothing."""
    names = [name for name, entry in registry.teachers.items() if entry.may_teach]
    if barred := [name for name in registry.teachers if name not in (*names, _corrector(recipe))]:
        reporter.say(f"{', '.join(barred)}: 'domains: []' in registry.yaml; teaches nothing")
    answering = [name for name in names if name in lock.teachers and not lock.teacher(name).signals]
    if idle := [name for name in answering if name != _corrector(recipe)]:
        reporter.say(f"{', '.join(idle)}: no signals; teaches only through 'kdkit pseudo-label'")
    return tuple(name for name in names if name not in answering)


def _warn_of_one_signal(
    trust: TrustTable, weights: np.ndarray[Any, Any], present: Collection[str], captions: bool, reporter: Reporter
) -> None:
    """Domains in which no teacher teaches the student that an image and a text match."""
    for domain, teachers in domains_of_one_signal(trust, weights).items():
        taught = f"domain '{domain}': " + "; ".join(
            f"{', '.join(names)} teach{'es' * (len(names) == 1)} {signal}s alone" for signal, names in teachers.items()
        )
        if domain in present and captions:
            reporter.say(f"{taught}; captions teach what matches")
        elif domain in present:
            reporter.warn(
                f"{taught}; nothing teaches which text matches an image, so images and prompts may not match there: "
                "add the loss 'clip' to the recipe, or a teacher with image and text features"
            )


def _corrector(recipe: Recipe) -> str | None:
    return recipe.correction.corrector if recipe.correction else None


def _warn_of_unknown_domains(registry: Registry, index: SampleIndex, reporter: Reporter) -> None:
    """A misspelled domain in the registry would silently have no effect."""
    from kdkit.core.data.load import warn_unknown_domains

    named = {f"teachers.{name}.domains": entry.domains or [] for name, entry in registry.teachers.items()}
    named["guard.domains"] = list(registry.guard.domains)
    named["prompts"] = [domain for domain in registry.prompts if domain != "default"]
    for place, domains in named.items():
        warn_unknown_domains(domains, index.domains, f"registry.yaml, {place}", reporter)
