"""The picture of where answers look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdkit.core.contracts import AttentionMap, Sample
from kdkit.core.evaluation.answering.attention import DRAWN, draw_attention, require_attention, require_picture
from tests.errors import raises_error
from tests.recorder import Recorder


class Looks:
    """A model that looks at the top left cell alone."""

    def attention(self, image: Image.Image, sample: Sample) -> AttentionMap:  # noqa: ARG002
        weights = np.zeros((2, 3, 4), dtype=np.float32)
        weights[:, 0, 0] = 0.25
        return AttentionMap(("a", "b"), weights, ((0.0, 0.0, 0.25, 0.5),) if sample.text == "boxes" else ())


def asked(folder: Path, count: int) -> list[Sample]:
    Image.new("RGB", (64, 48), (40, 90, 40)).save(folder / "x.png")
    extra = {"messages": [{"role": "user", "content": "<image>Where is it?"}], "boxes": [(0.5, 0.5, 1.0, 1.0)]}
    return [Sample(f"s{n}", folder / "x.png", "here", "vg/ct", None, "test", extra=extra) for n in range(count)]


def test_it_shows_where(tmp_path: Path) -> None:
    """The cell that is looked at is bright, the others are dark; boxes have their colors."""
    reporter, path = Recorder(), tmp_path / "a.png"
    draw_attention(Looks(), asked(tmp_path, 1), ["boxes"], path, reporter)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    third = pixels[:, width // 3 : 2 * width // 3]
    bright = np.argwhere((third[..., 0] > 200) & (third[..., 1] > 150) & (third[..., 2] < 140))
    assert len(bright) > 50
    assert bright[:, 0].mean() < height / 2
    green = (np.abs(pixels - (0, 158, 115)).sum(axis=-1) < 40).sum()
    orange = (np.abs(pixels - (213, 94, 0)).sum(axis=-1) < 40).sum()
    assert min(green, orange) > 100
    assert reporter.warnings == []


def test_further_samples_are_told(tmp_path: Path) -> None:
    reporter, count = Recorder(), DRAWN + 1
    draw_attention(Looks(), asked(tmp_path, count), ["x"] * count, tmp_path / "a.png", reporter)
    assert [f"first {DRAWN} of {count}" in text for text in reporter.warnings] == [True]


def test_a_model_that_cannot_tell(tmp_path: Path) -> None:
    (sample,) = asked(tmp_path, 1)
    mute: Any = object()
    looks: Any = Looks()
    with raises_error("KD-EVAL-570", mentions=("reader",)):
        require_attention(mute, "reader", sample)
    assert require_attention(looks, "x", sample)


def test_texts_with_dollar_signs(tmp_path: Path) -> None:
    """They are no formulas: ``$\\frac$`` would be an error of matplotlib."""
    sample = replace(asked(tmp_path, 1)[0], id="$\\frac$", text="$a_$")
    draw_attention(Looks(), [sample], ["$\\frac$"], tmp_path / "a.png", Recorder())


def test_no_other_file_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    require_picture(path)
    draw_attention(Looks(), asked(tmp_path, 1), ["x"], path, Recorder())
    require_picture(path)  # its own
    (tmp_path / "text.png").write_text("mine", encoding="utf-8")
    for other in ("x.png", "text.png", "a.jpg"):
        with raises_error("KD-EVAL-599", where=str(tmp_path / other)):
            require_picture(tmp_path / other)
    with raises_error("KD-BASE-300"):
        require_picture(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (200, 1)])
def test_odd_shapes(tmp_path: Path, size: tuple[int, int]) -> None:
    (sample,) = asked(tmp_path, 1)
    Image.new("RGB", size).save(tmp_path / "x.png")
    draw_attention(Looks(), [sample], [""], tmp_path / "a.png", Recorder())
    assert (tmp_path / "a.png").stat().st_size > 1000
