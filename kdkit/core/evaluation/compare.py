"""Comparison of students, teachers, and the oracle that takes the best teacher for every domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from kdkit.core.contracts import (
    IMAGE,
    TEXT,
    DomainScore,
    EvaluationTask,
    ExplainsSkips,
    Method,
    ModelAnswers,
    ModelFeatures,
    PartialOutputs,
    Reporter,
    Sample,
    Silent,
    StatesMethod,
    TrustTable,
)
from kdkit.core.evaluation.features import StoredFeatures
from kdkit.core.evaluation.metrics import mean_interval, paired_difference
from kdkit.core.evaluation.sampling import sample_groups
from kdkit.core.evaluation.scores import (
    ACCURACY,
    HEADLINE,
    LEFT_OUT,
    METHOD,
    PRIVATE,
    Evaluation,
    ModelScores,
    Role,
)
from kdkit.core.evaluation.scoring import Subgroups, with_subgroups

ModelOutputs = ModelFeatures | ModelAnswers
T = TypeVar("T")
ORACLE, ORACLE_ON_TEST = "oracle", "oracle-on-test"


def compare_models(
    task: EvaluationTask,
    students: Sequence[ModelOutputs],
    teachers: Sequence[ModelOutputs],
    samples: Sequence[Sample],
    *,
    trust: TrustTable | None = None,
    settings: Mapping[str, Any] | None = None,
    advice: Callable[[str], str] | None = None,
    subgroups: Subgroups | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score every model on ``samples``.

    On each domain, ``oracle`` is the teacher with the highest accuracy on the *calibration* split (``trust``): a rule
    that does not look at the evaluated samples. ``oracle-on-test`` takes the best teacher on these samples: an upper
    bound. Teachers that lack a signal that the task reads are left out, with a note.

    Args:
        students, teachers: outputs of models, with names unique over both.
        samples: of one split.
        trust: what ``oracle`` chooses by; without it there is only ``oracle-on-test``.
        settings: recorded in the result; ``headline`` is the metric that ``oracle-on-test`` chooses by.
        advice: teacher -> the remedy for missing features, for warnings.
        subgroups: column -> sample id -> value. Tasks that do not score subgroups get the means of their outcomes.

    Returns:
        Without any domain, and with a warning for each, where no model can be scored.
    """
    reporter = reporter or Silent()
    left_out = {model.name: model.lacks for model in teachers if isinstance(model, StoredFeatures) and model.lacks}
    for name, signals in left_out.items():
        hint = "; 'kdkit trust' shows a probe" if signals in ((IMAGE,), (TEXT,)) else ""
        reporter.say(f"{name}: no {' and '.join(signals)} features, so this task cannot score it{hint}")
    roles: list[tuple[ModelOutputs, Role]] = [(model, "student") for model in students]
    roles += [(model, "teacher") for model in teachers if model.name not in left_out]
    scored: list[tuple[str, Role, dict[str, DomainScore]]] = []
    for number, (model, role) in enumerate(roles):
        reporter.progress("evaluating", number, len(roles), model.name)
        covered = _covered(model, samples, reporter, advice)
        scores = task.evaluate(model, covered) if covered else ()
        if len(covered) < len(samples):
            scores = [_without_pooled(score) for score in scores]
        if subgroups:
            scores = [with_subgroups(score, samples, subgroups) for score in scores]
        scored.append((model.name, role, {score.domain: score for score in scores}))
    reporter.progress("evaluating", len(roles), len(roles))

    present = list(dict.fromkeys(sample.domain for sample in samples))
    domains = tuple(d for d in present if any(d in scores for _, _, scores in scored))
    skipped = {d: _why_skipped(task, [s for s in samples if s.domain == d]) for d in present if d not in domains}
    for domain, why in skipped.items():
        reporter.warn(f"domain '{domain}' is not evaluated: {why}")
    models = [_model(name, role, scores, domains) for name, role, scores in scored]
    headline = str((settings or {}).get(HEADLINE, ACCURACY))
    models += _oracles([m for m in models if m.role == "teacher"], domains, trust, headline)
    groups = _groups(models, domains, samples)
    return Evaluation(
        split=samples[0].split if samples else "none",
        domains=domains,
        models=tuple(models),
        settings={**(settings or {}), **({LEFT_OUT: left_out} if left_out else {}), **_method(task)},
        skipped=skipped,
        ratios=_ratios(models),
        against_oracle=_against_oracle(models, headline, groups),
        groups=groups,
        columns=_columns(models, domains, subgroups or {}),
    )


def _method(task: EvaluationTask) -> dict[str, Any]:
    """What a task states of its method, as settings."""
    method = task.method() if isinstance(task, StatesMethod) else Method({})
    return {METHOD: dict(method.facts), PRIVATE: list(method.private)} if method.facts else {}


def with_students_of(evaluation: Evaluation, other: Evaluation) -> Evaluation:
    """``evaluation`` with the students of ``other``; both are of the same samples."""
    models = [*other.of_role("student"), *(model for model in evaluation.models if model.role != "student")]
    return replace(evaluation, models=tuple(models), ratios=_ratios(models), against_oracle={})


def _covered(
    model: ModelOutputs, samples: Sequence[Sample], reporter: Reporter, advice: Callable[[str], str] | None
) -> Sequence[Sample]:
    """The samples that a model has outputs for; warns about domains that it lacks."""
    if not isinstance(model, PartialOutputs):
        return samples
    covered = model.covered(samples)
    if len(covered) < len(samples):
        domains = {sample.domain for sample in covered}
        lacking = dict.fromkeys(s.domain for s in samples if s.domain not in domains)
        reporter.warn(
            f"teacher '{model.name}' lacks some samples or prompts in {', '.join(lacking)}: not evaluated there"
            + (f"; {advice(model.name)}" if advice else "")
        )
    return covered


def _without_pooled(score: DomainScore) -> DomainScore:
    """Without what depends on the samples of all domains: this model lacks some of them."""
    if not score.pooled:
        return score

    def own(found: Mapping[str, T]) -> dict[str, T]:
        return {name: value for name, value in found.items() if name not in score.pooled}

    return replace(
        score,
        metrics=own(score.metrics),
        intervals=own(score.intervals),
        outcomes=own(score.outcomes),
        figures=own(score.figures),
        pooled=(),
    )


def _why_skipped(task: EvaluationTask, samples: Sequence[Sample]) -> str:
    """Why samples of one domain have no score."""
    if isinstance(task, ExplainsSkips) and (why := task.why_skipped(samples)):
        return why
    labels = {s.label for s in samples if s.label is not None}
    if not labels and not any(s.extra for s in samples):
        return "none of its samples is labeled"
    if len(labels) == 1:
        return f"all its labeled samples are '{labels.pop()}', so there is nothing to classify"
    return "the task gave no score for it"


def _model(
    name: str,
    role: Role,
    scores: Mapping[str, DomainScore],
    domains: Sequence[str],
    chosen: Mapping[str, str] | None = None,
) -> ModelScores:
    kept = {d: scores[d] for d in domains if d in scores}
    metrics = tuple(dict.fromkeys(metric for score in kept.values() for metric in score.metrics))
    means, intervals = {}, {}
    for metric in metrics:
        having = [
            score for score in kept.values() if metric in score.metrics
        ]  # domains of answer tasks differ in metrics
        values = np.array([score.metrics[metric] for score in having])
        bounds = np.array([score.intervals[metric] for score in having])
        known = ~np.isnan(values)
        if not known.any():
            continue
        mean, low, high = mean_interval(values[known], bounds[known, 0], bounds[known, 1])
        means[metric], intervals[metric] = mean, (low, high)
    return ModelScores(name, role, kept, means, intervals, dict(chosen or {}))


def _oracles(
    teachers: Sequence[ModelScores], domains: Sequence[str], trust: TrustTable | None, choose_by: str
) -> list[ModelScores]:
    if not teachers:
        return []
    found = []
    if trust is not None:
        found.append((ORACLE, _best_on_calibration(teachers, domains, trust)))
    found.append((ORACLE_ON_TEST, _best_on_test(teachers, domains, choose_by)))
    by_name = {teacher.name: teacher for teacher in teachers}
    return [
        _model(name, "oracle", {d: by_name[t].domains[d] for d, t in chosen.items()}, domains, chosen)
        for name, chosen in found
        if chosen
    ]


def _best_on_calibration(teachers: Sequence[ModelScores], domains: Sequence[str], trust: TrustTable) -> dict[str, str]:
    """Domain -> teacher; ties go to the first teacher; unmeasured domains are absent."""
    able = {teacher.name: teacher for teacher in teachers}
    chosen = {}
    for column, domain in enumerate(trust.domains):
        ranked = [
            (float(trust.accuracy[row, column]), -row, name)
            for row, name in enumerate(trust.teachers)
            if name in able and domain in able[name].domains and not np.isnan(trust.accuracy[row, column])
        ]
        if domain in domains and ranked:
            chosen[domain] = max(ranked)[2]
    return {d: chosen[d] for d in domains if d in chosen}


def _best_on_test(teachers: Sequence[ModelScores], domains: Sequence[str], metric: str) -> dict[str, str]:
    chosen = {}
    for domain in domains:
        able = [t for t in teachers if domain in t.domains and metric in t.domains[domain].metrics]
        if able:
            chosen[domain] = max(able, key=lambda t: t.domains[domain].metrics[metric]).name
    return chosen


def _ratios(models: Sequence[ModelScores]) -> dict[str, dict[str, float]]:
    """Student -> metric -> mean over the oracle's domains, as a fraction of the oracle's mean."""
    oracle = next((m for m in models if m.role == "oracle"), None)
    if oracle is None:
        return {}
    ratios = {}
    for student in (m for m in models if m.role == "student"):
        ratios[student.name] = {
            metric: _mean(student, metric, shared) / best
            for metric in oracle.means
            if (shared := _having(metric, oracle, student)) and (best := _mean(oracle, metric, shared)) != 0
        }
    return ratios


def _having(metric: str, *models: ModelScores) -> list[str]:
    """The domains of the first model where all have the metric; it is undefined on some."""
    return [d for d in models[0].domains if not any(np.isnan(model.values(metric, (d,))[0]) for model in models)]


def _ids(models: Sequence[ModelScores], domain: str) -> tuple[str, ...]:
    """The scored samples of a domain: the same for every model."""
    return next(m.domains[domain].ids for m in models if domain in m.domains)


def _groups(
    models: Sequence[ModelScores], domains: Sequence[str], samples: Sequence[Sample]
) -> dict[str, tuple[int, ...]]:
    """Domain -> the group of each scored sample, where a group has several of them: as the task drew them, or by the
    samples' groups if it does not say."""
    group = dict(zip((sample.id for sample in samples), sample_groups(samples).tolist(), strict=True))
    found = {}
    for domain in domains:
        if units := next(m.domains[domain].units for m in models if domain in m.domains):
            found[domain] = units
            continue
        own = np.array([group.get(name, -1 - row) for row, name in enumerate(_ids(models, domain))], dtype=np.int64)
        numbers = np.unique(own, return_inverse=True)[1]
        if len(own) and numbers.max() + 1 < len(own):
            found[domain] = tuple(numbers.tolist())
    return found


def _columns(
    models: Sequence[ModelScores], domains: Sequence[str], subgroups: Subgroups
) -> dict[str, dict[str, tuple[str | None, ...]]]:
    return {
        column: {domain: tuple(value_of.get(name) for name in _ids(models, domain)) for domain in domains}
        for column, value_of in subgroups.items()
    }


def _against_oracle(
    models: Sequence[ModelScores], metric: str, groups: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Student -> domain -> paired difference of the headline to the first oracle, where both have outcomes."""
    oracle = next((m for m in models if m.role == "oracle"), None)
    if oracle is None:
        return {}
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for student in (m for m in models if m.role == "student"):
        for domain in (d for d in oracle.domains if d in student.domains):
            own, best = student.domains[domain], oracle.domains[domain]
            if metric in own.outcomes and metric in best.outcomes and own.ids == best.ids:
                found.setdefault(student.name, {})[domain] = paired_difference(
                    best.outcomes[metric],
                    own.outcomes[metric],
                    level=own.level,
                    groups=np.array(groups[domain]) if domain in groups else None,
                )
    return found


def _mean(model: ModelScores, metric: str, domains: Sequence[str]) -> float:
    return float(np.mean(model.values(metric, tuple(domains))))
