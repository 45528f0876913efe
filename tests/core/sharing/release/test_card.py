"""The card says what the record says, in Markdown that the Hub reads. ``card.md`` is what it looks like."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from kdkit.core.contracts import PinnedBase, Published
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.lineage import InitialWeights, Lineage, Origin
from kdkit.core.project.repair_record import RepairAttempt, RepairRecord
from kdkit.core.project.training_record import StageRecord
from kdkit.core.sharing.release.card import card_text
from kdkit.core.sharing.release.card_facts import HUB_LICENSES, CardFacts
from kdkit.core.sharing.release.card_tables import cell, metrics_table, table
from kdkit.core.sharing.release.form import ANSWERS, ENCODES, StudentForm
from kdkit.core.sharing.release.layout import Record
from kdkit.core.sharing.release.license import UNDETERMINED, StudentLicense
from kdkit.core.sharing.release.provenance import Taught
from tests.lineages import guard, lineage, retention, teacher

Card: Any = ModelCard  # it has no types
SNAPSHOT = Path(__file__).with_name("card.md")


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def scores(**domains: tuple[float, int]) -> dict[str, Any]:
    return {
        name: {"count": count, "level": 0.95, "metrics": {"accuracy": figure(x), "auc": figure(x + 0.05)}, "notes": []}
        for name, (x, count) in domains.items()
    }


def model(name: str, role: str, **domains: tuple[float, int]) -> dict[str, Any]:
    values = [x for x, _ in domains.values()]
    mean = sum(values) / len(values)
    means = {"accuracy": figure(mean), "auc": figure(mean + 0.05)}
    return {"name": name, "role": role, "chosen": {}, "mean": means, "domains": scores(**domains)}


def retrieval() -> dict[str, Any]:
    found = results()
    for one in found["models"]:
        one["mean"] = {"recall@1": one["mean"]["accuracy"]}
        for score in one["domains"].values():
            score["metrics"] = {"recall@1": score["metrics"]["accuracy"]}
    return {**found, "settings": {"task": "retrieval", "headline": "recall@1"}}


def results(split: str = "test") -> dict[str, Any]:
    return {
        "format": 1,
        "version": "v2",
        "split": split,
        "note": "A note about the split.",
        "settings": {},
        "metrics": ["accuracy", "auc"],
        "domains": ["ct", "oct"],
        "skipped": {"skin": "it has one class"},
        "models": [
            model("v2", "student", ct=(0.9, 200), oct=(0.7, 60)),
            model("v1", "student", ct=(0.88, 200), oct=(0.3, 60)),
            model("biomedclip", "teacher", ct=(0.91, 200)),
            model("eye_net", "teacher", ct=(0.3, 200), oct=(0.93, 60)),
            model("oracle", "oracle", ct=(0.91, 200), oct=(0.93, 60)),
        ],
        "ratios": {"v2": {"accuracy": 0.92, "auc": 0.95}},
        "continual": None,
    }


def history() -> tuple[Lineage, Lineage]:
    bio = teacher("biomedclip", "hf:lab/biomedclip@main", {"ct": 1.0})
    eye = teacher("eye_net", "local:(not published)", {"oct": 1.0}, license="cc-by-nc-4.0", since="v2")
    after = lineage(
        "v2",
        "v1",
        teachers=[{**bio, "inherited": True}, eye],
        data={
            "samples": {"ct": 36, "oct": 40},
            "known": ["ct", "oct"],
            "fresh": 40,
            "replayed": 36,
            "domains_without_teacher": ["skin"],
        },
        training={"steps": 8, "lr": 7.5e-4, "previous": {"weight": 10.0, "loss": "fd", "frozen_energy": 0.5}},
        retention=retention({"domain": "ct", "points": 2.0}, new_domains=["oct"]),
    )
    return lineage(teachers=[bio]), after


def with_last(**changes: Any) -> CardFacts:
    """The facts with other fields in the last lineage."""
    given = facts()
    first, last = given.record.history
    return replace(given, record=replace(given.record, history=(first, replace(last, **changes))))


def facts(**more: Any) -> CardFacts:
    past = history()
    published = Published(
        kind="A vision-language dual encoder",
        library="open_clip",
        tags=("clip", "zero-shot"),
        summary="Images of 32x32 pixels.",
        names=(),
        lines={"open_clip": "import open_clip\n"},
        probes={},
        missing={"transformers": "its image tower is timm's vit"},
    )
    checks: dict[str, dict[str, Any]] = {
        "open_clip": {"tolerance": 1e-5, "image_difference": 0.0, "text_difference": 3e-7},
        "transformers": {"missing": "its image tower is timm's vit"},
    }
    form = StudentForm(published, ENCODES, checks, {"python": "3.11.7", "open_clip_torch": "3.3.0"})
    record = Record(
        kdkit="0.1.0",
        version="v2",
        repository="lab/student",
        license="cc-by-nc-4.0",
        student=(),
        history=past,
        checks=form.checks,
        environment=form.environment,
        origin=None,
    )
    entries = {entry.name: entry for item in past for entry in item.teachers}
    known = [
        Taught("biomedclip", entries["biomedclip"], LicenseFacts(seen="mit"), "arXiv 2303.00915"),
        Taught("eye_net", entries["eye_net"], LicenseFacts(asserted="cc-by-nc-4.0")),
    ]
    given = CardFacts(
        record=record,
        form=form,
        license=StudentLicense("cc-by-nc-4.0", "non-commercial", ("teacher 'eye_net' (cc-by-nc-4.0)",)),
        teachers=known,
        results=results(),
        base="",
        taught=76,
    )
    return replace(given, **more)


def test_the_card_is_the_one_that_was_looked_at() -> None:
    """After a change on purpose: delete card.md, run this test, look at what it wrote, and commit it."""
    text = card_text(facts())
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(text, encoding="utf-8")
        pytest.fail("card.md was missing; it is written now: look at it")
    assert text == SNAPSHOT.read_text(encoding="utf-8")


def test_other_tasks_have_tables_of_their_headline() -> None:
    text = card_text(facts(results={**results(), "tasks": [retrieval()]}))
    assert "### Task `retrieval`" in text
    row, *_ = [line for line in text.split("### Task")[1].splitlines() if line.startswith("| ct")]
    assert "90.0 (88.0-92.0)" in row
    alone = {**results(), "models": [], "domains": [], "tasks": [retrieval()]}
    assert "was not evaluated." not in card_text(facts(results=alone)).split("## Teachers")[0].split("## Results")[1]


def test_the_method_of_a_task_is_stated() -> None:
    judged = {
        **retrieval(),
        "settings": {**retrieval()["settings"], "method": {"judge": "big", "prompt": "Grade\nit."}},
    }
    part = card_text(facts(results={**results(), "tasks": [judged]})).split("### Task")[1]
    assert "- judge: big\n- prompt: Grade it.\n" in part


def test_the_hub_reads_its_front_matter() -> None:
    data = Card(card_text(facts(base="lab/start"))).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "cc-by-nc-4.0",
        "open_clip",
        "zero-shot-image-classification",
    )
    assert data.base_model == "lab/start"
    assert data.tags is not None
    assert {"kdkit", "ct", "oct"} <= set(data.tags)
    assert data.eval_results is not None
    found = {(r.dataset_type, r.metric_type): r.metric_value for r in data.eval_results}
    assert found == {
        ("ct", "accuracy"): 0.9,
        ("ct", "roc_auc"): pytest.approx(0.95),
        ("oct", "accuracy"): 0.7,
        ("oct", "roc_auc"): pytest.approx(0.75),
    }
    assert "base_model" not in Card(card_text(facts())).data.to_dict(), "teachers are no base models"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mit", {"license": "mit"}),
        (UNDETERMINED, {"license": "unknown"}),
        ("our-terms", {"license": "other", "license_name": "our-terms", "license_link": "README.md"}),
    ],
)
def test_licenses_use_the_identifiers_of_the_hub(name: str, expected: dict[str, str]) -> None:
    license = StudentLicense(name, "unknown", ("teacher 'x' (weird)",))
    data = Card(card_text(facts(license=license))).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == expected
    assert data["license"] in {*HUB_LICENSES, "other", "unknown"}


def test_unknown_facts_are_stated() -> None:
    empty = {**results(), "models": [], "ratios": {}, "domains": [], "split": "none"}
    text = card_text(facts(results=empty, teachers=()))
    assert "This version was not evaluated." in text
    assert "None: it was trained on the data alone." in text
    assert "trained with kdkit on the samples' own texts, without a teacher, in " in text
    assert "`oracle` asks" not in card_text(facts(results={**results(), "ratios": {}}))
    assert "model-index" not in text
    assert "optimistic" in card_text(facts(results=results("calibration")))
    assert "optimistic" not in card_text(facts())


def test_domains_without_figures_are_named_among_the_limits() -> None:
    assert "perhaps forgotten" not in card_text(facts())
    given = with_last(data=replace(facts().record.lineage.data, known=("ct", "oct", "xray")))
    assert "- Not evaluated in this version, and perhaps forgotten: xray." in card_text(given)


def test_weights_of_captions_are_stated_where_they_count_less_than_fully() -> None:
    def text(**captions: float) -> str:
        data = replace(history()[-1].data, captions=captions)
        return " ".join(card_text(with_last(data=data)).split())

    assert "ct 0.25, oct 1.00" in text(ct=0.25, oct=1.0)
    assert text(ct=1.0, oct=1.0) == text()


def test_a_refused_version_says_so_at_its_top() -> None:
    refused = lineage(retention=retention(guard=guard("ct", promoted=False)))
    text = card_text(with_last(retention=refused.retention))
    assert "refused this version" in text.partition("## How to load it")[0]


def test_a_repaired_version_says_among_how_many_it_was_chosen() -> None:
    tries = [RepairAttempt(0, a, 12.0, "ct", -a, -a / 2, passed=a < 0.6) for a in (1.0, 0.75, 0.5)]
    text = card_text(with_last(repair=RepairRecord(tuple(tries), 2, ("oct",), (), 1.0)))
    assert "0.5 of the way from v1: chosen on the calibration split among 3 candidates" in text


def test_a_guard_without_figures_passed_nothing() -> None:
    unjudged = lineage(retention=retention(mean=None, new_domains=["oct"], not_compared=["ct"]))
    text = card_text(with_last(retention=unjudged.retention))
    assert "| v1 to v2 | eye\\_net | oct | - | - | no labeled samples | ct |" in text
    check = {**retention({"domain": "ct", "points": -9.0})["domains"]["ct"], "task": "retrieval"}
    record = {**retention(mean=None, checks=[check], guard=guard("retrieval/ct", promoted=False))}
    assert "| **refused**: retrieval/ct |" in card_text(with_last(retention=lineage(retention=record).retention))


@pytest.mark.parametrize(
    ("source", "said"), [("arXiv 2506.1", "mine: short (arXiv 2506.1)"), ("docs/recipes.md", "mine: short")]
)
def test_a_recipe_is_not_from_a_page_that_the_reader_lacks(source: str, said: str) -> None:
    text = card_text(with_last(recipe=facts().record.lineage.recipe.model_copy(update={"source": source})))
    assert f"| recipe | {said} |" in text


def test_stages_are_rows() -> None:
    last = facts().record.lineage
    recipe, training = last.recipe, replace(last.training, steps=5, seconds=1000.0)
    staged = recipe.with_stages([recipe.model_copy(update={"name": "first"}), recipe])
    record = StageRecord(1, "first", {"ct": 3}, (), training)
    text = card_text(with_last(recipe=staged, stages=(record,)))
    assert "| stage 1 | first: " in text
    assert "; 5 steps of " in text
    assert "(last stage) |" in text
    assert f"{1000 + last.training.seconds:.0f} s" in text


@pytest.mark.parametrize(("repository", "said"), [("openai/clip", "openai/clip"), ("", "not published")])
def test_the_initial_weights_are_stated(repository: str, said: str) -> None:
    assert "initial weights" not in card_text(facts()), "they were random"
    first, last = facts().record.history
    start = InitialWeights(repository, LicenseFacts(seen="mit"))
    first = replace(first, student=replace(first.student, start=start))
    text = card_text(replace(facts(), record=replace(facts().record, history=(first, last))))
    assert f"| initial weights | {said}; license: mit |" in text


def test_the_origin_is_stated() -> None:
    given = facts()
    text = card_text(replace(given, record=replace(given.record, origin=Origin("lab/first", "0123456789abcdef", "v1"))))
    assert "version v1 of [lab/first](https://huggingface.co/lab/first), commit `0123456789ab`" in text


def test_origins_on_another_hub_link_to_that_hub() -> None:
    given, home = facts(), "https://hub.lab"
    origin = Origin("lab/first", "0123456789abcdef", "v1", endpoint="https://hub.other")
    text = card_text(replace(given, endpoint=home, record=replace(given.record, origin=origin)))
    assert "[lab/first](https://hub.other/lab/first)" in text
    assert f"[lab/biomedclip]({home}/lab/biomedclip)" in text
    assert f"howpublished = {{{home}/lab/student}}" in text
    assert "huggingface.co" not in text


def test_a_student_that_answers() -> None:
    """Adapters with a variant of RoPE, of two tasks whose figures and notes differ."""
    given = facts()
    published = replace(
        given.published,
        library="peft",
        lines={"peft": "model = 1\n"},
        missing={},
        needs=("kdkit", "kdkit-rope-x"),
        base=PinnedBase("vendor/VL", "c" * 40, Path("here")),
    )
    form = StudentForm(published, ANSWERS, {"peft": {"tolerance": 1e-5, "logit_difference": 4e-7}}, {})
    notes = ("**Its RoPE variant is x.** Plain transformers gives other answers.",)
    own = model("v2", "student", **{"vg/ct": (0.9, 200), "rc/ct": (0.7, 60)})
    own["domains"]["vg/ct"]["metrics"]["recall_strict"] = figure(0.8)
    own["domains"]["rc/ct"]["notes"] = ["accuracy is ROUGE-L"]
    found = {**results(), "models": [own], "domains": ["vg/ct", "rc/ct"], "metrics": ["accuracy", "recall_strict"]}
    found["ratios"] = {"v2": {"accuracy": 0.92, "recall_strict": 0.5}}
    text = card_text(replace(given, form=form, notes=notes, results=found, base="vendor/VL"))
    data = Card(text).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("vendor/VL", "peft", "image-text-to-text")
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert "They gave the version's logits (largest relative difference 4e-07)" in text
    needed = "[vendor/VL](https://huggingface.co/vendor/VL) and `pip install kdkit kdkit-rope-x`"
    assert f"They need nothing but this repository and {needed}." in text
    assert "without kdkit" not in text
    assert notes[0] in text
    assert "| vg/ct | Accuracy 90.0 (88.0-92.0) %, AUC 0.950 (0.930-0.970), recall\\_strict 0.800" in text
    assert "| accuracy is ROUGE-L |" in text
    assert "| model | role | accuracy, % | domains |" in text, "what only some domains have is no mean over domains"
    assert "Against the oracle the student has 92.0 % of its accuracy." in text
    assert "heads" not in text
    assert "76 question-answer pairs" in text
    assert "Few evaluated questions: rc/ct (60)" in text
    assert metrics_table(facts().own) == "", "the same in all domains: the other tables have it"


def test_names_cannot_break_the_page() -> None:
    given = facts()
    evil = "a|b](http://x) <script>`*_\n# head"
    last = given.record.lineage
    last = replace(last, data=replace(last.data, known=(evil,), samples={evil: 3}))
    entry = replace(given.teachers[0].entry, source="hf:x/y) <b>@main")
    taught = [replace(given.teachers[0], name=evil, entry=entry)]
    text = card_text(replace(given, teachers=taught, record=replace(given.record, history=(last,))))
    body = text.split("---\n", 2)[2]
    assert "<script" not in body.replace("\\<", "")
    assert "\n# head" not in body
    for block in re.findall(r"(?:^\|.*\n)+", body, flags=re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
    Card(text)


def test_tables() -> None:
    assert table(("a", "b"), [("1", "2")], "lr") == "| a | b |\n| :-- | --: |\n| 1 | 2 |"
    assert cell("a  |\n_b_") == r"a \| \_b\_"
