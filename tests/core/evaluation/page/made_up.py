"""A made-up version with many domains, long names and texts that would be markup if they were not escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.core.contracts import (
    Calibration,
    ConformalSets,
    Confusion,
    Curve,
    DomainScore,
    ModelFeatures,
    ReliabilityBin,
    Sample,
    SubgroupScore,
    TrustTable,
)
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.continual import compute_continual_metrics
from kdkit.core.evaluation.page.facts import PageFacts
from kdkit.core.evaluation.page.samples import Change, Example, Flips, SampleFacts, Shown
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
            score = DomainScore(
                domain, COUNT, {"accuracy": value}, {"accuracy": bounds}, 0.95, ids, {"accuracy": right}
            )
            scores.append(replace(score, **made_up_details(number, rng)))
        return scores


def made_up_details(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Calibration of all domains; subgroups, confusion and curves of some."""
    edges = np.linspace(0.3, 1.0, 8)
    bins = tuple(
        ReliabilityBin(low, high, int(rng.integers(1, 12)), (low + high) / 2, float(rng.uniform(low - 0.2, high)))
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    )
    sets = ConformalSets(0.9, (0.91, 0.85, 0.95), (1.4, 1.2, 1.6), 0.0, 0.2, 100)
    found: dict[str, Any] = {
        "calibration": Calibration((0.12, 0.08, 0.2), (0.1, 0.07, 0.18), (0.4, 0.3, 0.5), bins, sets)
    }
    classes = ("normal", HOSTILE, LONG, "pneumonia") if number else tuple(f"class {n}" for n in range(30))
    if number < 2:
        counts = rng.integers(0, 30, (len(classes), len(classes)))
        found["confusion"] = Confusion(classes, tuple(tuple(map(int, row)) for row in counts))
        y = (1.0, 0.8, 0.75, 0.5)
        low, high = tuple(v * 0.8 for v in y), tuple(min(1.0, v * 1.1) for v in y)
        found["curves"] = (Curve(f"high {HOSTILE}", (0.0, 5.0, 9.0, 20.0), y, low, high, 31),)
    if number < 4:
        found["subgroups"] = (
            SubgroupScore("sex", "F", 20, 0, {"accuracy": 0.8}, {"accuracy": (0.6, 0.95)}),
            SubgroupScore("sex", HOSTILE, 17, 15, {"accuracy": 0.6}, {"accuracy": (0.4, 0.8)}),
            SubgroupScore("sex", "unknown", 3, note="only 3 samples: too few to judge"),
        )
    return found


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
    shown = Shown(HOSTILE, HOSTILE, picture)
    change = Change(shown, domains[0], HOSTILE, ("normal", LONG), 0.91, 0.03)
    better = Change(Shown("ct-0042", "a CT", picture), domains[-1], "normal", ("pneumonia", "normal"), 0.12, 0.97)
    samples = SampleFacts(
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
