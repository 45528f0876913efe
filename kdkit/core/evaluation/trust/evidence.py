"""Whether the calibration split is large enough for the trust policy: a check of ``kdkit data check``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import TrustPolicy, TrustPolicySpec, TrustTable
from kdkit.core.data.check.examined import UNLABELED, Examined
from kdkit.core.data.check.finding import Check, Finding
from kdkit.core.data.names import count_of, name_some
from kdkit.core.evaluation.metrics import wilson
from kdkit.core.evaluation.trust.measurements import LEVEL
from kdkit.core.project.recipe import teaching_stage
from kdkit.core.project.recipe_file import load_recipe

NAME = "evidence"
ACCURACY, WIDE = 0.8, 0.1
"""A good teacher, and half the width of its interval that is too much to choose by."""
MOST = 2000
"""Calibration samples that may be needed."""
FEW = 5
"""Calibration samples of a class; with fewer, one answer more or less changes its accuracy by a fifth."""


@dataclass(frozen=True)
class Evidence:
    """What the calibration split of a domain can show.

    Attributes:
        samples: its labeled calibration samples.
        chance: accuracy of guessing, or of naming the most frequent class.
        needed: of a teacher that is always right, for the policy to admit it; None if the policy never does.
        half_width: of the interval of a teacher with 80 % accuracy.
    """

    domain: str
    samples: int
    chance: float
    needed: int | None
    half_width: float


def check_evidence(data: Examined) -> Iterator[Finding]:
    """Domains in which the policy could admit no teacher, however good, and domains with wide intervals.

    The items are :class:`Evidence`; of small classes and of those without a test sample, (domain, class).
    """
    project = data.project
    try:
        recipe = load_recipe(project.registry.recipe, project.catalogue, project.root).changed_by(project.registry)
        trust = teaching_stage(recipe, project.catalogue).trust
        options = {**project.catalogue.spec(TrustPolicySpec, trust.policy).options, **trust.options}
        policy: TrustPolicy = project.catalogue.make("policy", trust.policy, **options)
    except KdkitError as error:
        yield Finding(NAME, "skipped", error.headline)
        return
    found = [evidence_of(domain, counts, policy) for domain, counts in calibration_counts(data).items()]
    short = [one for one in found if one.needed is None or one.samples < one.needed]
    if short:
        named = name_some(f"{one.domain} ({one.samples} of {one.needed or f'over {MOST}'})" for one in short)
        text = (
            f"{count_of(short, 'domain')} with too few calibration samples: policy '{trust.policy}' admits no teacher"
        )
        yield Finding(NAME, "problem", f"{text} there, even one that is always right: {named}", tuple(short))
    wide = [one for one in found if one not in short and one.half_width > WIDE]
    if wide:
        named = name_some(f"{one.domain} ({one.samples}, +-{100 * one.half_width:.0f} points)" for one in wide)
        text = f"few calibration samples: intervals of a teacher with 80 % accuracy are wide in {named}"
        yield Finding(NAME, "note", text, tuple(wide))
    yield from _small_classes(data)


def calibration_counts(data: Examined) -> dict[str, list[int]]:
    """Domain -> labeled calibration samples of each of its classes; domains with two classes and a sample."""
    counts = {
        domain: [int(splits["calibration"]) for label, splits in labels.items() if label != UNLABELED]
        for domain, labels in data.counts.items()
    }
    return {domain: found for domain, found in counts.items() if len(found) > 1 and any(found)}


def evidence_of(domain: str, counts: list[int], policy: TrustPolicy) -> Evidence:
    """What ``counts`` calibration samples per class can show.

    Args:
        domain: its name.
        counts: at least two, not all 0.
        policy: asked about a single teacher that is always right on 1, 2, ... samples.
    """
    samples = sum(counts)
    chance = max(1 / len(counts), max(counts) / samples)
    trials = np.arange(1, MOST + 1)
    lower, upper = wilson(trials.astype(float), trials.astype(float), LEVEL)
    table = TrustTable(
        teachers=("always right",),
        domains=tuple(f"{domain} {count}" for count in trials.tolist()),
        accuracy=np.ones((1, MOST)),
        lower=lower[None],
        upper=upper[None],
        count=trials,
        chance=np.full(MOST, chance),
        level=LEVEL,
    )
    admitted = np.flatnonzero(np.asarray(policy(table))[0] > 0)
    low, high = wilson(np.array([ACCURACY * samples]), np.array([float(samples)]), LEVEL)
    needed = int(trials[admitted[0]]) if len(admitted) else None
    return Evidence(domain, samples, round(chance, 4), needed, round(float(high[0] - low[0]) / 2, 4))


def _small_classes(data: Examined) -> Iterator[Finding]:
    classes = {
        (domain, label): splits
        for domain, labels in data.counts.items()
        for label, splits in labels.items()
        if label != UNLABELED
    }
    small = [name for name, splits in classes.items() if 0 < splits["calibration"] < FEW]
    if small:
        named = name_some(f"{domain}/{label} ({classes[domain, label]['calibration']})" for domain, label in small)
        yield Finding(
            NAME, "note", f"{count_of(small, 'class')} with fewer than {FEW} calibration samples: {named}", tuple(small)
        )
    tested = {domain for (domain, _), splits in classes.items() if splits["test"]}
    missing = [name for name, splits in classes.items() if not splits["test"] and name[0] in tested]
    if missing:
        named = name_some(f"{domain}/{label}" for domain, label in missing)
        yield Finding(NAME, "note", f"{count_of(missing, 'class')} without a test sample: {named}", tuple(missing))


EVIDENCE = Check(NAME, "calibration samples against what the trust policy needs", check_evidence)
