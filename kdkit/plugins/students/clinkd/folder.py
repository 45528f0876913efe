"""A student as files: what stock transformers (or PEFT) loads, and ``clinkd.json``, which says the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.students.clinkd.families.processor import FamilyProcessor
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.images import CONFIG as IMAGE_CONFIG
from kdkit.plugins.students.clinkd.images import ImageSettings
from kdkit.plugins.students.clinkd.origin import ORIGIN, Base
from kdkit.plugins.students.clinkd.settings import Settings
from kdkit.plugins.students.clinkd.tokens import FILES, Tokens

if TYPE_CHECKING:
    from kdkit.plugins.students.clinkd.vision_turns import VisionTurns

SAVED = "clinkd.json"
TURNS = "vision_rope.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Saved:
    """``clinkd.json``: the student's config, and the base model if the weights beside it are adapters."""

    config: Mapping[str, Any]
    base: Base | None = None

    @property
    def settings(self) -> Settings:
        """Everything but where the weights are from."""
        return Settings.of({name: value for name, value in self.config.items() if name not in ORIGIN})

    @classmethod
    def read(cls, folder: Path) -> Saved | None:
        """None where there is no such file: a model folder that kdkit did not write."""
        path = folder / SAVED
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise KdkitError(
                    "KD-STUD-016",
                    f"format {content['format']!r} is not the one this kdkit reads ({FORMAT})",
                    where=str(path),
                    fix="use the kdkit that wrote it",
                )
            base = content.get("base")
            return cls(dict(content["config"]), Base.from_config(base) if base else None)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise KdkitError(
                "KD-STUD-017",
                "the student's config cannot be read",
                where=str(path),
                why=str(error),
                fix="restore the file from a copy, or pull the student again",
            ) from error


def read_files(folder: Path, family: FamilySpec, settings: Settings) -> tuple[Tokens, ImageSettings | FamilyProcessor]:
    """Tokenizer and image settings of a model folder, or its processor."""
    if family.reader == "chatml":
        return read_tokens(folder), read_images(folder, settings)
    processor = FamilyProcessor(family, folder)
    return processor.tokens, processor


def read_tokens(folder: Path) -> Tokens:
    """The tokenizer of a model folder."""
    return Tokens({name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}, str(folder))


def read_images(folder: Path, settings: Settings) -> ImageSettings:
    """The image settings of a model folder, with those of the student's config."""
    path = folder / IMAGE_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise KdkitError(
            "KD-STUD-018",
            "the image settings cannot be read",
            where=str(path),
            why=str(error),
            fix="fetch preprocessor_config.json again from the model's repository",
        ) from error
    return ImageSettings.from_config(config, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)


def read_turns(turns: VisionTurns, folder: Path) -> None:
    """Load the saved state of the vision tower's frequencies."""
    tensors = read_tensors(folder / TURNS)
    try:
        turns.load_state_dict(tensors)
    except RuntimeError as error:
        raise KdkitError(
            "KD-STUD-019",
            "the learnt frequencies cannot be read",
            where=str(folder / TURNS),
            why=str(error).splitlines()[0],
            fix="restore the file from a copy, or pull the student again",
        ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
