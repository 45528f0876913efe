"""Every built-in passes the conformance kit, as a third party's plugin must.

A built-in that the kit cannot check by itself (it needs a folder, a file, options) has an example below: a new one
without an example fails here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import kdkit.testing as kit
from kdkit.core.contracts import Sample
from kdkit.core.data.batches import in_samples
from kdkit.core.plugin_system.catalogue import FAMILIES
from kdkit.core.plugin_system.discovery import discover
from kdkit.core.plugin_system.installed import BUILT_IN, installed
from kdkit.testing.verify import CONTRACTS, Check, run_checks
from tests.plugins.answer_examples import EXAMPLES as ANSWERS
from tests.plugins.archive_examples import EXAMPLES as ARCHIVES
from tests.plugins.loader_examples import EXAMPLES as LOADERS
from tests.plugins.loaders.vision_models import DATA, RESNET, timm_folder, transformers_folder
from tests.plugins.students.clinkd.tiny import make as make_clinkd
from tests.tiny_models import WORDS, make_bert_folder, make_transformers_clip_folder, open_clip_config

CATALOGUE = discover(plugin for plugin in installed() if plugin.built_in)
ENTRIES = [(family, entry.spec.name) for family in FAMILIES for entry in CATALOGUE.entries(family)]
MAY_BE_SKIPPED = (
    "its files are fetched from ",
    "no loader can load it: ",
    "it reads no signal of a teacher",
    "it belongs to a vision tower",
    "its features were imported: ",
    "a source of folders needs a damaged example",
)
"""Reasons that need no example: of a published teacher the facts are checked, its files are not here."""


class Rows(kit.SourceContract):
    """A manifest of two pictures."""

    rows: ClassVar[list[dict[str, str]]] = [
        {"id": str(n), "image": f"{n}.png", "text": "a scan", "domain": "ct", "label": "cyst", "split": "train"}
        for n in range(2)
    ]

    def images(self) -> Path:
        """The folder with the pictures."""
        for row, picture in zip(self.rows, kit.pictures(2), strict=True):
            picture.save(self.scratch() / row["image"])
        return self.scratch()


class Csv(Rows):
    name = "csv"

    def location(self) -> Path:
        path = self.images() / "samples.csv"
        with open(path, "w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        return path


class Jsonl(Rows):
    name = "jsonl"

    def location(self) -> Path:
        path = self.images() / "samples.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        return path


class Folder(kit.SourceContract):
    name = "folder"

    def location(self) -> Path:
        folder = self.scratch() / "images"
        for number, picture in enumerate(kit.pictures(2)):
            path = folder / "train" / "ct" / "cyst" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        return folder

    def damaged(self) -> Path:
        path = self.scratch() / "damaged" / "cyst" / "0.png"
        path.parent.mkdir(parents=True)
        kit.pictures(1)[0].save(path)
        return path.parents[1]


class Procedural(kit.SourceContract):
    name = "procedural"
    options: ClassVar[Mapping[str, Any]] = {"train": 2, "calibration": 1, "test": 1, "domains": ["ct"]}

    def location(self) -> Path:
        return self.scratch() / "drawn"

    def test_missing_location(self) -> None:
        """Where there is nothing it draws."""
        nowhere = self.scratch() / "nowhere"
        assert len(list(in_samples(self.catalogue.make("source", self.name, location=nowhere, **self.options)))) == 4

    def damaged(self) -> Path:
        other = self.scratch() / "others"
        other.mkdir()
        return other


class ProceduralQuestions(Procedural):
    name = "procedural-questions"

    def test_missing_location(self) -> None:
        """Where there is nothing it draws, and asks four questions a picture."""
        nowhere = self.scratch() / "nowhere"
        assert len(list(self.catalogue.make("source", self.name, location=nowhere, **self.options))) == 16


class Transformers(kit.LoaderContract):
    name = "transformers"

    @kit.once
    def folder(self) -> Path:
        return make_transformers_clip_folder(self.scratch() / "clip")


class TransformersVision(kit.LoaderContract):
    name = "transformers-vision"

    @kit.once
    def folder(self) -> Path:
        return transformers_folder(self.scratch() / "dinov2", "dinov2")


class TransformersText(kit.LoaderContract):
    name = "transformers-text"

    @kit.once
    def folder(self) -> Path:
        return make_bert_folder(self.scratch() / "bert")


class Timm(kit.LoaderContract):
    name = "timm"

    @kit.once
    def folder(self) -> Path:
        return timm_folder(self.scratch() / "resnet", "resnet18", RESNET, DATA)


class OpenClipStudent(kit.StudentContract):
    name = "open_clip"
    options: ClassVar[Mapping[str, Any]] = {"model_cfg": open_clip_config(), "tokenizer": {"words": list(WORDS)}}


class MmkdStudent(kit.StudentContract):
    name = "mmkd"

    def make(self, **config: Any) -> Any:
        return super().make(**(config or {"init": self._towers()}))

    @kit.once
    def _towers(self) -> dict[str, str]:
        image = make_transformers_clip_folder(self.scratch() / "image")
        return {"image": str(image), "text": str(make_bert_folder(self.scratch() / "text", words=WORDS))}


class Clinkd(kit.StudentContract):
    """Tiny, on answers that are short enough for it."""

    name = "clinkd"
    options: ClassVar[Mapping[str, Any]] = {
        "sizes": {"hidden": 32, "heads": 2, "kv_heads": 1},
        "max_tokens": 128,
        "max_answer": 20,
        "max_pixels": 2 * 56 * 56,
    }

    def samples(self) -> list[Sample]:
        return kit.samples(texts=("a nodule", "", "Zebra! 冠状", "yes"))


class DemoAnswerer(Clinkd):
    """Its defaults are for the demo's questions, which are shorter."""

    name = "demo-answerer"
    options: ClassVar[Mapping[str, Any]] = {"max_tokens": 128, "max_answer": 20}


class Qwen2Vl(kit.LoaderContract):
    """A tiny student of the family ``clinkd`` as a teacher."""

    name = "image-text-to-text"
    options: ClassVar[Mapping[str, Any]] = {"k": 5, "max_tokens": 128, "max_answer": 20, "max_pixels": 2 * 56 * 56}

    @kit.once
    def folder(self) -> Path:
        make_clinkd(seed=0, max_tokens=128).save(self.scratch() / "vlm")
        return self.scratch() / "vlm"

    def samples(self) -> list[Sample]:
        return Clinkd.samples(self)  # type: ignore[arg-type]  # the same four


class DemoReader(kit.TeacherContract):
    """On answers that are as short as those of the demo."""

    name = "demo-reader"

    def samples(self) -> list[Sample]:
        return kit.samples(texts=("a nodule", "", "polyp", "yes"))


class DemoScanner(DemoReader):
    name = "demo-scanner"


class OpenAI(kit.LoaderContract):
    """Loading sends no request; answers of servers are tested in ``loaders/test_endpoint.py``."""

    name = "openai"

    @kit.once
    def folder(self) -> Path:
        place = self.scratch() / "endpoint"
        place.mkdir()
        content = {"endpoint": "http://127.0.0.1:9/v1", "model": "nobody"}
        (place / "endpoint.json").write_text(json.dumps(content), encoding="utf-8")
        return place


class Imported(kit.LoaderContract):
    """It computes nothing; ``tests/core/features/imports`` tests what teaches."""

    name = "imported"

    @kit.once
    def folder(self) -> Path:
        place = self.scratch() / "imported"
        place.mkdir()
        signals = {"image": {"shape": [4], "dtype": "float16"}}
        record = {"sha256": "0" * 64, "signals": signals, "model": "", "revision": "", "preprocessing": ""}
        (place / "imported.json").write_text(json.dumps(record), encoding="utf-8")
        return place


class LinearProbe(kit.TaskContract):
    """With few fits."""

    name = "linear-probe"
    options: ClassVar[Mapping[str, Any]] = {"strengths": (0.1, 10.0), "draws": 2, "resamples": 50}


class NearestNeighbors(kit.TaskContract):
    """With few fits."""

    name = "knn"
    options: ClassVar[Mapping[str, Any]] = {"k": (1, 5), "draws": 2, "resamples": 50}


class Patients(kit.TaskContract):
    """With few fits."""

    name = "patients"
    options: ClassVar[Mapping[str, Any]] = {"strengths": (1.0,), "resamples": 20, "attention": False}


class Survival(kit.TaskContract):
    """With few fits."""

    name = "survival"
    options: ClassVar[Mapping[str, Any]] = {"strengths": (100.0,), "resamples": 20}


class ClosedQuestions(kit.TaskContract):
    """With few fits."""

    name = "vqa"
    options: ClassVar[Mapping[str, Any]] = {"strengths": (1.0,), "resamples": 20}


KINDS: tuple[type[kit.Contract], ...] = (
    LinearProbe,
    NearestNeighbors,
    Patients,
    Survival,
    ClosedQuestions,
    Csv,
    Jsonl,
    Folder,
    Procedural,
    ProceduralQuestions,
    Transformers,
    TransformersVision,
    TransformersText,
    Timm,
    Qwen2Vl,
    OpenAI,
    Imported,
    OpenClipStudent,
    MmkdStudent,
    Clinkd,
    DemoAnswerer,
    DemoReader,
    DemoScanner,
    *ANSWERS,
    *ARCHIVES,
    *LOADERS,
)
EXAMPLES: dict[tuple[str, str], type[kit.Contract]] = {(kind.family, kind.name): kind for kind in KINDS}


def checked(family: str, name: str) -> list[Check]:
    """By the example, or by the plain contract."""
    base: type[Any] = getattr(kit, CONTRACTS[family])  # type: ignore[index]
    contract = EXAMPLES.get((family, name)) or type(base.__name__, (base,), {"name": f"{BUILT_IN}:{name}"})
    return list(run_checks(contract, f"{family} {name}"))


@pytest.mark.parametrize(("family", "name"), ENTRIES, ids=[f"{family}-{name}" for family, name in ENTRIES])
def test_a_built_in_passes_the_kit(family: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdkit.plugins.loaders.flair._SIZE", 128)  # 512 takes 20 s; test_flair.py compares it
    checks = checked(family, name)
    assert [(check.name, check.message) for check in checks if check.status == "failed"] == []
    unchecked = [(c.name, c.message) for c in checks if c.status == "skipped"]
    lacking = [(check, why) for check, why in unchecked if not why.startswith(MAY_BE_SKIPPED)]
    assert lacking == [], "the kit cannot check it alone: add an example to EXAMPLES"
    assert any(check.status == "passed" for check in checks)


def test_the_distribution_passes_the_kit() -> None:
    class Kdkit(kit.PluginContract):
        name = BUILT_IN
        import_seconds = 0.3  # of a dozen plugin modules, one of them with a catalogue of forty teachers

    assert [(c.name, c.message) for c in run_checks(Kdkit, BUILT_IN) if c.status != "passed"] == []


def test_every_example_is_of_a_built_in() -> None:
    assert set(EXAMPLES) <= set(ENTRIES)
