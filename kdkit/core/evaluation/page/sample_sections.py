"""Sections about single samples: what changed, and examples of retrieval."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from kdkit.core.base.markup import Markup, join, tag
from kdkit.core.evaluation.page.numbers import percent
from kdkit.core.evaluation.page.samples import Change, Example, Flips, Shown
from kdkit.core.evaluation.page.tables import Cell, Head, data_table, number


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
