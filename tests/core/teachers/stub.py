"""A teacher that loads fast (one safetensors file with a matrix), and a catalogue with its loader."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL.Image import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Companion, LoaderSpec, Sample, SignalSpec, Silent, TeacherSpec
from kdkit.core.plugin_system.catalogue import FAMILIES, Catalogue, Entry
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher
from tests.errors import raises_error

CONFIG = "stub.json"


class Stub(nn.Module):
    """Image -> its mean color, text -> its length, both through ``matrix`` (3, D)."""

    def __init__(self, matrix: Tensor, trouble: str) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)
        self.trouble = trouble
        self.calls = 0

    @property
    def embed_dim(self) -> int:
        return int(self.matrix.shape[1]) + (self.trouble == "wrong width")

    def identity(self) -> Mapping[str, str]:
        return {"preprocessing": "mean color"}

    def preprocess(self, image: Image) -> Tensor:
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(-1, 3).float().mean(0)
        return pixels.view(3, 1, 1)

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        if self.trouble == "crash":
            raise RuntimeError("shapes do not match")
        rows = pixels.flatten(1) @ self.matrix
        return rows + self.calls * (self.trouble == "random")

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        lengths = torch.tensor([[float(len(text))] * 3 for text in texts])
        return lengths @ self.matrix


class Scoring(nn.Module):
    """A signal source, no dual encoder: one number per text, its length."""

    signals = (SignalSpec("score", (), "float32"),)

    def identity(self) -> Mapping[str, str]:
        return {}

    def prepare(self, image: Image, sample: Sample) -> int:
        del image
        return len(sample.text)

    def compute(self, items: Sequence[int]) -> Mapping[str, Tensor]:
        return {"score": torch.tensor([float(length) for length in items])}


def load(folder: Path, *, trouble: str = "", weights: str = "model.safetensors") -> Stub | Scoring:
    """Load the matrix; fails without weights."""
    if trouble == "one number":
        return Scoring()
    if not (folder / weights).is_file():
        found = ", ".join(path.name for path in folder.glob("*.safetensors"))
        raise KdkitError("X-001", "no weights in this folder", where=str(folder), why=f"it has {found}")
    return Stub(load_file(folder / weights)["matrix"], trouble)


def write(folder: Path, *, width: int = 4, pickled: bool = False, nan: bool = False) -> Path:
    """Write a folder that the loader ``stub`` recognizes."""
    folder.mkdir(parents=True)
    matrix = torch.arange(3.0 * width).view(3, width) / 10
    matrix[0, 0] = torch.nan if nan else 0
    (folder / CONFIG).write_text(json.dumps({"width": width}), encoding="utf-8")
    if pickled:
        torch.save({"state_dict": {"module.matrix": matrix}, "epoch": 3}, folder / "pytorch_model.bin")
    else:
        save_file({"matrix": matrix}, folder / "model.safetensors")
    return folder


def find_companions(folder: Path) -> Iterator[Companion]:
    """The stub needs a text config, and a vocabulary in either folder."""
    if not (folder / "text" / "config.json").is_file():
        yield Companion(source="hf:org/text", subfolder="text", purpose="the config as text/config.json")
    if not (folder / "text" / "vocab.txt").is_file():
        yield Companion(source="hf:org/vocabulary", names=("vocab.txt",), purpose="the vocabulary")


def find_base(folder: Path) -> Iterator[Companion]:
    """The stub is built on another model."""
    if not (folder / "base").is_dir():
        yield Companion(source="hf:org/base", subfolder="base", weights=True, purpose="the base as base/")


def catalogue(*teachers: TeacherSpec, companions: str = "") -> Catalogue:
    """The loaders ``stub`` (``companions``: its function that names other repositories) and ``other``, ``teachers``."""
    at, needed = f"{__name__}:load", companions and f"{__name__}:{companions}"
    loaders = (
        LoaderSpec(name="other", summary="", factory=at, marks=("other.json",)),
        LoaderSpec(name="stub", summary="", factory=at, marks=(CONFIG,), companions=needed),
    )
    contents = {family: tuple[Entry, ...]() for family in FAMILIES}
    contents["loader"] = tuple(Entry(spec, "kdkit-stub", "1.0") for spec in loaders)
    contents["teacher"] = tuple(Entry(spec, "kdkit-stub", "1.0") for spec in teachers)
    return Catalogue((), contents)


def make_project(folder: Path, *teachers: TeacherSpec, registry: str = "version: 1\n# mine\nteachers:\n") -> Project:
    """A project whose catalogue is :func:`catalogue`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "registry.yaml").write_text(registry, encoding="utf-8")
    return Project(folder).with_catalogue(catalogue(*teachers))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under ``folder`` with its content, but for the busy file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "busy")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Notes(Silent):
    """Remembers the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def refused(
    project: Project,
    name: str,
    fields: Mapping[str, object],
    id: str,
    *,
    mentions: tuple[str, ...] = (),
    code: ExitCode | None = None,
) -> None:
    """Adding fails with the error ``id``, and every file of the project is as before."""
    before = tree(project.root)
    with raises_error(id, mentions=mentions, code=code):
        add_teacher(project, name, fields)
    assert tree(project.root) == before
    assert not project.artifacts.exists() or list(project.artifacts.iterdir()) == []
