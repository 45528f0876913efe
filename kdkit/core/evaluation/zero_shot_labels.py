"""``kdkit data label``: a teacher's zero-shot labels of training samples, with its confidence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kdkit.core.base.atomic import require_place
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.result import Result, Section, Table
from kdkit.core.base.templates import fill
from kdkit.core.contracts import IMAGE, TEXT, Reporter
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.prompts import templates_of
from kdkit.core.data.teacher_labels import TeacherLabel, read_use, write_labels
from kdkit.core.evaluation.trust.measure import locked_column
from kdkit.core.evaluation.zero_shot import Array, class_embeddings, class_probabilities, unit_rows
from kdkit.core.features.extract.missing import extract_missing, live_devices
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.store import FeatureStore
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import line_of

BLOCK = 8192
"""Rows that are classified at a time."""
THRESHOLD = 0.8
ALIKE = 1e-5
"""Largest difference of unit vectors that are the same but for rounding."""
Classes = Mapping[str, Sequence[str]]
"""Class -> its prompts, which may hold ``{domain}`` and ``{label}``; none for the project's templates."""


@dataclass(frozen=True)
class LabelRequest:
    """What to label.

    Attributes:
        teacher: of the registry; it has image and text features.
        classes: those to choose from, at least two.
        threshold: samples with a smaller confidence get no label.
        domains: only samples of these; all without any.
    """

    teacher: str
    classes: Classes
    threshold: float = THRESHOLD
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class ZeroShotLabels(Result):
    """What was written.

    Attributes:
        teacher, fingerprint: who labeled.
        file: relative to the project if it is in it.
        threshold: of the confidence.
        labeled: class -> training samples with that label.
        unsure: training samples below the threshold.
        without_features: training samples whose features the teacher lacks, such as unreadable images.
        checked: calibration samples whose true label (or domain) is one of the classes, at or above the threshold, of
            ``of_known``; ``agreed``: of ``checked``, those that the teacher labels so.
    """

    teacher: str
    fingerprint: str
    file: str
    threshold: float
    labeled: Mapping[str, int]
    unsure: int
    without_features: int
    checked: int
    of_known: int
    agreed: int

    def to_json(self) -> Any:
        """All fields."""
        return asdict(self)

    def sections(self) -> Sequence[Section]:
        """A table of the classes, and how good the labels are."""
        rows = [[name, count] for name, count in self.labeled.items()]
        told: list[Section] = [Table(("label", "training samples"), rows, "lr")]
        told.append(f"{self.unsure} training samples below {self.threshold:g} get no label")
        if self.without_features:
            told.append(f"{self.without_features} training samples have no features of {self.teacher}")
        if self.of_known:
            share = f" ({100 * self.agreed / self.checked:.1f} %)" if self.checked else ""
            told.append(
                f"calibration samples of these classes: {self.checked} of {self.of_known} reach the threshold, "
                f"{self.agreed} of them are labeled right{share}"
            )
        else:
            told.append(
                "no calibration sample is known to be of these classes, so how good the labels are is not known"
            )
        return [*told, f"wrote {self.file}; the option teacher_labels of a data entry uses it for training"]


def read_classes(given: str, root: Path) -> Classes:
    """Names with commas between them, or a YAML or JSON file with a list of names or class -> prompts.

    Raises:
        KdkitError: fewer than two classes, or a file of another form.
    """
    where, why = given, ""
    found: Any = [name.strip() for name in given.split(",") if name.strip()]
    if given.lower().endswith((".yaml", ".yml", ".json")):
        where = os.path.abspath(root / given)
        try:
            found = YAML(typ="safe", pure=True).load(Path(where).read_text(encoding="utf-8"))
        except (OSError, ValueError, YAMLError) as error:
            found, why = None, (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    if isinstance(found, list):
        found = dict.fromkeys(found, ()) if all(isinstance(name, str) for name in found) else None
    given_prompts = found.items() if isinstance(found, Mapping) else ()
    classes = {name: [texts] if isinstance(texts, str) else texts for name, texts in given_prompts}
    if len(classes) < 2 or not all(isinstance(name, str) and _are_texts(texts) for name, texts in classes.items()):
        raise KdkitError(
            "KD-EVAL-340",
            "no two classes to choose from",
            where=where,
            why=why,
            fix="give names (--classes normal,mass), or a YAML file: {normal: ['a normal {domain} scan'], mass: [...]}",
        )
    return classes


def _are_texts(values: object) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(text, str) and text.strip() for text in values)


def label_samples(
    project: Project,
    request: LabelRequest,
    to: Path | None = None,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    reporter: Reporter,
) -> ZeroShotLabels:
    """Write the labels of the training samples. Features that are missing are extracted first, which may be resumed.

    The confidence is the probability of the class among the classes, by the softmax of 100 times the cosines, as in
    zero-shot evaluation. The same features and prompts give the same file.

    Args:
        to: the CSV file; ``labels/TEACHER.csv`` in the project by default.

    Raises:
        KdkitError: a threshold out of range, no such domain, a teacher that is live or lacks text features; the file
            cannot be written, or gives samples their domains; errors of the extraction.
    """
    from kdkit.core.data import load_index

    if not 0 <= request.threshold <= 1:
        fix = "give a number from 0 to 1"
        raise KdkitError("KD-EVAL-341", f"threshold is {request.threshold}", where="--threshold", fix=fix)
    _refuse_live(project, request.teacher)
    path = project.root / "labels" / f"{request.teacher}.csv" if to is None else Path(os.path.abspath(to))
    require_place(path)
    _refuse_own_domains(project, path)
    index = load_index(project, reporter)
    wanted = index.select(domains=request.domains or None)
    prompts = {
        domain: {name: _prompts(project, domain, name, texts) for name, texts in request.classes.items()}
        for domain in (index.domains[code] for code in np.unique(index.domain_index[wanted]))
    }
    texts = [text for classes in prompts.values() for group in classes.values() for text in group]
    extract_missing(
        project, index, [request.teacher], further_prompts=texts, device=device, batch_size=batch_size,
        reporter=reporter,
    )  # fmt: skip
    column = locked_column(FeatureStore(project.features), project.lock, request.teacher)
    _require_both(column, texts)
    places = column.locate(index)
    best, confidence = _classify(column, index, wanted[places[wanted] >= 0], places, prompts)
    names = tuple(request.classes)
    train = [row for row in index.select("train").tolist() if row in best]
    labels = {
        index.ids[row]: TeacherLabel(
            names[best[row]] if confidence[row] >= request.threshold else "", confidence[row], column.teacher,
            column.fingerprint,
        )
        for row in train
    }  # fmt: skip
    write_labels(path, labels)
    counts = Counter(one.label for one in labels.values())
    known = _known(index, [row for row in index.select("calibration").tolist() if row in best], names)
    sure = [row for row in known if confidence[row] >= request.threshold]
    inside = path.is_relative_to(project.root)
    return ZeroShotLabels(
        teacher=column.teacher,
        fingerprint=column.fingerprint,
        file=path.relative_to(project.root).as_posix() if inside else str(path),
        threshold=request.threshold,
        labeled={name: counts[name] for name in names},
        unsure=counts[""],
        without_features=int((np.isin(wanted, index.select("train")) & (places[wanted] < 0)).sum()),
        checked=len(sure),
        of_known=len(known),
        agreed=sum(names[best[row]] == known[row] for row in sure),
    )


def _known(index: SampleIndex, rows: Sequence[int], names: Sequence[str]) -> dict[int, str]:
    """Row -> its true label, or its domain where the classes are domains."""
    found = {}
    for sample, row in ((index.samples[row], row) for row in rows):
        truth = next((name for name in (sample.label, sample.domain) if name in names), None)
        if truth is not None:
            found[row] = truth
    return found


def _classify(
    column: Column,
    index: SampleIndex,
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    prompts: Mapping[str, Mapping[str, Sequence[str]]],
) -> tuple[dict[int, int], dict[int, float]]:
    """Row -> the most probable class, and row -> its probability."""
    best, confidence = dict[int, int](), dict[int, float]()
    for domain, classes in prompts.items():
        where = f"teacher '{column.teacher}', domain '{domain}'"
        embeddings = class_embeddings(classes, column.text_features, where=where)
        _require_different(embeddings, tuple(classes), where)
        own = rows[index.domain_index[rows] == index.domains.index(domain)]
        for start in range(0, len(own), BLOCK):
            part = own[start : start + BLOCK]
            image = unit_rows(column.gather(IMAGE, places[part]), what="image features", where=where)
            probability = class_probabilities(image, embeddings)
            best |= dict(zip(part.tolist(), probability.argmax(axis=1).tolist(), strict=True))
            confidence |= dict(zip(part.tolist(), probability.max(axis=1).round(6).tolist(), strict=True))
    return best, confidence


def _require_different(embeddings: Array, names: Sequence[str], where: str) -> None:
    """Raise KdkitError if the teacher reads two classes alike: which of them it names would be chance."""
    for second in range(1, len(names)):
        alike = np.abs(embeddings[:second] - embeddings[second]).max(axis=1) < ALIKE
        if alike.any():
            raise KdkitError(
                "KD-EVAL-345",
                f"the teacher cannot tell '{names[int(alike.argmax())]}' and '{names[second]}' apart",
                where=where,
                why="their prompts have the same text features, such as words that its tokenizer does not know",
                fix="describe the classes by other prompts in a YAML file, or choose another teacher",
            )


def _prompts(project: Project, domain: str, name: str, texts: Sequence[str]) -> list[str]:
    fields = {"domain": domain.replace("_", " "), "label": name.replace("_", " ")}
    try:
        return [fill(text, fields) for text in texts or templates_of(project.registry, domain)]
    except (KeyError, ValueError) as error:
        raise KdkitError(
            "KD-EVAL-342",
            f"the prompts of class '{name}' cannot be filled in",
            where="--classes",
            why=f"no {error} here" if isinstance(error, KeyError) else str(error),
            fix="a prompt may use {domain} and {label}",
        ) from error


def _refuse_live(project: Project, teacher: str) -> None:
    if teacher in live_devices(project.registry, project.lock):
        raise KdkitError(
            "KD-EVAL-343",
            f"teacher '{teacher}' is live, so it has no features of training samples",
            fix="remove 'signals: live' from its entry in registry.yaml; then its features are stored",
        )


def _refuse_own_domains(project: Project, path: Path) -> None:
    """Raise KdkitError if domains come from the file: prompts and chosen domains would follow from its own labels."""
    for number, entry in enumerate(project.registry.data):
        labels = read_use(entry.options.get("teacher_labels"), project.root)
        if labels is not None and labels.use.domain and labels.path == path:
            raise KdkitError(
                "KD-EVAL-460",
                "this file of labels gives samples their domains, so it cannot be written again",
                where=line_of(project.registry_path, "data", number),
                why="prompts, and the choice of domains, would depend on its own labels",
                fix="remove 'domain: true' from teacher_labels while you label, or write another file by --to",
            )


def _require_both(column: Column, texts: Sequence[str]) -> None:
    names = {spec.name for spec in column.signals}
    if {IMAGE, TEXT} <= names and all(text in column.texts for text in texts):
        return
    imported = {IMAGE, TEXT} <= names
    raise KdkitError(
        "KD-EVAL-344",
        f"teacher '{column.teacher}' cannot label by zero-shot classification",
        why="it has no features of the prompts" if imported else f"it gives {', '.join(sorted(names))} features alone",
        fix=f"kdkit features import {column.teacher} --from PATH --prompts FILE adds them"
        if imported
        else "choose a teacher with image and text features ('kdkit teachers')",
    )
