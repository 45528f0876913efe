"""A made-up version with many domains, long names and texts that would be markup if they were not escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.core.contracts import DomainScore, ModelFeatures, Sample, TrustTable
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.continual import compute_continual_metrics
from kdkit.core.evaluation.page.facts import PageFacts
from kdkit.core.evaluation.page.samples import Change, Confusion, Example, Flips, SampleFacts, Shown
from kdkit.core.evaluation.report import EvaluationReport
from kdkit.core.evaluation.retention import measure_retention
from kdkit.core.project.lineage import Lineage
from tests.core.evaluation.test_compare import Named
from tests.lineages import lineage, retention, teacher

HOSTILE = """</td><script>alert('x')</script><img src=x onerror="alert(1)">&amp;"""
LONG = "a-data-set-of-an-uncommon-modality-with-a-very-long-name-indeed"
COUNT = 40


class MadeUp:
    """A task whose scores are drawn from a seed per model."""

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = domains

    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        scores = []
        for number, domain in enumerate(self.domains):
            rng = np.random.default_rng([sum(view.name.encode()), number])
            right = (rng.random(COUNT) < rng.uniform(0.4, 1.0)).astype(float)
            value, width = float(right.mean()), 1.96 * float(right.std()) / COUNT**0.5
            bounds = (max(0.0, value - width), min(1.0, value + width))
            ids = tuple(sample.id for sample in samples if sample.domain == domain)
            scores.append(
                DomainScore(domain, COUNT, {"accuracy": value}, {"accuracy": bounds}, 0.95, ids, {"accuracy": right})
            )
        return scores


def made_up_report(domains: Sequence[str], teachers: Sequence[str], history: Sequence[str]) -> EvaluationReport:
    """An evaluation of the last version of ``history``, with all the others as its ancestors."""
    samples = [Sample(f"{d} {n}", Path("/x"), "", d, "ab"[n % 2], "test") for d in domains for n in range(COUNT)]
    accuracy = np.random.default_rng(0).random((len(teachers), len(domains)))
    counts, chance = np.full(len(domains), COUNT), np.full(len(domains), 0.5)
    evaluation = compare_models(
        MadeUp(domains),
        [Named(name) for name in reversed(history)],
        [Named(name) for name in teachers],
        samples,
        trust=TrustTable(tuple(teachers), tuple(domains), accuracy, accuracy, accuracy, counts, chance),
        settings={"task": "zero-shot", "logit_scale": 100.0},
    )
    learned = {domain: history[number % len(history)] for number, domain in enumerate(domains)}
    matrix = np.array([evaluation.model(name).values("accuracy", tuple(domains)) for name in history])
    several = len(history) > 1
    return EvaluationReport(
        version=history[-1],
        history=tuple(history),
        evaluation=evaluation,
        retention=measure_retention(evaluation, evaluation, student=(history[-2], history[-1])) if several else None,
        continual=compute_continual_metrics(matrix, [history.index(learned[d]) for d in domains]) if several else None,
        learned=learned,
        weights=dict.fromkeys(history, "digest"),
    )


def made_up_lineages(domains: Sequence[str], teachers: Sequence[str], history: Sequence[str]) -> tuple[Lineage, ...]:
    log = [
        {"step": step, "loss": 9 / (1 + step / 40), HOSTILE: 2 / (1 + step / 90), "crd": 1.0}
        for step in range(0, 900, 9)
    ]
    records = [teacher(name, f"hf:{name}/x", dict.fromkeys(domains[::2], 0.7)) for name in teachers]
    made = []
    for number, name in enumerate(history):
        more: dict[str, Any] = {"teachers": records, "training": {"log": log}}
        if number:
            more["retention"] = retention({"domain": domains[0], "points": -2.5, "low": -4.0, "high": -1.0})
        made.append(lineage(name, history[number - 1] if number else None, **more))
    return tuple(made)


def made_up_facts(
    domains: Sequence[str], teachers: Sequence[str], history: Sequence[str], picture: bytes | None = None
) -> PageFacts:
    """All parts of a page, with hostile names and texts."""
    rng = np.random.default_rng(1)
    classes = ("normal", HOSTILE, LONG, "pneumonia")
    counts = rng.integers(0, 30, (4, 4)) + np.diag([60, 40, 50, 70])
    many = tuple(f"class {n}" for n in range(30))
    shown = Shown(HOSTILE, HOSTILE, picture)
    change = Change(shown, domains[0], HOSTILE, ("normal", LONG), 0.91, 0.03)
    better = Change(Shown("ct-0042", "a CT", picture), domains[-1], "normal", ("pneumonia", "normal"), 0.12, 0.97)
    samples = SampleFacts(
        confusions=(Confusion(domains[0], classes, counts), Confusion(LONG, many, rng.integers(0, 9, (30, 30)))),
        changes=(change, better),
        flips=tuple(Flips(domain, COUNT, 3, 2) for domain in domains),
        examples=(Example(shown, domains[0], 7, 120, ((HOSTILE, 0.31, False), ("a chest radiograph", 0.28, True))),),
    )
    return PageFacts(
        project=f"lab {HOSTILE}",
        version=history[-1],
        status="current",
        reports=(made_up_report(domains, teachers, history),),
        lineages=made_up_lineages(domains, teachers, history),
        samples=samples,
        absent={"Calibration": f"not measured {HOSTILE}"},
    )
