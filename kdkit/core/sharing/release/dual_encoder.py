"""All that publishing knows about dual encoders: their files for stock libraries, and the lines that load them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import read_header
from kdkit.core.contracts import DualEncoder, Reporter
from kdkit.core.data.prompts import DEFAULT_TEMPLATES
from kdkit.core.project.versions import Version, load_student
from kdkit.core.sharing.release.card_tables import cell
from kdkit.core.sharing.release.compare import TOLERANCE, Compared, compare_with_stock
from kdkit.core.sharing.release.form import StudentForm
from kdkit.core.sharing.release.layout import CONFIG, MODEL_CONFIG, REGISTRY, WEIGHTS, write_json
from kdkit.core.sharing.release.redact import strip_names
from kdkit.core.sharing.release.transformers_form import why_not, write_transformers_form

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import Registry

_TOKENIZER_CONFIG = "tokenizer_config.json"
_TEXT_TOWER = "text/config.json"
"""Where a version keeps the config of a Hugging Face text tower."""

_OPEN_CLIP = """\
import open_clip
import torch
from PIL import Image

model, _, preprocess = open_clip.create_model_and_transforms({name})
tokenizer = open_clip.get_tokenizer({name})
model.eval()

labels = ["a normal finding", "an abnormal finding"]  # your classes, as sentences
with torch.no_grad():
    image = model.encode_image(preprocess(Image.open("image.png").convert("RGB"))[None], normalize=True)
    text = model.encode_text(tokenizer(labels), normalize=True)
probabilities = (model.logit_scale.exp() * image @ text.T).softmax(dim=-1)
"""
_TRANSFORMERS = """\
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

model = CLIPModel.from_pretrained({name}).eval()
processor = AutoImageProcessor.from_pretrained({name}, backend="pil")  # resizes as in training
tokenizer = AutoTokenizer.from_pretrained({name})

labels = ["a normal finding", "an abnormal finding"]  # your classes, as sentences
tokens = tokenizer(labels, padding="max_length", truncation=True, max_length={length}, return_tensors="pt")
pixels = processor(images=Image.open("image.png").convert("RGB"), return_tensors="pt")
probabilities = model(**tokens, **pixels).logits_per_image.softmax(dim=-1)
"""


@dataclass(frozen=True)
class StudentFiles:
    """A student laid out for a repository.

    Attributes:
        names: the student's own files.
        text_tower: the name that the config of its Hugging Face text tower came under; None without one.
        missing_form: why there is no transformers form; empty where there is one.
    """

    names: tuple[str, ...]
    text_tower: str | None
    missing_form: str


def publish(project: Project, version: Version, to: Path, repo: str, reporter: Reporter) -> StudentForm:
    """Write the student of a version into ``to`` as ``repo`` will hold it, and run the lines of its card on that.

    Raises:
        KdkitError: not a student for open_clip; as :func:`compare_with_stock`.
    """
    student = load_dual_encoder(version, project)
    files = write_for_hub(version.student_folder, to, repo)
    try:
        compared = _compare(to, repo, student, files, reporter)
    except KdkitError as error:
        if files.missing_form:
            raise
        # Perhaps only the transformers form is to blame: open_clip's tokenizer reads its config.json, too.
        reporter.warn(f"{error.what} ({error.why}); trying without a transformers form")
        shutil.rmtree(to)
        files = write_for_hub(version.student_folder, to, repo, without=f"in it the features differ ({error.why})")
        compared = _compare(to, repo, student, files, reporter)
    checks = checks_of(compared)
    if files.missing_form:
        checks["transformers"] = {"missing": files.missing_form}
    return StudentForm(
        kind="A vision-language dual encoder",
        task="zero-shot classification",
        library="open_clip",
        pipeline="zero-shot-image-classification",
        tags=("clip", "zero-shot"),
        summary=_summary(to),
        names=files.names,
        text_tower=files.text_tower,
        lines=card_lines(f"hf-hub:{repo}", to, files),
        checks=checks,
        environment=compared.environment,
        notes=(_sentences(project.registry),),
    )


def _sentences(registry: Registry) -> str:
    """What a class was called when figures were measured: without it nobody can measure them again."""
    own = [name for name, templates in registry.prompts.items() if name != "default" and templates]
    others = f"; of its own for {', '.join(map(cell, own))} ([{REGISTRY}]({REGISTRY}))" if own else ""
    usual = ", ".join(f'"{cell(template)}"' for template in registry.prompts.get("default") or DEFAULT_TEMPLATES)
    return f"Its figures are for classes put as sentences, each class the mean over these templates: {usual}{others}."


def _compare(to: Path, repo: str, student: DualEncoder, files: StudentFiles, reporter: Reporter) -> Compared:
    lines = card_lines(f"hf-hub:{repo}", to, files)
    reporter.say(
        f"checking that stock {' and '.join(lines)} {'gives' if len(lines) == 1 else 'give'} the same features"
    )
    return compare_with_stock(lines, student, where=repo, repo=repo, folder=to)


def load_dual_encoder(version: Version, project: Project) -> DualEncoder:
    """The student of a version, in eval mode on the CPU; raises KdkitError for one of another kind."""
    student = load_student(version, project.catalogue)
    if not isinstance(student, DualEncoder):
        raise KdkitError(
            "KD-REL-006",
            f"the student of {version.name} is no dual encoder",
            where=str(version.student_folder),
            why="others are published by the publisher of their family, and this one has none",
        )
    return student


def write_for_hub(student_folder: Path, to: Path, repo: str, *, without: str = "") -> StudentFiles:
    """Copy a saved student into the empty folder ``to`` so that stock libraries need ``repo`` alone.

    open_clip asks the Hub for the text tower's config and for the tokenizer by names in its config: they become the
    repository's own, and the text tower's config its ``config.json``. ``without``: why no transformers form is wanted.

    Raises:
        KdkitError: the folder holds no student for open_clip.
    """
    tower = _copy(student_folder, to)
    config = _read(to / CONFIG)
    text_cfg = config["model_cfg"]["text_cfg"]
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if text_cfg.get(key):
            text_cfg[key] = repo
    write_json(to / CONFIG, config)
    if tower:
        write_json(to / MODEL_CONFIG, strip_names(_read(to / _TEXT_TOWER)))
        shutil.rmtree(to / "text")
    names = tuple(sorted(path.name for path in to.iterdir()))
    if _TOKENIZER_CONFIG in names and strip_names(tokenizer := _read(to / _TOKENIZER_CONFIG)) != tokenizer:
        write_json(to / _TOKENIZER_CONFIG, strip_names(tokenizer))
    missing_form = without or why_not(config)
    if not missing_form:
        write_transformers_form(to)
    elif text_cfg.get("hf_tokenizer_name") and not tower:
        # transformers asks for it before it reads the tokenizer; offline it must be there, whatever it says.
        write_json(to / MODEL_CONFIG, {"library_name": "open_clip"})
    return StudentFiles(names, tower, missing_form)


def write_for_folder(student_folder: Path, to: Path) -> str | None:
    """Copy a saved student into the empty folder ``to``, for ``local-dir:``.

    Stock open_clip finds a Hugging Face text tower's config on the Hub or by a path from the current folder, and by
    nothing else: ``hf_model_name`` becomes the path of ``to/text``.

    Returns:
        The old name of the text tower; None without such a tower: then the folder may be moved.
    """
    tower = _copy(student_folder, to)
    if tower:
        point_text_tower(to, to)
    return tower


def point_text_tower(folder: Path, at: Path) -> None:
    """Make ``hf_model_name`` of the model in ``folder`` the path ``at/text``."""
    config = _read(folder / CONFIG)
    config["model_cfg"]["text_cfg"]["hf_model_name"] = str(at / "text")
    write_json(folder / CONFIG, config)


def card_lines(name: str, folder: Path, files: StudentFiles | None = None) -> dict[str, str]:
    """Library -> the lines that load and use the model ``name`` in ``folder``; ``files`` of a release."""
    lines = {"open_clip": _OPEN_CLIP.format(name=json.dumps(name, ensure_ascii=False))}
    if files is not None and not files.missing_form:
        length = _read(folder / CONFIG)["model_cfg"]["text_cfg"].get("context_length", 77)
        lines["transformers"] = _TRANSFORMERS.format(name=json.dumps(name.removeprefix("hf-hub:")), length=length)
    return lines


def _summary(folder: Path) -> str:
    """One line about the size of the model in ``folder``."""
    model = _read(folder / CONFIG)["model_cfg"]
    side, length = model["vision_cfg"].get("image_size", 224), model["text_cfg"].get("context_length", 77)
    pixels = "x".join(map(str, side)) if isinstance(side, list) else f"{side}x{side}"
    count = read_header(folder / WEIGHTS).parameters
    return (
        f"Images of {pixels} pixels and texts of up to {length} tokens become vectors of {model['embed_dim']} numbers; "
        f"{count:,} parameters."
    )


def checks_of(compared: Compared) -> dict[str, dict[str, Any]]:
    """For the record."""
    return {
        library: {"tolerance": TOLERANCE, "image_difference": image, "text_difference": text}
        for library, (image, text) in compared.differences.items()
    }


def _copy(student_folder: Path, to: Path) -> str | None:
    """Copy what ``Student.save`` wrote; returns the name of the text tower."""
    if not (student_folder / CONFIG).is_file():
        raise KdkitError("KD-REL-007", "not an open_clip student", where=str(student_folder), why=f"it has no {CONFIG}")
    to.mkdir(parents=True, exist_ok=True)
    for path in sorted(student_folder.iterdir()):
        if path.is_file():
            shutil.copyfile(path, to / path.name)
    name: str | None = _read(student_folder / CONFIG)["model_cfg"]["text_cfg"].get("hf_model_name")
    if name:
        (to / "text").mkdir(exist_ok=True)
        beside = to / MODEL_CONFIG  # of a version that was pulled
        source = beside if beside.is_file() else student_folder / _TEXT_TOWER
        shutil.copyfile(source, to / _TEXT_TOWER)
        beside.unlink(missing_ok=True)
    return name or None


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data
