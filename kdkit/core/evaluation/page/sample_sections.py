"""Sections about single samples: confusion matrices, what changed, and examples of retrieval."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from kdkit.core.evaluation.page.markup import Markup, bounds, join, percent, tag
from kdkit.core.evaluation.page.samples import Change, Confusion, Example, Flips, Shown
from kdkit.core.evaluation.page.tables import Cell, Head, data_table, heat, number

MATRIX = 20
"""With more classes than this, a domain has a list of its largest confusions instead of a matrix."""
LISTED = 20


def confusion_matrices(confusions: Sequence[Confusion], level: float) -> Markup:
    """A matrix per domain; shades are shares of the true class."""
    parts = [_matrix(item, level) if len(item.classes) <= MATRIX else _largest(item) for item in confusions]
    note = "Rows: true classes, columns: predicted ones. Shades: shares of the true class. Recall has Wilson intervals."
    return join([tag("p", note, class_="note"), tag("div", *parts, class_="matrices")])


def _matrix(item: Confusion, level: float) -> Markup:
    rows = []
    for row, name in enumerate(item.classes):
        total = int(item.counts[row].sum())
        cells = [
            Cell(
                f"{count:,}",
                float(count),
                f"n {heat(count / total, 0, 1) if total else ''}" + " hit" * (row == column),
                f"{name} taken for {item.classes[column]}: {count} of {total}",
            )
            for column, count in enumerate(item.counts[row].tolist())
        ]  # fmt: skip
        rows.append(
            [Cell(name), *cells, _recall(int(item.counts[row, row]), total, level), number(f"{total:,}", total)]
        )
    heads = [
        Head("True class"),
        *(Head(name, "n model") for name in item.classes),
        Head("Recall, %", "n"),
        Head("n", "n"),
    ]
    right, total = int(item.counts.trace()), int(item.counts.sum())
    caption = f"{item.domain}: {right:,} of {total:,} right ({percent(right / total)} %)"
    return tag("div", data_table(heads, rows, caption=caption, style="heat matrix"))


def _recall(right: int, total: int, level: float) -> Cell:
    if not total:
        return Cell("–", style="n", title="no sample")
    low, high = wilson(right, total, level)
    return Cell(join([tag("span", percent(right / total)), tag("small", bounds(low, high))]), right / total, "n")


def wilson(right: int, total: int, level: float) -> tuple[float, float]:
    """Interval of a share (Wilson, JASA 22, 1927), by scipy."""
    from scipy.stats import binomtest

    found = binomtest(right, total).proportion_ci(confidence_level=level, method="wilson")
    return float(found.low), float(found.high)


def _largest(item: Confusion) -> Markup:
    off = [
        (int(count), row, column)
        for row, counts in enumerate(item.counts.tolist())
        for column, count in enumerate(counts)
        if row != column and count
    ]
    rows = [
        [
            Cell(item.classes[row]), Cell(item.classes[column]), number(f"{count:,}", count),
            number(f"{int(item.counts[row].sum()):,}", float(item.counts[row].sum())),
        ]
        for count, row, column in sorted(off, key=lambda found: -found[0])[:LISTED]
    ]  # fmt: skip
    caption = f"{item.domain}: the {len(rows)} largest confusions among {len(item.classes)} classes"
    heads = [Head("True class"), Head("Predicted"), Head("Samples", "n"), Head("n of the true class", "n")]
    return tag("div", data_table(heads, rows, caption=caption))


def changed_samples(changes: Sequence[Change], flips: Sequence[Flips], parent: str, version: str) -> Markup:
    """How many predictions became right or wrong, and the samples that moved most."""
    rows = [
        [
            Cell(item.domain), number(f"{item.gained:,}", item.gained), number(f"{item.lost:,}", item.lost),
            number(f"{item.count:,}", item.count),
        ]
        for item in flips
    ]  # fmt: skip
    heads = [Head("Domain"), Head("Became right", "n"), Head("Became wrong", "n"), Head("n", "n")]
    table = data_table(heads, rows, caption=f"Predictions of {version} that differ from those of {parent}")
    if not changes:
        return join([table, tag("p", "No prediction changed to another class.", class_="note")])
    cards = [_change_card(change, parent, version) for change in changes]
    title = f"The {len(cards)} samples whose prediction changed and whose true class gained or lost most probability"
    return join([table, tag("h3", title), tag("ul", *cards, class_="cards")])


def _change_card(change: Change, parent: str, version: str) -> Markup:
    better = change.after > change.before
    lines = [
        tag("p", tag("b", change.domain), f" · true class: {change.label}"),
        tag("p", f"{parent}: {change.predicted[0]} · {version}: {change.predicted[1]}"),
        tag(
            "p", f"true class {percent(change.before, 0)} → {percent(change.after, 0)} %",
            class_="better" if better else "worse",
        ),
    ]  # fmt: skip
    return tag("li", _picture(change.sample), tag("div", tag("p", change.sample.name, class_="id"), *lines))


def retrieval_examples(examples: Sequence[Example]) -> Markup:
    """Images with their own caption and the captions that are nearest to them."""
    return tag("ul", *(_example_card(example) for example in examples), class_="cards wide-cards")


def _example_card(example: Example) -> Markup:
    near = [
        tag(
            "li",
            f"{text} ",
            tag("small", f"cosine {cosine:.3f}{' · its own' if right else ''}"),
            class_="own" if right else None,
        )
        for text, cosine, right in example.nearest
    ]
    rank = f"own caption: rank {example.rank:,} of {example.candidates:,}"
    body = [
        tag("p", tag("b", example.domain), f" · {rank}"),
        tag("p", f"“{example.sample.text}”"),
        tag("p", "Nearest captions:"),
        tag("ol", *near),
    ]
    return tag("li", _picture(example.sample), tag("div", tag("p", example.sample.name, class_="id"), *body))


def _picture(sample: Shown) -> Markup | None:
    if sample.picture is None:
        return None
    data = base64.b64encode(sample.picture).decode()
    return Markup(f'<img src="data:image/jpeg;base64,{data}" alt="{join([sample.name])}">')
