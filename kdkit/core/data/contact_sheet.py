"""A picture of a few samples, with their ids, classes and texts."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.core.data.images import open_image

SIDE, MARGIN, LINE = 224, 8, 14
"""Pixels of an image's side, of the space around it, and of a line of text."""
LETTERS, LINES = 34, 7
"""Of a line, and of the text below an image."""


def write_contact_sheet(path: Path, samples: Sequence[Sample]) -> list[str]:
    """Write a PNG file with the samples side by side; returns the ids of those whose image cannot be read."""
    sheet = Image.new(
        "RGB", (max(1, len(samples)) * (SIDE + MARGIN) + MARGIN, SIDE + 2 * MARGIN + LINES * LINE), "white"
    )
    draw, font, unreadable = ImageDraw.Draw(sheet), ImageFont.load_default(), list[str]()
    for number, sample in enumerate(samples):
        left = MARGIN + number * (SIDE + MARGIN)
        try:
            picture = open_image(sample)
        except KdkitError as error:
            unreadable.append(sample.id)
            lines = [error.what, error.why]
        else:
            picture = ImageOps.contain(picture, (SIDE, SIDE))
            sheet.paste(picture, (left + (SIDE - picture.width) // 2, MARGIN + (SIDE - picture.height) // 2))
            lines = []
        texts = [*lines, sample.id, f"{sample.domain} / {sample.label or 'no label'} / {sample.split}", sample.text]
        wrapped = [part for text in texts for part in textwrap.wrap(text, LETTERS)]
        for line, text in enumerate(wrapped[:LINES]):
            shown = text.encode("latin-1", "replace").decode("latin-1")  # what the font has
            draw.text((left, MARGIN + SIDE + 4 + line * LINE), shown, fill="black", font=font)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, stream.getvalue())
    return unreadable
