"""The page: self-contained, escaped, readable, and complete."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import replace

import pytest

from kdkit.core.base.markup import breakable, tag
from kdkit.core.evaluation.page.document import _resource
from kdkit.core.evaluation.page.facts import PageFacts
from kdkit.core.evaluation.page.page import render_page, section_titles
from tests.core.base.test_markup import Reader
from tests.core.evaluation.page.made_up import COUNT, HOSTILE, LONG, made_up_facts
from tests.lineages import guard, lineage, retention

DOMAINS = (*(f"domain-{n:02d}" for n in range(27)), LONG, HOSTILE, "ct")
TEACHERS = ("biomedclip", LONG, HOSTILE, *(f"teacher-{n}" for n in range(7)))


@pytest.fixture(scope="module")
def facts() -> PageFacts:
    return made_up_facts(DOMAINS, TEACHERS, ("v1", "v2", "v3"), b"\xff\xd8 a picture")


@pytest.fixture(scope="module")
def page(facts: PageFacts) -> str:
    return render_page(facts)


def test_hostile_names_and_texts_are_only_text(page: str) -> None:
    seen = Reader(page)
    assert seen.elements.count("script") == 1
    assert "onerror" not in dict(seen.attributes)
    assert {value for name, value in seen.attributes if name == "src"} == {
        "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8 a picture").decode()
    }
    assert seen.text.count(HOSTILE) > 10
    assert HOSTILE not in page


def test_the_page_loads_nothing_and_runs_only_its_own_script(page: str) -> None:
    addresses = [value or "" for name, value in Reader(page).attributes if name in ("src", "href", "action")]
    assert all(value.startswith(("#", "data:image/jpeg;")) for value in addresses)
    assert not re.search(r"url\(|@import|https?://", page)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    assert "default-src 'none'" in policy[1]
    for element, source in (("script", "script-src"), ("style", "style-src")):
        content = re.search(rf"<{element}>(.*?)</{element}>", page, re.S)
        assert content
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy[1]
    assert ' style="' not in page  # the policy would forbid it


def test_every_score_is_shown_with_n_and_interval(page: str, facts: PageFacts) -> None:
    assert facts.main
    for model in facts.main.evaluation.models:
        for domain, score in model.domains.items():
            low, high = score.intervals["accuracy"]
            name = str(tag("th", breakable(model.name), scope="row"))
            cells = ["td>" + model.role, "td>" + str(breakable(domain)), "td>accuracy"]
            row = "</td><".join(cells) + f'</td><td class="n" data-v="{score.metrics["accuracy"]}">'
            end = f'</td><td class="n">{100 * low:.1f} to {100 * high:.1f}</td><td class="n" data-v="{COUNT}">'
            assert f"{name}<{row}{100 * score.metrics['accuracy']:.1f}{end}" in page, (model.name, domain)
    numbers = len(facts.main.evaluation.models) * len(DOMAINS)
    assert f"{numbers} numbers" in page


def test_all_parts_are_there_and_what_is_absent_is_said(facts: PageFacts, page: str) -> None:
    titles = section_titles(facts)
    words = (
        "Summary,Models by domain,oracle,Retention,numbers,Trust,Confusion,Most-changed,Reliability,Subgroups,Curves"
    )
    for word in (*words.split(","), "Retrieval", "Training", "comes from"):
        assert any(word in title for title in titles), word
    assert "not measured" in page

    bare = replace(facts, reports=(), samples=None, absent={"Scores": "run 'kdkit evaluate v3'"})
    assert not any("Confusion" in title for title in section_titles(bare))
    assert "run &#x27;kdkit evaluate v3&#x27;" in render_page(bare)


def test_a_first_version_without_teachers_has_a_page() -> None:
    shown = render_page(made_up_facts(("ct", "mri"), (), ("v1",)))
    assert "Retention" not in Reader(shown).text
    assert not re.search(r"\bnan\b", Reader(shown).text)


def test_every_reference_has_its_target(page: str) -> None:
    seen = Reader(page)
    ids = {value for name, value in seen.attributes if name == "id"}
    used = {str(value)[1:] for name, value in seen.attributes if name == "href"}
    assert used <= ids


@pytest.mark.parametrize("dark", [False, True])
def test_texts_on_all_shades_have_enough_contrast(dark: bool) -> None:
    """WCAG 2.1, success criterion 1.4.3: at least 4.5 : 1."""
    style = _resource("page.css")
    part = style.split("@media (prefers-color-scheme: dark)")[2 if dark else 1]
    part = part.split("@media")[0] if dark else style.split(".h0", 1)[1].split("@media")[0]
    pairs = re.findall(r"background: (#\w{6}); color: (#\w{6})", part)
    assert len(pairs) == 11
    for back, ink in pairs:
        assert _contrast(back, ink) >= 4.5, (back, ink)


@pytest.mark.parametrize("dark", [False, True])
def test_texts_and_marks_stand_out(dark: bool) -> None:
    """Texts 4.5 : 1, graphical marks 3 : 1 (WCAG 2.1, 1.4.3 and 1.4.11)."""
    roots = re.findall(r":root \{(.*?)\}", _resource("page.css"), re.S)
    colors = dict(re.findall(r"--([\w]+): (#\w{6})", roots[dark]))
    for name in ("ink", "faint", "link", "lost", "good"):
        assert _contrast(colors[name], colors["card"]) >= 4.5, name
    for name in ("student", *(f"t{n}" for n in range(6))):
        assert _contrast(colors[name], colors["card"]) >= 3, name


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return math.fsum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_refused_version_shows_the_check_that_failed(facts: PageFacts) -> None:
    changed = retention({"domain": "ct", "points": 0.5})
    check = {
        **changed["domains"]["ct"],
        "points": -9.5,
        "task": "retrieval",
        "significant": True,
        "over_tolerance": True,
    }
    guarded = {**changed, "checks": [check], "guard": guard("retrieval/ct", promoted=False)}
    refused = lineage("v3", "v2", retention=guarded)
    record = refused.retention
    assert facts.main
    assert facts.main.retention
    assert record
    report = replace(facts.main, retention=replace(facts.main.retention, checks=record.checks))
    text = Reader(render_page(replace(facts, reports=(report,), lineages=(*facts.lineages[:-1], refused)))).text
    assert re.search(r"Guard\s*refused\s*points: retrieval/ct", text)
    assert re.search(r"retrieval/ct\W[^%]*LOST", text)
