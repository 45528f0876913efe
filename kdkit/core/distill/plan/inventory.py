"""What there is to teach with: samples, teachers' columns, and who may teach what."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Split, TrustTable
from kdkit.core.distill.loop.dataloader import Floats, Teaching
from kdkit.core.distill.loop.sampler import Indices
from kdkit.core.project.recipe import Recipe, learns_alone, signals_read

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.distill.loop.live_teacher import LiveTeacher
    from kdkit.core.features import Column, FeatureStore
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import Registry
    from kdkit.core.project.versions import Version


WITHOUT_TEACHERS = "recipes 'sft' (answers) and 'captions' learn from the samples alone"
"""For messages: what a project without teachers can do."""


@dataclass(frozen=True)
class Survey:
    """Everything that a plan is made from.

    Attributes:
        columns: teacher -> its column.
        trust: scores on the calibration split.
        weights: (T, M) what the policy makes of them; rows as ``trust.teachers``, columns as ``trust.domains``.
        skipped: (N,) unreadable images that may be left out, where no column tells.
        live: teachers that are asked about training samples while training; their columns do not have them.
        alone: some loss of the recipe learns from samples without any teacher.

    Without teachers it is of a recipe whose losses read none.
    """

    table: SampleIndex
    store: FeatureStore
    columns: Mapping[str, Column]
    trust: TrustTable
    weights: np.ndarray[Any, Any]
    skipped: np.ndarray[Any, np.dtype[np.bool_]] | None = None
    live: Mapping[str, LiveTeacher] = field(default_factory=dict)
    alone: bool = True

    @property
    def teachers(self) -> tuple[str, ...]:
        return self.trust.teachers

    def samples(self, split: Split, labeled: bool | None = None) -> Indices:
        """Table rows of a split, without questions that nobody has answered, and unreadable images that their data
        entry skips."""
        chosen = self.table.select(split=split, labeled=labeled)
        chosen = chosen[~self.table.unanswered[chosen]]
        skipped = np.zeros(len(self.table), dtype=bool)
        if self.skipped is not None:
            skipped |= self.skipped
        for column in self.columns.values():
            skipped |= column.unreadable(self.table) & self.table.may_skip
        return chosen[~skipped[chosen]]

    def admitted(self, teacher: str) -> dict[str, float]:
        """Domain -> weight, where the teacher may teach."""
        row = self.weights[self.trust.teachers.index(teacher)]
        return {domain: float(w) for domain, w in zip(self.trust.domains, row, strict=True) if w > 0}

    def teaching(self, teacher: str, outputs: Mapping[str, int], signals: Collection[str]) -> Teaching:
        """The teacher's rows and per-sample weights for this table.

        Args:
            outputs: of the student; a signal of the same name is compared with it.
            signals: those that the recipe's losses read; the others are left out.
        """
        column, live = self.columns[teacher], self.live.get(teacher)
        rows, read = self._rows(teacher), [spec for spec in column.signals if spec.name in signals]
        per_sample: Floats = np.where(rows >= 0, self.per_sample(teacher), 0).astype(np.float32)
        compared = [spec for spec in read if spec.name in outputs and len(spec.shape) in (1, 2)]
        widths = {spec.name: spec.shape[-1] for spec in compared}
        places = {spec.name: spec.shape[0] for spec in compared if len(spec.shape) == 2}
        raw = tuple(spec for spec in read if spec.name not in widths)
        if live is None:
            return Teaching(teacher, widths, rows, per_sample, column.gather, raw, places=places)
        visit = live.visit if live.parked else None
        return Teaching(teacher, widths, rows, per_sample, live.gather, raw, visit, places, together=True)

    def per_sample(self, teacher: str) -> np.ndarray[Any, Any]:
        """(N,) the teacher's weight on each sample's domain."""
        return np.asarray(self.weights[self.trust.teachers.index(teacher)][self.table.domain_index])

    def taught(self, teacher: str) -> np.ndarray[Any, Any]:
        """(N,) whether the teacher has the sample and may teach it."""
        return (self._rows(teacher) >= 0) & (self.per_sample(teacher) > 0)

    def _rows(self, teacher: str) -> Indices:
        live = self.live.get(teacher)
        return self.columns[teacher].locate(self.table) if live is None else live.rows

    def close(self) -> None:
        """Let go of live teachers: nothing is learnt from them any more."""
        for teacher in self.live.values():
            teacher.close()


def survey(
    project: Project, recipe: Recipe, *, parent: Version | None = None, device: str, reporter: Reporter
) -> Survey:
    """Bring every column up to date (extracting what is missing), measure trust, apply the policy.

    A teacher whose column is complete is not loaded; its files need not even exist any more. Where no loss of the
    recipe reads a teacher's signals, no teacher takes part and nothing is extracted. Before an extraction, the answers
    are tried on the student: a new one, or that of ``parent``.

    Raises:
        KdkitError: an answer that the student cannot be taught, or that a teacher splits otherwise; without data, or
            without teachers where a loss reads them; what extraction and trust raise.
    """
    from kdkit.core.data import load_index
    from kdkit.core.data.check import find_skipped
    from kdkit.core.distill.loop.live_teacher import live_teachers, open_live
    from kdkit.core.distill.plan.columns import complete_columns
    from kdkit.core.distill.plan.teachable import require_teachable_table
    from kdkit.core.evaluation.evaluator import make_evaluator
    from kdkit.core.evaluation.trust import (
        domains_without_teacher,
        measure_trust,
        policy_weights,
        teachers_without_domain,
        warn_about_gaps,
    )
    from kdkit.core.features import FeatureStore
    from kdkit.core.features.extract.missing import extraction_hint

    registry = project.registry
    if not signals_read(recipe, project.catalogue):
        return _without_teachers(project, recipe, reporter)
    teachers = _with_signals(project, recipe, reporter)
    if not teachers:
        raise KdkitError(
            "KD-DIST-032",
            "no teacher is chosen that gives signals" if registry.teachers else "no teacher is chosen",
            where=str(project.registry_path),
            fix=f"'kdkit add-teacher NAME'; 'kdkit teachers --available' lists them; {WITHOUT_TEACHERS}",
        )
    table = load_index(project, reporter)
    store = FeatureStore(project.features)
    opened = open_live(project, teachers, device=device, reporter=reporter)
    before = partial(require_teachable_table, project, recipe, parent, table, reporter)
    columns = complete_columns(project, table, teachers, live=opened, before=before, device=device, reporter=reporter)
    evaluator = make_evaluator(registry, project.catalogue, table)
    lock, advice = project.lock, partial(extraction_hint, project.registry, project.lock)
    trust = measure_trust(evaluator, store, lock, teachers, advice=advice, reporter=reporter)
    chosen = registry.trust or recipe.trust
    policy = project.catalogue.make("policy", chosen.policy, **chosen.options)
    limits = {name: entry.domains for name, entry in registry.teachers.items() if entry.domains is not None}
    weights = policy_weights(trust, policy, limits=limits)
    taught = {sample.domain for sample in table.samples if sample.split == "train"}
    missed = [gap for gap in domains_without_teacher(trust, weights, limits) if gap.domain in taught]
    warn_about_gaps(missed, teachers_without_domain(trust, weights, limits), reporter)
    _warn_of_unknown_domains(registry, table, reporter)
    skipped = find_skipped(table, project.state, reporter) if opened else None
    live = live_teachers(project, opened, table, skipped, device=device)
    return Survey(table, store, columns, trust, weights, skipped, live, learns_alone(recipe, project.catalogue))


def _without_teachers(project: Project, recipe: Recipe, reporter: Reporter) -> Survey:
    """The samples alone."""
    from kdkit.core.data import load_index
    from kdkit.core.data.check import find_skipped
    from kdkit.core.evaluation.trust.measurements import LEVEL, make_trust_table
    from kdkit.core.features import FeatureStore

    if idle := [name for name in project.registry.teachers if name != _corrector(recipe)]:
        reporter.say(f"recipe {recipe.name} reads no teacher; taking no part: {', '.join(idle)}")
    table = load_index(project, reporter)
    _warn_of_unknown_domains(project.registry, table, reporter)
    nobody = make_trust_table({}, (), table.domains, LEVEL)
    skipped = find_skipped(table, project.state, reporter)
    return Survey(table, FeatureStore(project.features), {}, nobody, nobody.accuracy, skipped)


def _with_signals(project: Project, recipe: Recipe, reporter: Reporter) -> tuple[str, ...]:
    """Teachers that losses can learn from; one that only answers corrects, or teaches by its pseudo-labels."""

    lock = project.lock
    silent = [name for name in project.registry.teachers if name in lock.teachers and not lock.teacher(name).signals]
    if idle := [name for name in silent if name != _corrector(recipe)]:
        reporter.say(f"{', '.join(idle)}: gives no signals and teaches by 'kdkit pseudo-label' alone")
    return tuple(name for name in project.registry.teachers if name not in silent)


def _corrector(recipe: Recipe) -> str | None:
    return recipe.correction.corrector if recipe.correction else None


def _warn_of_unknown_domains(registry: Registry, table: SampleIndex, reporter: Reporter) -> None:
    """A domain that is misspelt in the registry would silently mean nothing."""
    from kdkit.core.data.load import warn_unknown_domains

    named = {f"teachers.{name}.domains": entry.domains or [] for name, entry in registry.teachers.items()}
    named["guard.domains"] = list(registry.guard.domains)
    named["prompts"] = [domain for domain in registry.prompts if domain != "default"]
    for place, domains in named.items():
        warn_unknown_domains(domains, table.domains, f"registry.yaml, {place}", reporter)
