"""The tables of ClinKD from results."""

from __future__ import annotations

from kdkit.core.evaluation.sweeps.clinkd import FIGURE_4, TABLE_2, TABLE_3, paper_tables, tasks_of
from kdkit.core.evaluation.sweeps.record import SweptVariation
from kdkit.core.evaluation.sweeps.results import VariationResult

DOMAINS = ("vg/ct", "vg/mri", "mia/ct")


def result(name: str, parts: tuple[str, ...], *seeds: tuple[float, float, float], **values: float) -> VariationResult:
    one = SweptVariation(name, values, parts, "", DOMAINS, 10, ("a", "b")[: len(seeds)], "" if seeds else "no teacher")
    found = {number: dict(zip(DOMAINS, scores, strict=True)) for number, scores in enumerate(seeds)}
    return VariationResult(one, tuple(found), found)


def test_tables_have_the_papers_shape() -> None:
    results = [
        result("alone", (TABLE_2, TABLE_3, FIGURE_4), (0.2, 0.4, 0.9), (0.4, 0.4, 0.7), alpha=0.0),
        result("V_kD", (TABLE_3,)),
        result("alpha 1", (FIGURE_4,), (0.5, 0.7, 1.0), alpha=1.0),
        result("alpha 0.5", (FIGURE_4,), (0.5, 0.5, 1.0), alpha=0.5),
    ]
    (_, second), (_, third), (_, fourth) = paper_tables(results)
    assert second.headers == ("method", "VG", "MIA", "average", "seeds")
    assert second.rows == [("alone", "35.0 ± 7.1", "80.0 ± 14.1", "57.5 ± 3.5", "2 of 2")]
    assert third.headers == ("task", "method", "ct", "mri", "average")
    assert third.rows[0] == ("VG", "alone", "30.0 ± 14.1", "40.0 ± 0.0", "35.0 ± 7.1")
    assert third.rows[1] == ("VG", "V_kD", "–", "–", "–")
    assert third.rows[2] == ("MIA", "alone", "80.0 ± 14.1", "–", "80.0 ± 14.1")
    assert [row[0] for row in fourth.rows] == ["0", "0.5", "1"]
    assert fourth.rows[1][1:] == ("50.0", "100.0", "75.0", "1 of 1")


def test_tasks_in_the_papers_order() -> None:
    assert list(tasks_of(["other/ct", "mia/ct", "vg/ct", "plain"])) == ["vg", "mia", "other", "plain"]
