"""What lock, student and recipe tell: combinations that cannot work are found without a feature or a teacher."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import Sample
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.plan.compatibility import (
    compare_with_student,
    find_incompatibilities,
    require_compatible,
    require_needed_signals,
)
from kdkit.core.project.project import Project
from kdkit.core.project.recipe import Recipe
from kdkit.core.project.registry.lock import LockedTeacher, SignalFact
from tests.core.evaluation.trust.synthetic import Warned
from tests.errors import raises_error

SIZES: dict[str, Any] = {"hidden": 32, "heads": 2, "kv_heads": 1}
CLINKD = {"family": "clinkd", "config": {"sizes": SIZES, "max_tokens": 64, "max_answer": 32}}
TOKENS = {"tokens": (32,), "topk_ids": (32, 4), "topk": (32, 4), "tail": (32, 3)}


def project(root: Path, student: dict[str, Any] = CLINKD, recipe: str = "clinkd") -> Project:
    (root / "registry.yaml").write_text(json.dumps({"version": 1, "student": student, "recipe": recipe}))
    return Project(root)


def locked(signals: dict[str, tuple[int, ...]], **identity: str) -> LockedTeacher:
    return LockedTeacher(
        provider="kdkit",
        source="local:m",
        commit=None,
        loader="image-text-to-text",
        options={},
        files={},
        also={},
        license=None,
        gated=False,
        signals={name: SignalFact(shape=shape, dtype="float16") for name, shape in signals.items()},
        identity=identity,
        fingerprint="0" * 64,
        locked_at="",
    )


def recipe(*losses: str, **fields: Any) -> Recipe:
    base = {"name": "toy", "summary": "toy", "losses": [{"name": name} for name in losses], "trust": {"policy": "all"}}
    return Recipe.model_validate({**base, "optimizer": {"lr": 0.1, "batch_size": 2, "steps": 1}, **fields})


def sample(number: int, *, boxes: bool) -> Sample:
    extra = {"boxes": [[0, 0, 1, 1]] if boxes else [], "box_family": "qwen-vl"}
    return Sample(str(number), Path("x.png"), "there", "vg/ct" if boxes else "vqa/ct", extra=extra)


def found(
    at: Project, facts: LockedTeacher, chosen: Recipe, samples: tuple[Sample, ...] = ()
) -> list[tuple[str, bool]]:
    builder = StudentBuilder.of(at)
    return [(one.error.id, one.fatal) for one in find_incompatibilities("t", facts, chosen, builder, samples)]


def test_widths_and_signals(tmp_path: Path) -> None:
    at = project(tmp_path)
    states = {**TOKENS, "answer_hidden": (32, 16)}
    assert found(at, locked(states), recipe("answer-vkd", heads="orthogonal")) == [("KD-DIST-021", True)]
    assert found(at, locked(states), recipe("answer-vkd")) == []
    shared = recipe("answer-vkd", space="shared", aligner={"name": "pca"})
    assert found(at, locked(states), shared) == [("KD-DIST-020", True)]
    assert found(at, locked({"image": (8,), "text": (8,)}), recipe("token-kd")) == [("KD-DIST-019", True)]
    assert found(at, locked({}), recipe("token-kd")) == []


@pytest.mark.parametrize(
    ("coordinates", "boxed", "wanted"),
    [
        ("qwen2.5-vl of images of 1 to 2 pixels, sides by 28", (True, True), [("KD-DIST-031", True)]),
        ("qwen2.5-vl of images of 1 to 2 pixels, sides by 28", (True, False), [("KD-DIST-031", True)]),
        ("qwen2.5-vl of images of 1 to 2 pixels, sides by 28", (False, False), []),
        ("qwen2-vl", (True, True), []),
    ],
)
def test_coordinates(tmp_path: Path, coordinates: str, boxed: tuple[bool, ...], wanted: list[tuple[str, bool]]) -> None:
    samples = tuple(sample(number, boxes=boxes) for number, boxes in enumerate(boxed))
    facts = locked(TOKENS, boxes=coordinates, max_answer="32")
    assert found(project(tmp_path), facts, recipe("token-kd"), samples) == wanted


def test_a_run_refuses_other_coordinates_and_warns_of_other_lengths(tmp_path: Path) -> None:
    at, reporter = project(tmp_path), Warned([])
    builder, facts = StudentBuilder.of(at), {"t": locked(TOKENS, boxes="json", max_answer="16")}
    pixels = (sample(0, boxes=True), sample(1, boxes=False))
    require_compatible(recipe("token-kd"), builder, facts, pixels, {"t": ["vqa/ct"]}, reporter)
    (length,) = reporter.warnings
    assert all(part in length for part in ("16", "32", "max_answer=32"))
    with raises_error("KD-DIST-031", mentions=("json", "qwen2-vl")):
        require_compatible(recipe("token-kd"), builder, facts, pixels, {}, reporter)


@pytest.mark.parametrize(
    ("losses", "signals", "refused"),
    [
        (("clip", "crd"), ("image",), True),
        (("clip", "crd"), ("image", "text"), False),
        (("clip",), ("image", "text"), True),  # no loss reads a teacher, so no features are there
    ],
)
def test_what_the_options_of_a_loss_need(
    tmp_path: Path, losses: tuple[str, ...], signals: tuple[str, ...], refused: bool
) -> None:
    chosen = recipe(*losses)
    parts = [part.model_copy(update={"options": {"positives": "similar"}}) if part.name == "clip" else part
             for part in chosen.losses]  # fmt: skip
    catalogue = project(tmp_path).catalogue
    similar = chosen.model_copy(update={"losses": tuple(parts)})
    with raises_error("KD-DIST-281", mentions=("'clip'", "text")) if refused else nullcontext():
        require_needed_signals(similar, catalogue, signals)
    require_needed_signals(chosen, catalogue, ())


def test_a_teacher_is_compared_when_it_is_added(tmp_path: Path) -> None:
    at, reporter = project(tmp_path), Warned([])
    facts = locked(TOKENS, tokenizer="another", max_answer="32")
    at.lock.with_teacher("t", facts).save(at.lock_path)
    compare_with_student(Project(tmp_path), "t", reporter)
    (tokens,) = reporter.warnings
    assert all(part in tokens for part in ("'t'", "tokenizer", "token-kd"))
    registry = {"version": 1, "student": {**CLINKD, "config": {"init": "./nowhere"}}, "recipe": "clinkd"}
    (tmp_path / "registry.yaml").write_text(json.dumps(registry))
    compare_with_student(Project(tmp_path), "t", reporter)  # no student yet: nothing to compare, no error
    assert len(reporter.warnings) == 1
