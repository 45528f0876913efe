"""Edits of a card on the Hub survive the next push, beside what kdkit computes anew."""

from __future__ import annotations

import pytest

from kdkit.core.sharing.hub.card_edits import keep_edits

CARD = """\
---
license: {license}
tags:
- clip
---

# S

Version {version}.

## Results

Accuracy {version}0.

## Limits

- Few images.
"""
V1, V2 = CARD.format(license="mit", version=1), CARD.format(license="cc-by-4.0", version=2)


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("## Limits\n", "## Limits\n\nNo children.\n", True),
        ("Few images", "Very few images", True),
        ("Version 1.", "Version 1.\n\nHello.", True),
        ("## Limits\n", "## Use\n\nOnly here.\n\n## Limits\n", True),
        ("- clip\n", "- clip\n- lung\n", True),
        ("- clip\n---", "- clip\nlanguage: la\n---", True),
        ("license: mit", "license: wtfpl", False),
    ],
)
def test_an_edit_stays_beside_the_new_text(old: str, new: str, kept: bool) -> None:
    done = keep_edits(V1, V2, V1.replace(old, new, 1))
    added = [line for line in new.splitlines() if line.strip() and line not in V1.splitlines()]
    assert all((line in done.text) is kept for line in added)
    assert len(done.notes) == 1
    assert {"Accuracy 20.", "license: cc-by-4.0"} <= set(done.text.splitlines())
    assert "Accuracy 10." not in done.text
    assert keep_edits(V1, V2, done.text).text == done.text, "the next push changes nothing"


def test_nothing_edited_nothing_kept() -> None:
    for before, new, theirs in ((V1, V2, V1), (V1, V1, V1), (V1, V2, V2)):
        assert keep_edits(before, new, theirs) == type(keep_edits(V1, V1, V1))(new, ())


def test_a_removed_part_stays_removed_until_it_is_computed_anew() -> None:
    without = V1[: V1.index("## Limits")]
    assert "## Limits" not in keep_edits(V1, V2, without).text
    without = V1.replace("## Results\n\nAccuracy 10.\n\n", "")
    assert "Accuracy 20." in keep_edits(V1, V2, without).text


def test_headings_in_code_and_broken_front_matter_do_no_harm() -> None:
    code = V1 + "\n```\n## no heading\n```\n"
    assert "## no heading" in keep_edits(V1, V2, code).text
    for broken in (V1.replace("tags:", "tags: ["), V1.replace("tags:\n- clip", "\x00"), "\ufeff" + V1):
        done = keep_edits(V1, V2, broken)
        assert done.text == V2
        assert len(done.notes) == (not broken.startswith("\ufeff"))
