"""Boxes in the coordinates of each kind of model, for training, answering and teaching."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdkit.core.contracts import Answer, Sample, Silent, TrustTable
from kdkit.core.data import load_index
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.plan import make_plan
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.extraction import extract
from kdkit.core.project.project import Project
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.teachers import OpenTeacher
from kdkit.plugins.loaders.generating import GeneratingTeacher, load_generating
from kdkit.plugins.students.clinkd import student as module
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.core.distill.building import build_plan
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import SIZES, SMALL, make, picture

BOX = "<ref>lung</ref><box>(100,250),(500,750)</box>"
LARGE: dict[str, Any] = {"max_tokens": 512, "max_answer": 96, "max_pixels": 200 * 200, "min_pixels": 28 * 28}


def boxed(text: str = BOX, question: str = "<image>Where is the lung?", **extra: Any) -> Sample:
    told = {"messages": [{"role": "user", "content": question}], "box_family": "qwen-vl", **extra}
    return Sample(id="s1", image=Path("x.png"), text=text, domain="vg/ct", origin="a.json:7", extra=told)


def taught(student: ClinkdStudent, sample: Sample, size: tuple[int, int] = (150, 90)) -> tuple[str, str]:
    """Prompt and answer as the student reads them."""
    inputs, tokens = student.prepare(picture(*size), sample), student.preparation.tokens
    ids = inputs["answer_ids"]
    prompt = tokens._tokenizer.decode(inputs["tokens"][: inputs["start"]].tolist(), skip_special_tokens=False)
    return prompt, tokens.decode(ids[ids >= 0].tolist())


def resized(width: int, height: int) -> tuple[int, int]:
    """By stock transformers."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    h, w = smart_resize(height, width, factor=28, min_pixels=LARGE["min_pixels"], max_pixels=LARGE["max_pixels"])
    return w, h


@pytest.mark.parametrize("size", [(150, 90), (700, 300), (20, 33)])
def test_each_kind_of_model_has_its_own(size: tuple[int, int]) -> None:
    question = f"<image>Is it {BOX}?"
    w, h = resized(*size)
    pixels = [round(0.1 * w), round(0.25 * h), round(0.5 * w), round(0.75 * h)]
    tokens = "<|object_ref_start|>lung<|object_ref_end|><|box_start|>(100,250),(500,750)<|box_end|>"
    json = f'[{{"bbox_2d": {pixels}, "label": "lung"}}]'
    cases: tuple[tuple[str, dict[str, str], str], ...] = (
        ("qwen2_vl", {}, tokens),
        ("qwen2_5_vl", {}, json),
        ("qwen2_5_vl", {"boxes": "qwen2-vl"}, tokens),
        ("qwen2_vl", {"boxes": "as-is"}, BOX),
    )
    for family, options, written in cases:
        prompt, answer = taught(make(family, **{**LARGE, **options}), boxed(question=question), size)
        assert answer == written
        assert f"Is it {written}?" in prompt


def test_the_last_image_before_a_box_is_its_own(tmp_path: Path) -> None:
    picture(90, 150).save(tmp_path / "second.png")
    sample = boxed(question="<image>and<image>Where?", images=[tmp_path / "second.png"])
    student = make("qwen2_5_vl", **LARGE)
    for extra, size in (({}, (90, 150)), ({"box_image": 0}, (150, 90))):
        w, h = resized(*size)
        _, answer = taught(student, replace(sample, extra={**sample.extra, **extra}))
        assert str([round(0.1 * w), round(0.25 * h), round(0.5 * w), round(0.75 * h)]) in answer


def test_what_it_says_is_in_the_coordinates_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Answer('[{"bbox_2d": [14, 21, 70, 63], "label": "lung"}]', (1, 2), (-0.5, -0.25))
    monkeypatch.setattr(module, "generate", lambda *_: [[said, said]])
    image, plain = picture(140, 84), boxed()
    student = make("qwen2_5_vl", **LARGE)
    found = student.answer([image], [plain])
    assert found == [[Answer(BOX, said.ids, said.log_probs)] * 2]
    undeclared = replace(plain, extra={"messages": plain.extra["messages"]})
    assert student.answer([image], [undeclared]) == [[said] * 2]


def test_boxes_that_make_no_sense_are_refused_with_their_place() -> None:
    for text in ("<box>(100,250),(500,1750)</box>", '[{"bbox_2d": [1, 2, 3, 4]}]'):
        for family in ("qwen2_vl", "qwen2_5_vl"):
            with raises_error("KD-ANS-009", where="a.json:7", mentions=("sample 's1'",)) as caught:
                make(family, **LARGE).prepare(picture(150, 90), boxed(text))
            assert caught.value.where == "a.json:7"
    with raises_error("KD-ANS-008", mentions=("'qwen'",)):
        make(boxes="qwen")


def test_identity_and_config_contain_the_coordinates(tmp_path: Path) -> None:
    student = make("qwen2_5_vl", **LARGE)
    assert student.config["boxes"] == "qwen2.5-vl"
    format_of_boxes, *settings = str(student.identity()["boxes"]).split()
    assert format_of_boxes == "qwen2.5-vl"
    assert [word for word in settings if word.isdigit()] == ["784", "40000", "28"]
    student.save(tmp_path)
    teacher = load_generating(tmp_path)
    assert teacher.identity()["boxes"] == student.identity()["boxes"]
    other = load_generating(tmp_path, boxes="qwen2-vl")
    assert other.identity()["boxes"] == "qwen2-vl" == make().identity()["boxes"]
    (item, same) = (model.prepare(picture(140, 84), boxed()) for model in (teacher, student))
    assert torch.equal(item["answer_ids"], same["answer_ids"])
    assert not torch.equal(other.prepare(picture(140, 84), boxed())["answer_ids"], same["answer_ids"])
    assert SMALL["max_answer"] != LARGE["max_answer"]


def folder(root: Path, **options: Any) -> Project:
    """Two grounding questions and one without a box, for a student of Qwen2.5-VL's kind."""
    root.mkdir()
    rows = []
    for name, text in (("a", BOX), ("b", "<box>(0,0),(900,900)</box>"), ("c", "the lung")):
        picture(60, 90).save(root / f"{name}.png")
        told = {"messages": [{"role": "user", "content": "<image>Where?"}], "box_family": "qwen-vl"}
        domain = "vqa/ct" if name == "c" else "vg/ct"
        row = {"id": name, "image": f"{name}.png", "text": text, "domain": domain, "split": "train", "extra": told}
        rows.append(json.dumps(row) + "\n")
    (root / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    config = {"sizes": {**SIZES, "family": "qwen2_5_vl"}, **SMALL, **LARGE, **options}
    document = {
        "version": 1,
        "student": {"family": "clinkd", "config": config},
        "teachers": {},
        "data": [{"source": "jsonl", "path": "rows.jsonl"}],
        "recipe": "clinkd",
    }
    (root / "registry.yaml").write_text(json.dumps(document), encoding="utf-8")
    return Project(root)


def taught_by(project: Project, teacher: GeneratingTeacher, weight: np.ndarray[Any, Any]) -> TeachingInventory:
    table, parts = load_index(project), dict(teacher.identity())
    fingerprint = hashlib.sha256(parts["boxes"].encode()).hexdigest()
    store = FeatureStore(project.features)
    extract(store, [OpenTeacher("t", teacher, teacher, fingerprint, parts)], table)
    trust = TrustTable(("t",), table.domains, weight, weight, weight, np.full(2, 6), np.zeros(2))
    return TeachingInventory(table, {"t": store.column("t", fingerprint)}, trust, weight)


def test_stored_tokens_of_other_coordinates_are_refused(tmp_path: Path) -> None:
    project, like_the_data = folder(tmp_path / "project"), folder(tmp_path / "other", boxes="qwen-vl")
    make(**LARGE).save(tmp_path / "teacher")
    recipe, one = load_recipe("clinkd", project.catalogue), np.ones((1, 2))

    def built(weight: np.ndarray[Any, Any], project: Project = project, **options: Any) -> None:
        teacher = load_generating(tmp_path / "teacher", k=4, **options)
        inventory = taught_by(project, teacher, weight)
        assert [sample.extra["boxes"] != [] for sample in inventory.index.samples] == [True, True, False]
        plan = make_plan(recipe, inventory, None, {}, seed=0)
        made = build_plan(project, plan, inventory, None, Silent())
        batch = {name: x for name, x in made.inputs.batch(np.arange(3)).items() if name == "answer_ids"}
        stored = made.targets[0].load(np.arange(3), np.ones(3, np.float32))["tokens"]
        rows = slice(2, 3) if not weight[0].all() else slice(3)
        assert torch.equal(batch["answer_ids"][rows], stored[rows, : LARGE["max_answer"]].long())

    boxes = ("'a'", "2 samples", "qwen2-vl", "qwen2.5-vl")
    with raises_error("KD-DIST-031", where=f"{project.root}/rows.jsonl:1", mentions=boxes):
        built(one)
    built(np.array([[float(domain == "vqa/ct") for domain in load_index(project).domains]]))
    built(one, boxes="qwen2.5-vl")
    built(one, like_the_data, boxes="as-is")
    with raises_error("KD-DIST-031"):
        built(one, like_the_data)
