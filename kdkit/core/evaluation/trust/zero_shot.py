"""Trust of a dual encoder: zero-shot classification of calibration samples from stored features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.contracts import Reporter
from kdkit.core.data.prompts import all_prompts
from kdkit.core.evaluation.evaluator import FeatureEvaluator
from kdkit.core.evaluation.metrics import design_effect
from kdkit.core.evaluation.sampling import sample_groups
from kdkit.core.evaluation.trust.measurements import SCORES, DomainCount, chance_level
from kdkit.core.evaluation.zero_shot import LOGIT_SCALE, Prompts, class_embeddings, class_probabilities, unit_rows

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column

BLOCK = 8192
"""Rows that are classified at a time."""
Array = np.ndarray[Any, Any]


class ZeroShotTrust:
    """Classifies the labeled samples of every domain that has labels and at least two classes."""

    def __init__(self, evaluator: FeatureEvaluator, reporter: Reporter) -> None:
        self._table, self._prompts, self._reporter = evaluator.table, evaluator.prompts, reporter
        self.domains = _measurable_domains(self._table, self._prompts, reporter)

    def fingerprint(self, column: Column) -> str:
        """Digest of everything that the scores depend on: features, their rows, samples, prompts and their vectors."""
        table = self._table
        rows = table.select(labeled=True)
        prompts = column.text_digest(all_prompts(self._prompts))
        samples = table.digest_of(rows)
        inputs = [column.fingerprint, self._prompts, prompts, LOGIT_SCALE, "evidence of groups", samples]
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
        digest.update((column.locate(table)[rows] >= 0).tobytes())
        return digest.hexdigest()

    def measure(self, column: Column, advice: str) -> dict[str, DomainCount]:
        """Domain -> counts, for domains that the column has; per-sample scores are stored beside the column.

        Args:
            advice: the remedy, appended to warnings about missing features.
        """
        table = self._table
        places = column.locate(table)
        counts, scored, scores = {}, [], []
        for domain, prompts in self.domains.items():
            rows = table.select(domains=[domain], labeled=True)
            rows = rows[~table.domain_of_teacher[rows]]
            if not self._has_features(column, places, domain, prompts, advice):
                continue
            rows = rows[places[rows] >= 0]
            true, right = _classify(column, places[rows], table.label_index[rows], prompts, domain)
            counted = np.isin(rows, table.select(split="calibration"))
            chance = chance_level(table.label_index[rows[counted]], len(prompts))
            groups = sample_groups([table.samples[row] for row in rows[counted]])
            evidence = 1 / design_effect(right[counted], groups) if counted.any() else 1.0
            counts[domain] = DomainCount(int(right[counted].sum()), int(counted.sum()), chance, evidence)
            scored.append(places[rows])
            scores.append(true)
        if scored:
            column.put_scores(SCORES["label"], np.concatenate(scored), np.concatenate(scores))
        return counts

    def _has_features(
        self, column: Column, places: Array, domain: str, prompts: Mapping[str, Sequence[str]], advice: str
    ) -> bool:
        """Whether the column has what the domain needs; warns about missing samples and prompts."""
        calibration = self._table.select(split="calibration", domains=[domain], labeled=True)
        absent = int((places[calibration] < 0).sum())
        texts = [text for group in prompts.values() for text in group]
        problem = ""
        if absent == len(calibration):
            problem = "no features of its calibration samples"
        elif any(text not in column.texts for text in texts):
            problem = "no features of its prompts"
        if problem:
            self._reporter.warn(
                f"teacher '{column.teacher}' has {problem} in domain '{domain}' and is not trusted there; {advice}"
            )
        elif absent:
            self._reporter.warn(
                f"teacher '{column.teacher}' lacks features of {absent} of {len(calibration)} calibration "
                f"samples in domain '{domain}': measured on the others"
            )
        return not problem


def _measurable_domains(
    table: SampleIndex, prompts: Prompts, reporter: Reporter
) -> dict[str, Mapping[str, Sequence[str]]]:
    """Domain -> its prompts, for domains with labeled calibration samples and at least two classes."""
    found: dict[str, Mapping[str, Sequence[str]]] = {}
    for domain in table.domains:
        rows = table.select(split="calibration", domains=[domain], labeled=True)
        labels, problem = {table.classes[domain][number] for number in np.unique(table.label_index[rows])}, ""
        if not labels:
            problem = "no labeled calibration sample"
        elif len(prompts[domain]) < 2:
            problem = f"a single class ('{next(iter(prompts[domain]))}')"
        if problem:
            reporter.warn(
                f"domain '{domain}' has {problem}: trust cannot be measured, so no teacher is trusted there. "
                "Give it labeled samples of at least two classes in the calibration split, or measure trust by "
                "captions (trust: {by: caption})"
            )
            continue
        found[domain] = prompts[domain]
        if absent := [label for label in prompts[domain] if label not in labels]:
            reporter.warn(
                f"domain '{domain}': no calibration sample of {', '.join(absent)}: "
                "trust does not cover " + ("this class" if len(absent) == 1 else "these classes")
            )
    return found


def _classify(
    column: Column, places: Array, labels: Array, prompts: Mapping[str, Sequence[str]], domain: str
) -> tuple[Array, Array]:
    """Probability of the true class (N,) float32, and whether it is the highest (N,), per row."""
    where = f"teacher '{column.teacher}', domain '{domain}'"
    classes = class_embeddings(prompts, column.text_features, where=where)
    true, right = np.empty(len(places), dtype=np.float32), np.empty(len(places), dtype=bool)
    for start in range(0, len(places), BLOCK):
        part = slice(start, start + BLOCK)
        image = unit_rows(column.gather("image", places[part]), what="image features", where=where)
        probability = class_probabilities(image, classes)
        true[part] = probability[np.arange(len(image)), labels[part]]
        right[part] = probability.argmax(axis=1) == labels[part]
    return true, right
