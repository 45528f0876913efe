"""Checks before a run computes anything: answers that the student refuses, and teachers with other tokens."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdkit.core.contracts import ChecksAnswers, Sample, SignalSpec, Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.checks import idle_losses, require_same_tokens
from kdkit.core.distill.run import distill
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.recipe import Recipe
from kdkit.core.teachers import OpenTeacher
from kdkit.core.teachers.add import add_teacher, lock_teachers
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import SIZES as TINY
from tests.plugins.students.clinkd.tiny import make
from tests.toy_project import make_project, open_project

SIZES: dict[str, Any] = {"hidden": 32, "heads": 2, "kv_heads": 1}
SETTINGS: dict[str, Any] = {"max_tokens": 64, "max_answer": 32, "max_pixels": 56 * 56, "system": ""}


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def reader_project(root: Path, words: list[str], **entry: Any) -> None:
    """Answers about ct ("ct: ...") and mri; the student has one token for "ct", the teacher for each of ``words``."""
    make_project(root, teachers={}, domains=("ct", "mri"), train=2, held_out=1)
    config = {"sizes": {**SIZES, "words": ["ct"]}, **SETTINGS}
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("{family: toy, config: {width: 12}}", _family(config))
    text += "trust: {policy: all, options: {unmeasured: true}}\noptimizer: {batch_size: 4, steps: 1}\n"
    registry.write_text(text, encoding="utf-8")
    manifest = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    manifest.write_text("".join(map(_line, rows)), encoding="utf-8")
    make(sizes={**SIZES, "words": words}, **SETTINGS).save(root / "models" / "reader")
    source = {"from": "local:models/reader", "loader": "image-text-to-text", "license": "mit", **entry}
    add_teacher(open_project(root), "reader", source)


def run(root: Path, recipe: str = "clinkd") -> list[str]:
    """A whole run of one step -> the warnings about tokens."""
    heard = Heard()
    assert distill(open_project(root), Options(recipe=recipe, cpu=True), reporter=heard) is not None
    return [text for text in heard.warnings if "token" in text]


def test_a_teacher_with_other_tokens_is_refused_before_extraction(tmp_path: Path) -> None:
    reader_project(tmp_path / "p", words=["ct", "mri"])  # more words: the id of the end is another one in every answer
    with raises_error("KD-DIST-036", mentions=("'reader'",)) as caught:
        distill(open_project(tmp_path / "p"), Options(cpu=True, recipe="clinkd"))
    assert caught.value.why.startswith("12 of 12 ")
    assert "'uld'" in caught.value.fix
    assert not list((tmp_path / "p" / "features").rglob("*.h5"))
    (tmp_path / "p" / "mine.yaml").write_text(ULD, encoding="utf-8")
    assert run(tmp_path / "p", "./mine.yaml") == []


def test_equal_tokenizers_pass(tmp_path: Path) -> None:
    reader_project(tmp_path / "p", words=["ct"])
    tokenizer = tmp_path / "p" / "models" / "reader" / "tokenizer.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text(encoding="utf-8"))), encoding="utf-8")
    lock_teachers(open_project(tmp_path / "p"), ["reader"])
    assert run(tmp_path / "p") == []


def test_other_tokens_in_one_domain_are_a_warning_and_an_error_where_the_teacher_may_teach_it(tmp_path: Path) -> None:
    reader_project(tmp_path / "p", words=["qx"])  # as many words as the student has: mri is split alike
    heard = Heard()
    with raises_error("KD-DIST-036", mentions=("'reader'",)) as caught:
        distill(open_project(tmp_path / "p"), Options(cpu=True, recipe="clinkd"), reporter=heard)
    (warning,) = [text for text in heard.warnings if "token" in text]
    assert all(part in warning for part in ("'reader'", "6 answers", " ct", "token-kd"))
    assert caught.value.why.startswith("6 of 12 ")
    assert not (tmp_path / "p" / "versions").exists()


def test_models_that_do_not_state_their_tokenizer_are_named() -> None:
    class Unknown:
        def identity(self) -> dict[str, str]:
            return {}

    signals = SimpleNamespace(signals=[SignalSpec("tokens", (4,), "int32")])
    for parts, student in (({}, Unknown()), ({"tokenizer": "a"}, Unknown())):
        heard, teacher = Heard(), OpenTeacher("silent", Unknown(), signals, "0", parts)  # type: ignore[arg-type]
        require_same_tokens(student, [teacher], [], {}, ["token-kd"], heard)
        (warning,) = heard.warnings
        assert all(part in warning for part in ("'silent'", "token-kd", "uld"))
        require_same_tokens(student, [teacher], [], {}, [], heard)
        assert len(heard.warnings) == 1


def test_domains_beyond_the_limit_of_a_teacher_do_not_count(tmp_path: Path) -> None:
    reader_project(tmp_path / "p", words=["qx"], domains=["mri"])
    assert run(tmp_path / "p") == []


ULD = """\
name: mine
summary: sorted probabilities
losses: [{name: answer-ce}, {name: uld}]
trust: {policy: all}
optimizer: {lr: 0.01, batch_size: 4, steps: 1}
"""


def _family(config: dict[str, Any]) -> str:
    return json.dumps({"family": "clinkd", "config": config})


def _line(row: dict[str, Any]) -> str:
    extra = {"task": "vqa", "messages": [{"role": "user", "content": "<image>What?"}]}
    return json.dumps({**row, "text": f"{row['domain']}: {row['label']}", "extra": extra}) + "\n"


def long_answers_project(root: Path) -> None:
    """A clinkd student whose answers have 24 tokens at most; two captions are longer, and one of a test sample."""
    make_project(root, teachers={"a": ("ct",)}, domains=("ct",), train=4, held_out=2)
    config: dict[str, Any] = {"sizes": TINY, "max_tokens": 128, "max_answer": 24}
    registry = root / "registry.yaml"
    family = json.dumps({"family": "clinkd", "config": config})
    text = registry.read_text(encoding="utf-8").replace("{family: toy, config: {width: 12}}", family)
    registry.write_text(text, encoding="utf-8")
    manifest = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    train = [number for number, row in enumerate(rows) if row["split"] == "train"]
    test = next(number for number, row in enumerate(rows) if row["split"] == "test")
    for number in (train[3], train[5], test):
        rows[number]["text"] = "x" * 30
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("recipe", ["clinkd", "sft"])
def test_refused_answers_are_reported_before_extraction(recipe: str, tmp_path: Path) -> None:
    root = tmp_path / "p"
    long_answers_project(root)
    with raises_error("KD-FEAT-007", mentions=("31", "24")) as caught:
        distill(open_project(root), Options(recipe=recipe, cpu=True))
    assert "2 training samples" in caught.value.why
    assert "samples.jsonl:" in caught.value.where
    assert "max_answer" in caught.value.fix
    assert not list((root / "features").rglob("*.h5"))


def test_a_student_checks_the_length_of_an_answer() -> None:
    student = make(max_answer=20)
    assert isinstance(student, ChecksAnswers)
    student.check_answer(Sample(id="a", image=Path("a.png"), text="x" * 19, domain="ct"))
    with raises_error("KD-STUD-035", mentions=("'a'", "21")):
        student.check_answer(Sample(id="a", image=Path("a.png"), text="x" * 20, domain="ct"))


def test_a_loss_that_compares_samples_needs_two_of_them() -> None:
    catalogue = load_catalogue()

    def recipe(*losses: str) -> Recipe:
        optimizer = {"lr": 0.01, "batch_size": 2, "steps": 1}
        names = [{"name": name} for name in losses]
        settings = {"name": "r", "summary": "r", "trust": {"policy": "all"}, "optimizer": optimizer, "losses": names}
        return Recipe.model_validate(settings)

    assert idle_losses(recipe("clip", "icl", "crd"), catalogue, 2) == ()
    assert idle_losses(recipe("clip", "fd", "crd"), catalogue, 1) == ("clip", "crd")
    with raises_error("KD-DIST-042", where="recipe r", mentions=("clip",)):
        idle_losses(recipe("clip"), catalogue, 1)
