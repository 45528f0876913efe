"""The contracts of teachers and loaders find what is wrong on purpose here."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from PIL.Image import Image
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample, SignalSpec
from kdkit.testing import LoaderContract, TeacherContract, checks, skip
from tests.testing.harness import failed, found_by, skipped
from tests.toys import ToyEncoder, load_toy

HERE = f"{__name__}:"


def right(folder: Path) -> ToyEncoder:
    """The toy, from a folder that it has been saved to."""
    if not (folder / "toy.json").is_file():
        raise KdkitError("X-001", "no toy in this folder", where=str(folder), code=ExitCode.MISSING)
    with torch.random.fork_rng(devices=[]):
        return load_toy(folder)


class Source:
    """A signal source over the toy, right; the mistakes are its subclasses."""

    def __init__(self, folder: Path) -> None:
        self.toy = right(folder).requires_grad_(False)

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return (SignalSpec("image", (16,)),)

    def identity(self) -> Mapping[str, str]:
        return self.toy.identity()

    def prepare(self, image: Image, sample: Sample) -> Any:  # noqa: ARG002
        return self.toy.preprocess(image)

    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        return {"image": self.toy.encode_image(torch.stack(list(items)))}


class NoIdentity(Source):
    def identity(self) -> Mapping[str, str]:
        return {}


class OtherWidth(Source):
    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return (SignalSpec("image", (32,)),)


class WholeNumbers(Source):
    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return (SignalSpec("image", (16,), "int64"),)


class TooLarge(Source):
    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        return {"image": super().compute(items)["image"] * 1e6}


class Undefined(Source):
    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        return {"image": super().compute(items)["image"].log()}


class Noisy(Source):
    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        rows = super().compute(items)["image"]
        return {"image": rows + 0.1 * torch.randn_like(rows)}


class Blind(Source):
    def prepare(self, image: Image, sample: Sample) -> Any:
        return torch.ones_like(super().prepare(image, sample))


class Centered(Source):
    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        rows = super().compute(items)["image"]
        return {"image": rows - 0.5 * rows.mean(0)}


class OneBuffer(Source):
    """Every call of prepare writes into the same memory, and reads it a little later."""

    def prepare(self, image: Image, sample: Sample) -> Any:
        self.buffer = super().prepare(image, sample)
        sleep(0.005)
        return self.buffer.clone()


class Training(Source):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.toy.train()


class WithGraph(Source):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.toy.requires_grad_(True)


class Rounded(Source):
    """Large numbers that cancel: float32 can, bf16 cannot."""

    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        rows = super().compute(items)["image"]
        mixed = (rows + 1000) @ torch.eye(16)
        return {"image": mixed - 1000}


class RandomWeights(Source):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with torch.random.fork_rng(devices=[]):
            torch.seed()
            nn.init.normal_(self.toy.image_tower[0].weight)  # type: ignore[arg-type]


class MovesSeed(Source):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        torch.rand(1)


class Online(Source):
    def __init__(self, folder: Path) -> None:
        socket.create_connection(("192.0.2.1", 443), timeout=0.1)
        super().__init__(folder)


class KeepsCache(Source):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "cache").write_text("prepared")


class Silent(Source):
    """No teacher at all."""

    compute = None  # type: ignore[assignment]


def tolerant(folder: Path) -> ToyEncoder:
    return right(folder) if (folder / "toy.json").is_file() else ToyEncoder()


def raw_error(folder: Path) -> ToyEncoder:
    return load_toy(folder)


class Example(LoaderContract):
    def folder(self) -> Path:
        folder = self.scratch() / "toy"
        if not folder.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                ToyEncoder().save(folder)
        return folder


MISTAKES: list[tuple[Callable[..., Any], str, str]] = [
    (Silent, "test_loads", "Silent is no DualEncoder, TextEncoder or SignalSource"),
    (NoIdentity, "test_loads", "expected identity() to name preprocessing and tokenizer, got nothing"),
    (Online, "test_loads", "192.0.2.1"),
    (OtherWidth, "test_shapes_and_dtypes", "'image': expected (4, 32), got (4, 16)"),
    (WholeNumbers, "test_shapes_and_dtypes", "'image': declared int64, computed torch.float32"),
    (TooLarge, "test_shapes_and_dtypes", "does not fit float16; declare float32"),
    (Undefined, "test_shapes_and_dtypes", "expected finite numbers"),
    (Noisy, "test_deterministic", "'image' computed again: expected the same within 0"),
    (Blind, "test_depends_on_the_sample", "'image' is the same for every example"),
    (Centered, "test_rows_are_independent", "'image' alone and in a batch"),
    (OneBuffer, "test_prepare_in_threads", "'image' prepared in threads"),
    (Training, "test_eval_mode", "in training mode: ToyEncoder"),
    (WithGraph, "test_eval_mode", "parameters that want gradients"),
    (WithGraph, "test_no_gradient", "'image' wants a gradient"),
    (Rounded, "test_bf16", "'image' in bf16: expected the same within 0.1"),
    (RandomWeights, "test_loads_again", "'image' after loading again"),
    (MovesSeed, "test_loads_again", "loading moves torch's seed"),
    (KeepsCache, "test_folder_is_left_alone", "changed in the folder: cache"),
    (tolerant, "test_empty_folder", "expected KdkitError with where=, got none"),
    (raw_error, "test_empty_folder", "expected KdkitError with where=, got FileNotFoundError"),
]


@pytest.mark.parametrize("loader", [right, Source])
def test_a_loader_that_is_right_passes(loader: Callable[..., Any]) -> None:
    found = found_by(Example, HERE + loader.__name__, spec={"marks": ("toy.json",)})
    assert failed(found) == {}
    assert skipped(found) == set()


@pytest.mark.parametrize(("loader", "check", "message"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found(loader: Callable[..., Any], check: str, message: str) -> None:
    found = failed(found_by(Example, HERE + loader.__name__))
    assert message in found.get(check, f"passed; failed: {found}")


def test_marks_are_files_of_the_example() -> None:
    found = failed(found_by(Example, HERE + "right", spec={"marks": ("config.json",)}))
    assert set(found) == {"test_marks"}
    assert "'config.json'" in found["test_marks"]


def test_model_types_have_that_of_the_example() -> None:
    found = failed(found_by(Example, HERE + "right", spec={"marks": (), "model_types": ("clip",)}))
    assert set(found) == {"test_marks"}
    assert all(word in found["test_marks"] for word in ("model_type", "None"))


def test_every_check_finds_a_mistake() -> None:
    assert {name for name, _ in checks(LoaderContract)} == {check for _, check, _ in MISTAKES} | {"test_marks"}


def test_when_it_does_not_load_the_other_checks_say_so() -> None:
    found = found_by(Example, HERE + "Online")
    assert set(failed(found)) == {"test_loads", "test_empty_folder"}
    (reason,) = {c.message for c in found if c.status == "skipped"}
    assert "model() failed" in reason


# ------------------------------------------------------------------------------- the facts of a teacher

DEMO = {
    "source": "package:kdkit.plugins.demo/weights/eye",
    "loader": "open_clip",
    "license": "apache-2.0",
    "distillation": "allowed",
}
FACTS: list[tuple[dict[str, Any], str, str]] = [
    ({"loader": ""}, "test_source_and_loader", "'unavailable' to say why there is none"),
    ({"loader": "open_klip"}, "test_source_and_loader", "unknown loader 'open_klip'"),
    ({"source": "somewhere"}, "test_source_and_loader", "'somewhere'"),
    ({"license": "cc-by-nc-4.0"}, "test_license", "means distillation forbidden or non-commercial, not 'allowed'"),
    ({"license": "cc-by-nc-4.0", "distillation": "forbidden"}, "test_license", "expected notes to say why"),
    ({"distillation": "sure"}, "test_license", "got 'sure'"),
    ({"context_length": 0}, "test_sizes", "expected context_length to be a whole number above 0"),
]


class OnTheHub(TeacherContract):
    """Its facts are checked without loading it."""

    def folder(self) -> Path:
        raise skip("not here")


@pytest.mark.parametrize(("facts", "check", "message"), FACTS, ids=lambda value: str(value)[:30])
def test_wrong_facts_are_found(facts: dict[str, Any], check: str, message: str) -> None:
    found = failed(found_by(OnTheHub, spec={**DEMO, **facts}))
    assert message in found.get(check, f"passed; failed: {found}")


def test_facts_that_are_not_the_models_are_found() -> None:
    wanted = {"image_dim": "the model gives", "image_size": "preprocess gives (3, 48, 48)"}
    for fact, message in wanted.items():
        found = failed(found_by(TeacherContract, spec={**DEMO, fact: 9999}))
        assert f"{fact} 9999, {message}" in found["test_facts_fit_model"]


def test_of_a_teacher_on_the_hub_the_facts_are_checked() -> None:
    found = found_by(TeacherContract, spec={**DEMO, "source": "hf:someone/model"})
    assert failed(found) == {}
    assert {c.name for c in found if c.status == "passed"} == {"test_source_and_loader", "test_license", "test_sizes"}
    (reason,) = {c.message for c in found if c.status == "skipped"}
    assert "hf:someone/model" in reason
    assert "folder()" in reason


def test_a_copy_of_what_is_on_the_hub_can_be_given() -> None:
    class Copy(TeacherContract):
        def folder(self) -> Path:
            return Path(__file__).parents[3] / "kdkit/plugins/demo/weights/eye"

    found = found_by(Copy, spec={**DEMO, "source": "hf:someone/model"})
    assert failed(found) == {}
    assert skipped(found) == set()
