"""Measures gates on the calibration split of a project, and keeps them with the model that they are about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.journal import Journal, SampleKey, temporary_journal
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import ComparesAnswers, Decoding, EvaluationTask, Reporter, Sample
from kdkit.core.data.unreadable import find_skipped
from kdkit.core.evaluation.answering.candidates import CandidateSet, find_candidates
from kdkit.core.evaluation.answering.gate import DomainGate, judge_domain, unmeasured
from kdkit.core.evaluation.answering.gate_file import Gate, read_gate, write_gate
from kdkit.core.evaluation.answering.models import AnsweringModels, decodings_of
from kdkit.core.evaluation.answering.names import NEAREST, PLAIN
from kdkit.core.evaluation.answering.rules import Rule, rules_for
from kdkit.core.evaluation.answers import GivenAnswers
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.sampling import image_groups
from kdkit.core.evaluation.scores import ACCURACY

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project

Keyed = Sequence[tuple[SampleKey, Sample]]


def task_and_rules(
    project: Project, index: SampleIndex, models: AnsweringModels
) -> tuple[EvaluationTask, list[Rule], dict[str, Any]]:
    """The project's evaluation task, the rules by which its answers can be chosen, and its settings.

    Raises:
        KdkitError: there is no rule.
    """
    evaluator = make_evaluator(project.registry, project.catalogue, index)
    rules = rules_for(evaluator.task, models.reranker)
    if not rules:
        raise KdkitError(
            "KD-EVAL-580",
            f"the task '{evaluator.settings['task']}' does not compare answers with each other",
            why="then only a dual encoder can choose among several answers, and none is named",
            fix="name one by --rerank",
        )
    return evaluator.task, rules, dict(evaluator.settings)


def measured_gate(
    project: Project,
    index: SampleIndex,
    models: AnsweringModels,
    decoding: Decoding,
    domains: Sequence[str],
    reporter: Reporter,
) -> Gate:
    """The gate for ``domains``; those that are not known for the present calibration samples are measured.

    A domain without calibration samples keeps the decision that came with the model, or gets plain answers.

    Raises:
        KdkitError: see :func:`task_and_rules`; an unreadable image; an error of a model.
    """
    task, rules, options = task_and_rules(project, index, models)
    settings = {**models.settings(decoding), "task": options}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path, samples = models.gates / f"{digest}.json", _calibration(project, index, domains, reporter)
    gate = read_gate(path) or Gate(models.name, json.loads(json.dumps(settings, default=str)))
    known = {domain: _digest(keyed) for domain, keyed in samples.items()}
    todo = [d for d, keyed in samples.items() if keyed and not _is_known(gate, d, known[d])]
    if todo:
        _announce(models, decoding, sum(len(samples[d]) for d in todo), reporter)
        keyed = [pair for domain in todo for pair in samples[domain]]
        name = hashlib.sha256(json.dumps([digest, [known[d] for d in todo]]).encode()).hexdigest()[:16]
        with (
            system_errors(str(project.state)),
            temporary_journal(project.state / "answers" / f"gate-{name}.jsonl") as file,
        ):
            found = find_candidates(
                models.model, keyed, decodings_of(decoding), rules, Journal(file), reporter, "calibration"
            )
            fresh = _judge(task, [sample for _, sample in keyed], found, known)
            gate = replace(gate, domains={**gate.domains, **fresh})
            write_gate(path, gate)
    usable = {PLAIN, *(rule.name for rule in rules)}  # a gate may come from others
    kept = {domain: one for domain, one in gate.domains.items() if one.rule in usable}
    decided = {domain: kept.get(domain) or unmeasured(domain) for domain in domains}
    _tell_of_other_settings(models, path, {name for name, one in decided.items() if not one.count}, reporter)
    return replace(gate, domains=decided)


def _tell_of_other_settings(models: AnsweringModels, path: Path, domains: Set[str], reporter: Reporter) -> None:
    """Say which decisions about ``domains`` are there for other settings than those of the gate at ``path``."""
    for other in sorted(models.gates.glob("*.json")):
        gate = read_gate(other) if other != path else None
        decoding = gate.settings.get("decoding") if gate else None
        if gate and isinstance(decoding, Mapping) and (known := sorted(domains & set(gate.domains))):
            how = ", ".join(f"{name} {value}" for name, value in decoding.items())
            rerank = ", with a dual encoder" if gate.settings.get("rerank") else ""
            reporter.say(f"{models.name} has a decision for {', '.join(known)} at other settings: {how}{rerank}")


def _is_known(gate: Gate, domain: str, known: str) -> bool:
    return domain in gate.domains and gate.domains[domain].known == known


def _calibration(project: Project, index: SampleIndex, domains: Sequence[str], reporter: Reporter) -> dict[str, Keyed]:
    """Domain -> its readable calibration samples with a reference of their own."""
    evaluator = make_evaluator(project.registry, project.catalogue, index)
    rows = evaluator.rows("calibration")
    rows = rows[[index.domains[number] in set(domains) for number in index.domain_index[rows]]] if len(rows) else rows
    if len(rows):
        rows = rows[~find_skipped(index.part(rows), project.state, reporter, refuse=True)]
    found: dict[str, list[tuple[SampleKey, Sample]]] = {domain: [] for domain in domains}
    for pair in index.keyed(rows):
        found[pair[1].domain].append(pair)
    return dict(found)


def _announce(models: AnsweringModels, decoding: Decoding, samples: int, reporter: Reporter) -> None:
    several = sum(one.answers for one in decodings_of(decoding))
    reporter.say(
        f"where choosing among {several} answers helps {models.name} is measured first, once: "
        f"{samples} calibration samples, {several * samples} answers"
    )


def _judge(
    task: EvaluationTask,
    samples: Sequence[Sample],
    found: Sequence[CandidateSet],
    known: Mapping[str, str],
) -> dict[str, DomainGate]:
    """Domain -> decision, for domains that the task scores sample by sample; others get plain answers."""
    compares = task if isinstance(task, ComparesAnswers) else None
    free = {sample.domain for sample in samples if compares is None or compares.is_free_text(sample)}
    rules = [PLAIN, *(found[0].scores if found else ())]
    outcomes: dict[str, dict[str, dict[str, float]]] = {}
    for rule in rules:
        scores = task.evaluate(GivenAnswers({one.id: one.chosen_by(rule).text for one in found}), samples)
        for score in scores:
            if ACCURACY in score.outcomes and (rule != NEAREST or score.domain in free):
                values = np.asarray(score.outcomes[ACCURACY], dtype=np.float64).tolist()
                outcomes.setdefault(score.domain, {})[rule] = dict(zip(score.ids, values, strict=True))
    gates = {domain: replace(unmeasured(domain), known=known[domain]) for domain in {s.domain for s in samples}}
    by_id = {sample.id: sample for sample in samples}
    for domain, by_rule in outcomes.items():
        ids = list(by_rule[PLAIN])
        table = {rule: np.array([values[i] for i in ids]) for rule, values in by_rule.items()}
        groups = image_groups([by_id[i] for i in ids])
        gates[domain] = judge_domain(domain, table, groups, known=known[domain])
    return gates


def _digest(keyed: Keyed) -> str:
    """Of samples: ids and contents."""
    return hashlib.sha256(json.dumps([key for key, _ in keyed]).encode()).hexdigest()[:16]
