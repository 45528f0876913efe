"""Which losses can read which teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.contracts import LossSpec, Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.loss_signals import no_signal_error, reads_teacher, skipping_losses
from kdkit.core.distill.prepare import prepare
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.recipe import Recipe
from tests.errors import raises_error
from tests.toy_project import RECIPE, make_project, open_project


def recipe(*losses: str) -> Recipe:
    base = {"name": "toy", "summary": "toy", "losses": [{"name": name} for name in losses], "trust": {"policy": "all"}}
    return Recipe.model_validate({**base, "optimizer": {"lr": 0.1, "batch_size": 2, "steps": 1}})


@pytest.mark.parametrize(
    ("given", "skipping"),
    [
        (("image",), ("icl", "crd")),
        (("text",), ("icl", "crd")),
        (("image", "text"), ()),
        (("tokens",), ("fd", "icl", "crd", "vkd")),
    ],
)
def test_losses_that_compare_signals_need_all_of_them(given: tuple[str, ...], skipping: tuple[str, ...]) -> None:
    catalogue = load_catalogue()
    assert skipping_losses(recipe("clip", "fd", "icl", "crd", "vkd"), catalogue, given) == skipping


def test_a_loss_without_teachers_reads_none() -> None:
    assert not reads_teacher(LossSpec(name="x", summary="", factory="", signals=()), ("image",))


def test_the_error_names_what_each_loss_reads() -> None:
    error = no_signal_error("uni", ("image",), recipe("crd", "clip"), load_catalogue())
    assert error.id == "KD-DIST-019"
    assert "crd needs each of image, text" in error.why
    assert "'fd'" in error.fix


def test_a_teacher_of_texts_that_may_teach_nothing_is_none(tmp_path: Path) -> None:
    """Its features are there and trust admits it nowhere: the plan says so, before the first step would."""
    make_project(tmp_path / "toy", teachers={"radio": ("ct",)}, domains=("ct",))
    clip = "  - {name: crd, weight: 1.0}\n  - {name: clip, options: {positives: similar}}\n"
    text = RECIPE.replace("  - {name: crd, weight: 1.0}\n", clip)
    for value in ("0.7", "1.0, on: lower"):
        (tmp_path / "toy" / "toy.yaml").write_text(text.replace("value: 0.7", f"value: {value}"), encoding="utf-8")
        project = open_project(tmp_path / "toy")
        if value == "0.7":
            prepare(project, Options(cpu=True), Silent()).close()
        else:
            with raises_error("KD-DIST-281", mentions=("'clip'", "may teach")):
                prepare(project, Options(cpu=True), Silent())
