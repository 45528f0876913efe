"""The contract of students finds what is wrong on purpose here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL.Image import Image
from torch import Tensor, nn

from kdkit.core.contracts import Published, Sample
from kdkit.testing import StudentContract, checks
from tests.testing.harness import failed, found_by, skipped
from tests.toys import ToyEncoder, load_toy

HERE = f"{__name__}:"
CONFIG = {"width": 8, "hidden": 16, "dropout": 0.1}
Inputs = Mapping[str, Tensor]


class Right(ToyEncoder):
    """The toy is right; the mistakes are its subclasses."""


class OtherWidth(ToyEncoder):
    @property
    def outputs(self) -> Mapping[str, int]:
        return {"image": self.width, "text": self.width + 1}


class LogScale(ToyEncoder):
    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        return {**super().forward(inputs), "logit_scale": self.log_scale - 3}


class Unscaled(ToyEncoder):
    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        return {name: x for name, x in super().forward(inputs).items() if name != "logit_scale"}


class Augments(ToyEncoder):
    def prepare(self, image: Image, sample: Sample) -> Inputs:
        inputs = super().prepare(image, sample)
        return {**inputs, "pixels": inputs["pixels"] + torch.rand(1)}


class NativeSize(ToyEncoder):
    def prepare(self, image: Image, sample: Sample) -> Inputs:
        return {**super().prepare(image, sample), "size": torch.ones(image.size)}


class Noisy(ToyEncoder):
    def encode_image(self, pixels: Tensor) -> Tensor:
        return nn.functional.dropout(super().encode_image(pixels), 0.5)


class Centered(ToyEncoder):
    def encode_image(self, pixels: Tensor) -> Tensor:
        rows = super().encode_image(pixels)
        return rows - 0.5 * rows.mean(0)


class Detached(ToyEncoder):
    def encode_image(self, pixels: Tensor) -> Tensor:
        return super().encode_image(pixels).detach()


class OverflowsInBf16(ToyEncoder):
    def encode_image(self, pixels: Tensor) -> Tensor:
        rows = super().encode_image(pixels)
        return rows if rows.dtype == torch.float32 else rows / 0


class OwnGenerator(ToyEncoder):
    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            self.log_scale.add_(torch.rand((), generator=generator))


class HalfConfig(ToyEncoder):
    @property
    def config(self) -> Mapping[str, Any]:
        return {"width": self.width}


class PathConfig(ToyEncoder):
    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "width": torch.tensor(self.width)}


class ForgetsScale(ToyEncoder):
    """What it saves lacks a weight that has been trained."""

    def save(self, folder: Path) -> None:
        kept = self.log_scale.detach().clone()
        with torch.no_grad():
            self.log_scale.fill_(0)
            super().save(folder)
            self.log_scale.copy_(kept)


class Pickles(ToyEncoder):
    def save(self, folder: Path) -> None:
        super().save(folder)
        (folder / "pytorch_model.bin").write_bytes(b"")


class OtherTokens(ToyEncoder):
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return super().encode_text([text.upper() + "x" for text in texts])


class AltersByPlace(ToyEncoder):
    def alter(self, inputs: Mapping[str, Tensor], seeds: Tensor) -> Mapping[str, Tensor]:
        return super().alter(inputs, torch.arange(len(seeds)))


MISTAKES = [
    (OtherWidth, "test_outputs", "'text': expected (4, ..., 9), got (4, 8)"),
    (LogScale, "test_outputs", "'logit_scale': expected above 0 (exponentiated), got -1.0"),
    (Unscaled, "test_outputs", "expected 'logit_scale' beside image and text, got none"),
    (Augments, "test_prepare", "'pixels' prepared in threads"),
    (NativeSize, "test_prepare", "expected equal shapes of all samples"),
    (Noisy, "test_deterministic", "'image' computed again: expected the same within 0"),
    (Centered, "test_rows_are_independent", "'image' alone and in a batch"),
    (Detached, "test_trains", "no graph behind image"),
    (OverflowsInBf16, "test_trains_in_bf16", "NaN or infinite"),
    (OwnGenerator, "test_seed", "'log_scale' differs; draw weights from torch's global generator"),
    (HalfConfig, "test_config", "factory(**config) has other weights than the student"),
    (PathConfig, "test_config", "config is not JSON"),
    (ForgetsScale, "test_saves_and_loads", "'logit_scale' after saving and loading"),
    (Pickles, "test_saves_no_pickle", "expected safetensors and JSON, got pytorch_model.bin"),
    (Right, "test_publishes", "the lines do not load the repository"),
    (OtherTokens, "test_evaluates_as_it_trains", "'text' by encode_*: expected the same"),
    (AltersByPlace, "test_alters_each_row_by_its_own_seed", "altered alone"),
]


def load(folder: Path) -> ToyEncoder:
    return load_toy(folder)


def publish(folder: Path, to: Path, name: str, *, merged: bool, skip: Mapping[str, str]) -> Published:  # noqa: ARG001
    shutil.copytree(folder, to)
    names = tuple(path.name for path in folder.iterdir())
    lines, needs = {"toys": f"model = load({name!r})\n"}, ("kdkit",) * merged
    return Published("A toy", "toys", (), "small", names, lines, {"toys": ""}, needs=needs)


def publish_nameless(folder: Path, to: Path, name: str, *, merged: bool, skip: Mapping[str, str]) -> Published:
    return replace(publish(folder, to, name, merged=merged, skip=skip), lines={"toys": "model = load('x')\n"})


def student_checks(kind: type[Any], publisher: str = "publish_nameless") -> Any:
    spec = {"loader": HERE + "load", "options": CONFIG, "publisher": HERE + publisher}
    return found_by(StudentContract, HERE + kind.__name__, spec=spec)


def test_a_student_that_is_right_passes() -> None:
    found = student_checks(Right, "publish")
    assert failed(found) == {}
    assert skipped(found) == set()


@pytest.mark.parametrize(("student", "check", "message"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found(student: type[Any], check: str, message: str) -> None:
    found = failed(student_checks(student))
    assert message in found.get(check, f"passed; failed: {found}")


def test_every_check_finds_a_mistake() -> None:
    assert {name for name, _ in checks(StudentContract)} == {check for _, check, _ in MISTAKES}
