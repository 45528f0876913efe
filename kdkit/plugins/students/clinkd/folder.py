"""A student as files: what stock transformers (or PEFT) loads, and ``clinkd.json``, which says the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.loaders.hugging_face import without_bars
from kdkit.plugins.students.clinkd.images import CONFIG as IMAGE_CONFIG
from kdkit.plugins.students.clinkd.images import ImageSettings
from kdkit.plugins.students.clinkd.origin import ORIGIN, Base
from kdkit.plugins.students.clinkd.settings import Settings
from kdkit.plugins.students.clinkd.tokens import FILES, Tokens

if TYPE_CHECKING:
    from kdkit.plugins.students.clinkd.student import ClinkdStudent
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
                )
            base = content.get("base")
            return cls(dict(content["config"]), Base.from_config(base) if base else None)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise KdkitError(
                "KD-STUD-017", "the student's config cannot be read", where=str(path), why=str(error)
            ) from error


def save(student: ClinkdStudent, folder: Path) -> None:
    """Write ``student``."""
    folder.mkdir(parents=True, exist_ok=True)
    preparation, settings = student.preparation, student.settings
    config = {**student.origin.config(), **settings.config()}
    content: dict[str, Any] = {"format": FORMAT, "config": config}
    if settings.lora is None:
        with without_bars():
            student.base.save_pretrained(folder)
        if student.origin.init is not None:
            config["init"] = "."  # its own weights by now
    else:
        base = Base.of(Path(str(student.origin.init)), student.origin.base)
        content["base"] = vars(base)
        del config["init"]
        _save_adapters(student.network, base, folder)
    for name, data in preparation.tokens.files.items():
        (folder / name).write_bytes(data)
    write_json(folder / IMAGE_CONFIG, preparation.images.config())
    if student.vision_turns is not None:
        from safetensors.torch import save_file

        state = {name: x.detach().cpu().contiguous() for name, x in student.vision_turns.state_dict().items()}
        save_file(state, folder / TURNS)
    write_json(folder / SAVED, content)


def _save_adapters(network: Any, base: Base, folder: Path) -> None:
    """As PEFT does, so that PEFT can load them; the base is named by its repository where it has one."""
    chosen = network.peft_config["default"]
    chosen.base_model_name_or_path = base.repo or base.folder
    chosen.revision = base.commit
    network.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


def read_tokens(folder: Path) -> Tokens:
    """The tokenizer of a model folder."""
    return Tokens({name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}, str(folder))


def read_images(folder: Path, settings: Settings) -> ImageSettings:
    """The image settings of a model folder, with those of the student's config."""
    path = folder / IMAGE_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise KdkitError("KD-STUD-018", "the image settings cannot be read", where=str(path), why=str(error)) from error
    return ImageSettings.from_config(config, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)


def read_turns(turns: VisionTurns, folder: Path) -> None:
    """Load what :func:`save` wrote of the vision tower's frequencies."""
    tensors = read_tensors(folder / TURNS)
    try:
        turns.load_state_dict(tensors)
    except RuntimeError as error:
        raise KdkitError(
            "KD-STUD-019",
            "the learnt frequencies cannot be read",
            where=str(folder / TURNS),
            why=str(error).splitlines()[0],
        ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
