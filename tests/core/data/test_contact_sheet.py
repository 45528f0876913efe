"""Contact sheets."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from kdkit.core.contracts import Sample
from kdkit.core.data.contact_sheet import MARGIN, SIDE, write_contact_sheet
from tests.core.features.small import paint


def test_samples_stand_side_by_side(tmp_path: Path) -> None:
    Image.new("RGB", (400, 100), (250, 0, 0)).save(tmp_path / "wide.png")
    samples = [
        Sample("wide", tmp_path / "wide.png", "a red image, \u51a0\u72b6\u9762 " * 20, "ct"),
        Sample("small", paint(tmp_path / "small.png", seed=1), "", "ct", "cyst"),
        Sample("gone", tmp_path / "gone.png", "t", "ct"),
    ]
    assert write_contact_sheet(tmp_path / "out" / "sheet.png", samples) == ["gone"]
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width == 3 * (SIDE + MARGIN) + MARGIN
        assert sheet.getpixel((MARGIN + SIDE // 2, MARGIN + SIDE // 2)) == (250, 0, 0)
        assert sheet.getpixel((MARGIN + SIDE // 2, MARGIN + 2)) == (255, 255, 255)
    assert write_contact_sheet(tmp_path / "none.png", []) == []
