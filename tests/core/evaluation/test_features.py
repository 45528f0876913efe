"""Views of a live student and of stored features, on real files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdkit.core.contracts import ModelFeatures, Sample
from kdkit.core.data.images import open_image
from kdkit.core.data.locations import file_of
from kdkit.core.data.prompts import prompt_sets
from kdkit.core.evaluation.features import StoredFeatures, StudentFeatures
from kdkit.core.evaluation.zero_shot import unit_rows
from tests.core.evaluation.trust.synthetic import CLASSES, add_teacher, make_project, make_table
from tests.errors import raises_error
from tests.toys import ToyEncoder


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(11):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(path)
        found.append(Sample(f"s{number}", path, "a text", "ct", "cyst", "test"))
    return found


def test_the_student_is_its_plain_forward_pass(samples: list[Sample]) -> None:
    torch.manual_seed(0)
    student = ToyEncoder(width=6, dropout=0.5).train()
    encoded: list[int] = []
    view: ModelFeatures = StudentFeatures("v1", student, batch=4, progress=encoded.append)
    found = view.image(samples)
    assert student.training  # as it was, though dropout was off:
    with torch.inference_mode():
        pixels = torch.stack([student.preprocess(open_image(sample)) for sample in samples])
        expected = student.eval().encode_image(pixels).numpy()
        texts = student.encode_text(["one", "two"]).numpy()
    np.testing.assert_allclose(found, unit_rows(expected, what="rows"), atol=1e-6)
    np.testing.assert_allclose(view.text(["one", "two"]), unit_rows(texts, what="rows"), atol=1e-6)
    assert found.dtype == np.float32
    assert encoded == [4, 4, 3]


def test_the_batch_size_does_not_matter(samples: list[Sample]) -> None:
    student = ToyEncoder(width=6)
    one, many = (StudentFeatures("v1", student, batch=size).image(samples) for size in (1, 64))
    np.testing.assert_allclose(one, many, atol=1e-6)


def test_an_unreadable_image_is_named(samples: list[Sample]) -> None:
    file_of(samples[5].image).write_bytes(b"no image")
    with raises_error("KD-DATA-001", mentions=("'s5'",)):
        StudentFeatures("v1", ToyEncoder(), batch=4).image(samples)


def test_a_student_that_gives_nan_is_named(samples: list[Sample]) -> None:
    student = ToyEncoder()
    with torch.no_grad():
        next(student.image_tower.parameters()).fill_(float("nan"))
    with raises_error("KD-EVAL-013", where="student 'v1'", mentions=("'v1'", "11")):
        StudentFeatures("v1", student).image(samples)


def test_a_stored_view_gives_the_rows_of_its_column(tmp_path: Path) -> None:
    project, table = make_project(tmp_path), make_table(per_class=3)
    rng = np.random.default_rng(1)
    column = add_teacher(project, table, "radio", noise={"ct": 1.0}, rows=rng.permutation(len(table)))
    view: ModelFeatures = StoredFeatures("radio", column, table)
    chosen = [table.samples[row] for row in rng.permutation(len(table))[:7]]
    for sample, row in zip(chosen, view.image(chosen), strict=True):
        stored = column.gather("image", column.locate(table)[[table.ids.index(sample.id)]])[0].astype(np.float32)
        np.testing.assert_allclose(row, stored / np.linalg.norm(stored), atol=1e-6)
    prompts = prompt_sets(project.registry, table)["ct"]["cyst"]
    np.testing.assert_allclose(view.text(prompts), unit_rows(column.text_features(prompts), what="rows"), atol=1e-7)


def test_a_stored_view_covers_whole_domains_only(tmp_path: Path) -> None:
    project, table = make_project(tmp_path), make_table(per_class=3)
    all_but_one = np.array([row for row in range(len(table)) if table.ids[row] != "oct-drusen-test-0"])
    column = add_teacher(project, table, "radio", noise={}, rows=all_but_one)
    test = [table.samples[row] for row in table.select(split="test")]
    view = StoredFeatures("radio", column, table)
    assert domains(view.covered(test)) == {"ct", "skin"}
    with raises_error("KD-EVAL-012", mentions=("'oct-drusen-test-0'", "1")):
        view.image(test)
    asked = {"ct": {"cyst": ["never embedded"]}}
    assert domains(StoredFeatures("radio", column, table, asked).covered(test)) == {"skin"}


def domains(samples: Sequence[Sample]) -> set[Any]:
    assert len(samples) % 3 == 0
    assert {sample.domain for sample in samples} <= set(CLASSES)
    return {sample.domain for sample in samples}
