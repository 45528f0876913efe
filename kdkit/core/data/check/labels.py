"""Domains, classes and texts: names that look wrong, and splits that lack what training and trust need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from kdkit.core.contracts import SPLITS
from kdkit.core.data.check.examined import Examined, is_question
from kdkit.core.data.check.finding import Finding
from kdkit.core.data.names import count_no_names, count_of, find_similar_names, find_split_names, name_some


def check_names(data: Examined) -> Iterator[Finding]:
    """Domains and classes named as splits, that probably mean one thing, or that are missing values as text.

    The items are names of splits, ``SimilarNames``, and (name, samples).
    """
    if splits := find_split_names(data.samples):
        text = f"named as splits, so probably read at the wrong level: {', '.join(splits)}"
        yield Finding("split-names", "problem", text, splits)
    for names in find_similar_names(data.samples):
        yield Finding("similar-names", "problem", f"names that probably mean one thing: {names}", (names,))
    if missing := count_no_names(data.samples):
        named = name_some(f"{name} ({count})" for name, count in missing.items())
        text = f"missing values or lists written as text: {named}"
        yield Finding("missing-values", "problem", text, tuple(missing.items()))


def check_classes(data: Examined) -> Iterator[Finding]:
    """Classes without a calibration sample, and domains where trust cannot be measured at all.

    The items are (domain, class), and domains.
    """
    classes = {(s.domain, s.label) for s in data.samples if s.label}
    calibrated = {(s.domain, s.label) for s in data.samples if s.label and s.split == "calibration"}
    if missing := sorted(classes - calibrated):
        named = name_some(f"{domain}/{label}" for domain, label in missing)
        text = f"{count_of(missing, 'class')} without a calibration sample: {named}"
        yield Finding("uncalibrated", "problem", text, tuple(missing))
    measurable = {s.domain for s in data.samples if s.label or is_question(s)}
    if unlabeled := sorted({s.domain for s in data.samples} - measurable):
        text = f"no labels, so trust is measured by captions or not at all, in: {', '.join(unlabeled)}"
        yield Finding("unlabeled", "note", text, tuple(unlabeled))


def check_questions(data: Examined) -> Iterator[Finding]:
    """Domains whose questions have no answered calibration question, and questions without an answer.

    The items are domains, and (domain, split -> questions).
    """
    questions = [s for s in data.samples if is_question(s) and not s.label]
    calibrated = {s.domain for s in questions if s.split == "calibration" and s.text}
    if missing := sorted({s.domain for s in questions if s.split == "train"} - calibrated):
        text = f"no calibration questions, so no trust and no retention is measured, in: {', '.join(missing)}"
        yield Finding("uncalibrated-questions", "note", text, tuple(missing))
    found = Counter((s.domain, s.split) for s in data.samples if is_question(s) and not s.text)
    for domain in sorted({domain for domain, _ in found}):
        splits = {split: found[domain, split] for split in SPLITS}
        counts = ", ".join(f"{count} in {split}" for split, count in splits.items() if count)
        text = f"questions without an answer, unused in training and evaluation, in {domain}: {counts}"
        yield Finding("unanswered", "note", text, ((domain, splits),))
