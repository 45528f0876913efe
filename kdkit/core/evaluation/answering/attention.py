"""A picture of where answers look: the image, boxes of reference and answer, and rolled-out attention."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from PIL import Image

from kdkit.core.base.atomic import new_file, require_place
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Answering, AttentionMap, Reporter, Sample, ShowsAttention
from kdkit.core.data.images import open_image
from kdkit.core.evaluation.answering.lmms_eval import question_of
from kdkit.core.evaluation.report.picture import FAINT, STUDENT, STYLE

DRAWN = 6
"""Samples in one picture; further ones are told."""
REFERENCE = "#009E73"
CHARACTERS, LINES = 46, 8
SOFTWARE = "kdkit"
"""In the metadata of a picture; a file without it is never replaced."""
FEW = 8
"""Cells along a side; fewer are drawn as they are, more are smoothed."""
_WIDTH, _HEIGHT = 10.4, 3.1
"""Inches, of the picture and of a row."""


@dataclass(frozen=True)
class Looked:
    """One answered sample.

    Attributes:
        sample: its text is the reference.
        answer: the chosen one.
    """

    sample: Sample
    image: Image.Image
    answer: str
    map: AttentionMap


def require_attention(model: Answering, name: str, sample: Sample) -> ShowsAttention:
    """``model`` itself, after one try with any answer to ``sample``: before hours of answers.

    Raises:
        KdkitError: it cannot tell where it looks.
    """
    if isinstance(model, ShowsAttention):
        model.attention(open_image(sample), replace(sample, text="?"))
        return model
    raise KdkitError(
        "KD-EVAL-570",
        f"{name} cannot tell where its answers look",
        fix="leave --attention out; students of the family 'clinkd' can, others by the method 'attention'",
    )


def require_picture(path: Path) -> None:
    """Check, before long work, that a picture can be written: an absent PNG file, or an earlier one of kdkit.

    Raises:
        KdkitError: it cannot, or another file would be lost.
    """
    require_place(path)
    if path.suffix.lower() != ".png" or (path.exists() and not _made_here(path)):
        raise KdkitError(
            "KD-EVAL-599",
            "the picture of attention cannot be written here",
            where=str(path),
            why="this file was not made by kdkit" if path.suffix.lower() == ".png" else "pictures are PNG files",
            fix="--attention FILE.png, with the name of a new file",
        )


def _made_here(path: Path) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError):
        return False


def draw_attention(
    model: ShowsAttention, samples: Sequence[Sample], answers: Sequence[str], path: Path, reporter: Reporter
) -> None:
    """Write a PNG with a row for each of the first samples.

    Raises:
        KdkitError: an error of the model; an unreadable image.
    """
    if len(samples) > DRAWN:
        reporter.warn(f"the picture has the first {DRAWN} of {len(samples)} samples")
    looked = []
    for sample, answer in zip(samples[:DRAWN], answers, strict=False):
        image = open_image(sample)
        looked.append(Looked(sample, image, answer, model.attention(image, replace(sample, text=answer))))
    with matplotlib.rc_context(STYLE):
        figure = _figure(looked)
        with new_file(path) as draft:
            figure.savefig(draft, format="png", dpi=150, facecolor="white", metadata={"Software": SOFTWARE})
    reporter.say(f"picture of attention: {path}")


def _figure(looked: Sequence[Looked]) -> Figure:
    figure = Figure(figsize=(_WIDTH, _HEIGHT * len(looked) + 0.5), layout="constrained")
    grid: Any = figure.subplots(len(looked), 3, squeeze=False, width_ratios=(1, 1.12, 1.15))
    for axes, one in zip(grid, looked, strict=True):
        _draw_image(axes[0], one)
        _draw_heat(figure, axes[1], one)
        _draw_text(axes[2], one)
    figure.text(
        0.5,
        0.0,
        "Attention rollout (Abnar and Zuidema, 2020), mean over the tokens of the answer; colors are shares of the "
        "attention on the image",
        ha="center",
        va="bottom",
        fontsize=7.5,
        color=FAINT,
    )
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    foot = 0.2 / figure.get_figheight()
    engine.set(rect=(0, foot, 1, 1 - foot))
    return figure


def _draw_image(axes: Any, one: Looked) -> None:
    axes.imshow(np.asarray(one.image), interpolation="nearest" if max(one.image.size) < 256 else "antialiased")
    axes.set_axis_off()
    _draw_boxes(axes, one)
    axes.set_title(textwrap.shorten(one.sample.id, 34, placeholder="..."), fontsize=9, parse_math=False)


def _draw_boxes(axes: Any, one: Looked) -> None:
    width, height = one.image.size
    boxes = [(box, REFERENCE, "-") for box in one.sample.extra.get("boxes", ())]
    boxes += [(box, STUDENT, "--") for box in one.map.boxes]
    for (left, top, right, bottom), color, style in boxes:
        corner, size = (left * width - 0.5, top * height - 0.5), ((right - left) * width, (bottom - top) * height)
        for line, shade in ((3.2, "white"), (1.8, color)):
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=shade, linewidth=line, linestyle=style))


def _draw_heat(figure: Figure, axes: Any, one: Looked) -> None:
    """The image in gray below the cells' shares."""
    gray = np.asarray(one.image.convert("L"), dtype=np.float32) / 255
    cells = one.map.weights.mean(axis=0)
    whole = float(cells.sum())
    shares = cells / whole if whole > 0 else cells
    width, height = one.image.size
    how = Image.Resampling.NEAREST if max(shares.shape) < FEW else Image.Resampling.BICUBIC
    heat = np.asarray(Image.fromarray(shares.astype(np.float32)).resize((width, height), how))
    least, most = float(shares.min()), float(shares.max())
    strength = np.clip((heat - least) / max(most - least, 1e-12), 0, 1)
    axes.imshow(gray, cmap="gray", vmin=-0.1, vmax=1.0)
    drawn = axes.imshow(heat * 100, cmap="inferno", vmin=100 * least, vmax=100 * most, alpha=0.25 + 0.55 * strength)
    axes.set_axis_off()
    _draw_boxes(axes, one)
    axes.set_title(f"{100 * whole:.0f} % of the attention is on the image", fontsize=9)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.02, format="%.3g %%")
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=0)


def _draw_text(axes: Any, one: Looked) -> None:
    axes.set_axis_off()
    question = question_of(one.sample.extra.get("messages") or ())
    parts = (
        ("question", question, "black"),
        ("answer", one.answer or "(empty)", STUDENT),
        ("reference", one.sample.text, REFERENCE),
    )
    place = 1.0
    for name, text, color in parts:
        if not text:
            continue
        lines = [line for part in text.splitlines() for line in textwrap.wrap(part, CHARACTERS, break_on_hyphens=False)]
        lines = lines[:LINES] + ["..."] * (len(lines) > LINES)
        axes.text(0, place, name, transform=axes.transAxes, va="top", fontsize=7.5, color=FAINT)
        written = axes.text(0, place - 0.06, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=8.5)
        written.set(color=color, parse_math=False)  # a text may have dollar signs
        place -= 0.13 + 0.068 * len(lines)
