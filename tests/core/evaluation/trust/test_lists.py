"""Trust by imported lists: listed samples and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.trust.lists import sample_scores
from kdkit.core.evaluation.trust.measure import measure_trust, read_sample_scores
from kdkit.core.evaluation.trust.measurements import SCORES
from kdkit.core.features import FeatureStore
from kdkit.core.project.registry.lock import Lock
from tests.core.evaluation.trust.synthetic import Warned, add_teacher, make_project, make_table


def test_the_share_of_listed_samples_is_shown(tmp_path: Path) -> None:
    project, table, heard = make_project(tmp_path), make_table(per_class=4), Warned([])
    listed = np.flatnonzero(table.domain_index == table.domains.index("ct"))[::2]
    rows = np.arange(len(table))[5:]  # the column lacks some samples
    column = add_teacher(project, table, "released", noise={}, rows=rows)
    add_teacher(project, table, "other", noise={})
    places = column.locate(table)[listed]
    column.put_scores(SCORES["list"], places[places >= 0], np.ones((places >= 0).sum()))
    evaluator = make_evaluator(project.registry, project.catalogue, table)
    store, lock, names = FeatureStore(project.features), Lock.load(project.lock_path), ("released", "other")
    found = measure_trust(evaluator, store, lock, names, by="list", captions=True, reporter=heard)
    assert found.teachers[:2] == names
    assert found.accuracy[0, 0] == (places >= 0).sum() / 36
    assert np.isnan(found.accuracy[0, 1:]).all()
    assert np.isnan(found.accuracy[1:]).all()  # no list, and captions say nothing about themselves
    assert found.chance[0] == 0
    assert sum("'other' has no list" in warning for warning in heard.warnings) == 1
    values = read_sample_scores(evaluator, store, lock, found, heard).values
    assert np.flatnonzero(values[0] == 1).tolist() == listed[places >= 0].tolist()
    assert np.isnan(values[1]).all()
    assert np.array_equal(values[0], sample_scores(store.column("released"), table, "list"), equal_nan=True)
