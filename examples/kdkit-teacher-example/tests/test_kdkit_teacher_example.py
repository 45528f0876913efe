"""The contract of teachers, and what this one knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kdkit import KdkitError
from kdkit.testing import PluginContract, TeacherContract
from PIL import Image

import kdkit_teacher_example
from kdkit_teacher_example.make_weights import COLORS, write_folder
from kdkit_teacher_example.model import load_encoder

SHIPPED = Path(kdkit_teacher_example.__file__).parent / "weights"


class TestPlugin(PluginContract):
    name = "kdkit-teacher-example"


class TestTeacher(TeacherContract):
    name = "kdkit-teacher-example:teacher-example"


def test_it_knows_its_colors() -> None:
    encoder = load_encoder(SHIPPED)
    shades = [tuple(int(127 + 90 * channel) for channel in axes) for axes in COLORS.values()]
    pixels = torch.stack([encoder.preprocess(Image.new("RGB", (40, 30), shade)) for shade in shades])
    image = F.normalize(encoder.encode_image(pixels), dim=-1)
    text = F.normalize(encoder.encode_text([f"a picture that is {color}" for color in COLORS]), dim=-1)
    assert (image @ text.T).argmax(dim=1).tolist() == list(range(len(COLORS)))


def test_the_weights_are_what_the_script_makes(tmp_path: Path) -> None:
    made, shipped = load_encoder(write_folder(tmp_path)).state_dict(), load_encoder(SHIPPED).state_dict()
    assert made.keys() == shipped.keys()
    for name, tensor in made.items():
        assert torch.allclose(tensor, shipped[name], atol=1e-6)  # processors differ in the last bits


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KdkitError) as caught:
        load_encoder(tmp_path)
    assert caught.value.id == "EXAMPLE-001"
