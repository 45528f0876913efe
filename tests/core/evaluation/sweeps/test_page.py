"""The page of a sweep."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from kdkit.core.evaluation.run_comparison import Change, RunEffect
from kdkit.core.evaluation.sweeps.page import render_sweep
from kdkit.core.evaluation.sweeps.record import SweepRecord, SweptVariation
from kdkit.core.evaluation.sweeps.report import SweepReport
from kdkit.core.evaluation.sweeps.results import VariationResult

DOMAINS = ("ct", "mri")


def made_up(axis: str = "alpha", question: str = "recipe") -> SweepReport:
    """Three variations, of which one is better, one unfinished and one impossible; a name is hostile."""
    names = {"as it is": 1.0, "<script>alert(1)</script>": 0.5, "late": 0.25, "never": 0.0}
    variations = tuple(
        SweptVariation(
            name, {axis: value}, ("part",), "" if number == 0 else "as it is", DOMAINS, 10,
            () if name == "never" else (f"{number}a", f"{number}b"), "no teacher" if name == "never" else "",
        )
        for number, (name, value) in enumerate(names.items())
    )  # fmt: skip
    record = SweepRecord(
        "toy", question, ("a",), axis, "kdkit", "zero-shot", "calibration", "no", 1.0, (0, 1), {"ct": 0.5},
        {"ct": 5, "mri": 7}, ("a note",), variations,
    )  # fmt: skip
    change = Change(0.6, 0.7, 10.0, 2.0, 18.0, 40)
    results = (
        VariationResult(variations[0], (0, 1), {0: {"ct": 0.5, "mri": 0.6}, 1: {"ct": 0.6, "mri": 0.7}}),
        VariationResult(
            variations[1], (0, 1), {0: {"ct": 0.7, "mri": 0.7}, 1: {"ct": 0.6, "mri": 0.8}},
            RunEffect({"ct": change, "mri": change}, change), (0, 1),
        ),
        VariationResult(variations[2], (), {}),
        VariationResult(variations[3], (), {}),
    )  # fmt: skip
    return SweepReport(record, results, "sweeps/toy")


class Tags(HTMLParser):
    """Counts elements; all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_self_contained_and_escaped() -> None:
    text = render_sweep(made_up())
    tags = Tags(text)
    assert tags.open == []
    assert tags.counts["script"] == 1, "its own"
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text
    assert "&lt;script&gt;" in text
    assert 'id="axis"' in text
    assert "Missing 2 runs" in text
    assert "never: no teacher" in text


def test_a_key_without_numbers_has_no_line() -> None:
    assert 'id="axis"' not in render_sweep(made_up(axis=""))


def test_the_report_counts_what_is_missing() -> None:
    report = made_up()
    assert report.missing == (("late", 0), ("late", 1))
    data = report.to_json()
    assert data["variations"][1]["change"]["points"] == 10.0
    assert [row["name"] for row in data["variations"] if row["impossible"]] == ["never"]
    assert "+10.0 (+2.0 to +18.0)" in str(report)
    assert report.per_seed(report.results[1])[1][1] == pytest.approx(5)
