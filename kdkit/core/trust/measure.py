"""How well each teacher classifies calibration samples of each domain, zero-shot, from the store alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.contracts import Reporter, Silent, TrustTable
from kdkit.core.data.prompts import prompt_sets
from kdkit.core.errors import ExitCode, KdkitError
from kdkit.core.evaluate.zero_shot import (
    LOGIT_SCALE,
    Prompts,
    class_embeddings,
    class_probabilities,
    unit_rows,
)
from kdkit.core.trust.saved import Measured, TeacherTrust, as_table, load_measured, save_measured

if TYPE_CHECKING:
    from kdkit.core.data.table import SampleTable
    from kdkit.core.features.store import Column, FeatureStore
    from kdkit.core.workspace import Workspace

LEVEL = 0.95
SCORES = "trust"
"""Name of the per-sample scores beside a column: probability of the true class at :data:`LOGIT_SCALE`."""
_ROWS = 8192


def measure_trust(
    workspace: Workspace,
    table: SampleTable,
    store: FeatureStore,
    teachers: Sequence[str],
    *,
    level: float = LEVEL,
    reporter: Reporter | None = None,
) -> TrustTable:
    """Zero-shot accuracy of each teacher on each domain of the table, with Wilson bounds.

    Measured once: a teacher whose column, calibration samples, labels and prompts are those of the saved
    scores is not measured again. Where its column is gone but its scores are not, those are used, and it is
    said. Beside each column lie, for every labelled sample of every split, the probability that the teacher
    gives its true class.

    Args:
        teachers: with a column in the store, or saved scores.
        level: coverage of the bounds.

    Returns:
        Rows in the order of ``teachers``, columns in that of ``table.domains``; NaN for a domain that cannot
        be measured (no labelled calibration sample, or a single class), which is said as a warning.

    Raises:
        KdkitError: when a teacher has neither, when calibration rows are not extracted, or its features are
            NaN.
    """
    reporter = reporter or Silent()
    prompts = prompt_sets(workspace.registry, table)
    measurable = _measurable(table, prompts, reporter)
    measured = load_measured(workspace)
    for number, teacher in enumerate(teachers):
        reporter.progress("measuring trust", number, len(teachers), teacher)
        try:
            column = store.column(teacher)
            fingerprint = _fingerprint(column.fingerprint, table, prompts)
            if teacher not in measured or measured[teacher].fingerprint != fingerprint:
                measured[teacher] = TeacherTrust(fingerprint, _measure(teacher, column, table, measurable))
                save_measured(workspace, measured, logit_scale=LOGIT_SCALE)
        except KdkitError as error:
            if error.code is not ExitCode.MISSING or teacher not in measured:
                raise
            reporter.warn(f"teacher '{teacher}': {error.what}; using the trust that was measured before")
    reporter.progress("measuring trust", len(teachers), len(teachers))
    return as_table(measured, teachers, table.domains, level)


def _measurable(
    table: SampleTable, prompts: Prompts, reporter: Reporter
) -> dict[str, Mapping[str, Sequence[str]]]:
    """Domain -> its prompts, for domains on which zero-shot accuracy means something."""
    found: dict[str, Mapping[str, Sequence[str]]] = {}
    for domain in table.domains:
        rows = table.select(split="calibration", domains=[domain], labelled=True)
        labels = {table.samples[row].label for row in rows}
        problem = ""
        if not labels:
            problem = "no labelled calibration sample"
        elif len(prompts[domain]) < 2:
            problem = f"a single class ('{next(iter(prompts[domain]))}')"
        if problem:
            reporter.warn(
                f"domain '{domain}' has {problem}: trust cannot be measured, so no teacher is trusted there. "
                "Give it labelled samples of at least two classes in the calibration split, "
                "or use policy 'all' with unmeasured: true"
            )
            continue
        found[domain] = prompts[domain]
        if absent := [label for label in prompts[domain] if label not in labels]:
            reporter.warn(
                f"domain '{domain}': no calibration sample of {', '.join(absent)}: "
                "trust says nothing about " + ("this class" if len(absent) == 1 else "these classes")
            )
    return found


def _fingerprint(column: str, table: SampleTable, prompts: Prompts) -> str:
    """Of all that the scores depend on: the features, the labelled samples, the prompts, the scale."""
    digest = hashlib.sha256(json.dumps([column, prompts, LOGIT_SCALE], sort_keys=True).encode())
    for row in table.select(labelled=True):
        sample = table.samples[row]
        digest.update(json.dumps([sample.id, sample.domain, sample.label, sample.split]).encode())
    digest.update(np.ascontiguousarray(table.digests[table.select(labelled=True)]).tobytes())
    return digest.hexdigest()


def _measure(
    teacher: str, column: Column, table: SampleTable, domains: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, Measured]:
    places = column.locate(table)
    result = {}
    for domain, prompts in domains.items():
        rows = _extracted(table.select(domains=[domain], labelled=True), places, table, teacher)
        classes = class_embeddings(prompts, column.text_features)
        labels = table.label_index[rows]
        true, right = np.empty(len(rows)), np.empty(len(rows), dtype=bool)
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            image = unit_rows(
                column.gather("image", places[rows[part]]),
                what=f"image features in '{domain}'",
                where=teacher,
            )
            probability = class_probabilities(image, classes)
            true[part] = probability[np.arange(len(image)), labels[part]]
            right[part] = probability.argmax(axis=1) == labels[part]
        column.put_scores(SCORES, places[rows], true.astype(np.float32))
        judged = table.split_index[rows] == table.split_index[table.select(split="calibration")[0]]
        result[domain] = Measured(int(right[judged].sum()), int(judged.sum()), len(prompts))
    return result


def _extracted(
    rows: np.ndarray[Any, Any], places: np.ndarray[Any, Any], table: SampleTable, teacher: str
) -> Any:
    """``rows`` that the column has; unreadable images that the data entry allows to skip are left out."""
    absent = rows[(places[rows] < 0) & ~table.may_skip[rows]]
    if len(absent):
        raise KdkitError(
            f"teacher '{teacher}' has no features of {len(absent)} labelled samples "
            f"(the first is '{table.samples[absent[0]].id}')",
            where=teacher,
            fix=f"run 'kdkit features extract {teacher}'",
        )
    return rows[places[rows] >= 0]
