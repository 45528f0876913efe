"""Publish a saved student for stock transformers (and PEFT), with the code that loads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import read_header
from kdkit.core.contracts import PinnedBase, Published
from kdkit.plugins.students import MAX_ASPECT
from kdkit.plugins.students.clinkd.chat_template import NAME as CHAT_TEMPLATE
from kdkit.plugins.students.clinkd.chat_template import chat_template
from kdkit.plugins.students.clinkd.families.known import FAMILIES, find_family
from kdkit.plugins.students.clinkd.families.processor import FamilyProcessor
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.folder import SAVED, TURNS, Saved, read_images, write_json
from kdkit.plugins.students.clinkd.images import ImageSettings
from kdkit.plugins.students.clinkd.origin import Base
from kdkit.plugins.students.clinkd.quantized import whole_layers
from kdkit.plugins.students.clinkd.settings import Choice, Settings
from kdkit.plugins.students.clinkd.tokens import Tokens

_PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
}
"""Of models that kdkit prepares images for itself; others keep the files of their own."""
_LEFT_OUT = ("README.md", "chat_template.json", "kdkit.json")
"""PEFT's card, an old file of chat templates, the record of an earlier release."""
_OF_A_MACHINE = ("_name_or_path", "name_or_path", "auto_map", "chat_template")
"""Config keys with a local path, remote code, or a copy of another file."""
_DEQUANTIZED = (
    "Its adapters were trained over 4-bit weights. These are the weights of their values, not those of the base model."
)
_ADAPTERS, _MODEL = "adapter_config.json", "config.json"

_PROBE = """
import torch


def generate(messages, length):
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    found = model.generate(
        **inputs, max_new_tokens=length, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    return found.sequences[0, inputs["input_ids"].shape[1] :], torch.cat(found.logits)
"""
_RESIZING = 'processor.image_processor = AutoImageProcessor.from_pretrained({name}, backend="pil")'
"""Resizes as in training."""
_ASK = """
model.generation_config = GenerationConfig.from_pretrained({name})
model.eval()
processor = AutoProcessor.from_pretrained({name})
{resizing}
picture = {{"type": "image", "image": Image.open("image.png").convert("RGB")}}
question = {{"type": "text", "text": {question}}}
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": [picture, question]}}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
)
answer = model.generate(**inputs, max_new_tokens={longest})
print(processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


def publish(
    folder: Path,
    to: Path,
    name: str,
    *,
    merged: bool,
    skip: Mapping[str, str],  # noqa: ARG001
    families: Mapping[str, FamilySpec] = FAMILIES,
) -> Published:
    """See ``StudentSpec.publisher``: adapters with their base pinned to a commit, or whole weights.

    Args:
        families: as of ``create_student``: a plugin's publisher passes its own.

    Raises:
        KdkitError: no saved student of this family; adapters with a missing base, or one of an unknown repository.
    """
    saved = Saved.read(folder)
    if saved is None:
        raise KdkitError(
            "KD-STUD-036",
            "this is no saved student",
            where=str(folder),
            why=f"it has no {SAVED}",
            fix="name a folder that a student of the family clinkd was saved in",
        )
    if saved.settings.square:
        raise KdkitError(
            "KD-STUD-572",
            "a student of squared images cannot be published for stock libraries",
            where=str(folder),
            why="their processors keep the shape of images, so they would give other answers",
            fix="share it as a bundle (kdkit bundle), or train a student without square: true",
        )
    to.mkdir(parents=True, exist_ok=True)
    base = None
    if saved.base is None:
        _copy(folder, to)
    elif merged:
        _save_merged(folder, to, families)
    else:
        base = _pinned(saved, folder)
        _copy(folder, to)
        _pin(to, saved, base)
    names = tuple(sorted(path.name for path in to.iterdir()))
    settings = replace(saved.settings, lora=None) if merged else saved.settings
    weights = base.folder if base else to
    model, family = _read(weights / _MODEL), find_family(weights, families)
    _write_for_stock(folder, to, settings, model, family)
    images = read_images(to, settings) if family.reader == "chatml" else None
    attached = not _is_own(settings, model, family)
    library, needs = "transformers" if base is None else "peft", _needs(settings) if attached else ()
    return Published(
        kind="A vision-language model that answers questions about images",
        library=library,
        tags=("vision-language", "visual-question-answering", *(() if base is None else ("lora",))),
        summary=_summary(to, settings, images, base),
        names=names,
        lines={library: _lines(name, settings, base, family, attached=attached)},
        probes={library: _PROBE},
        distributions=tuple(dict.fromkeys(("torch", "transformers", library, *_quantizer(settings), *needs))),
        needs=needs,
        notes=(
            *_notes(settings, images, attached=attached, merged=merged and saved.base is not None),
            *([_DEQUANTIZED] if merged and _quantizer(saved.settings) else []),
        ),
        base=base,
    )


def _pinned(saved: Saved, folder: Path) -> PinnedBase:
    base = saved.base
    assert base is not None
    if base.repo is None:  # base or its folder may have been added since
        base = Base.of(base.find(str(folder)), saved.config.get("base"))
    if base.repo is None or base.commit is None:
        raise KdkitError(
            "KD-STUD-037",
            "the repository of the adapters' base model is unknown, so it cannot be pinned to a commit",
            where=str(folder),
            why=f"it came from the local folder {base.folder}",
            fix="publish whole weights: --merge; or teach it again with 'base: ORG/NAME' in student.config, from what "
            "'hf download ORG/NAME --local-dir DIR' fetched",
        )
    return PinnedBase(base.repo, base.commit, base.find(str(folder)))


def _copy(folder: Path, to: Path) -> None:
    """Copy the files of a saved student without local paths."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in _LEFT_OUT:
            shutil.copyfile(path, to / path.name)
    _clean_configs(to)


def _clean_configs(to: Path) -> None:
    for path in to.glob("*config.json"):
        write_json(path, _clean(_read(path)))


def _clean(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _OF_A_MACHINE}


def _pin(to: Path, saved: Saved, base: PinnedBase) -> None:
    """Name the base only by repository and commit."""
    assert saved.base is not None
    content = _read(to / SAVED)
    pinned = Base(None, saved.base.digest, base.repository, base.commit)
    write_json(to / SAVED, {**content, "base": vars(pinned)})
    adapters = _read(to / _ADAPTERS)
    named = {"base_model_name_or_path": base.repository, "revision": base.commit}
    write_json(to / _ADAPTERS, {**adapters, **named})


def _save_merged(folder: Path, to: Path, families: Mapping[str, FamilySpec]) -> None:
    """Save the student with its adapters merged; 4-bit weights below them become whole ones of the same values."""
    from kdkit.plugins.students.clinkd.create import load_student

    student = load_student(folder, families=families, dequantized=True)
    student.network = student.network.merge_and_unload()
    student.settings = replace(student.settings, lora=None)
    student.save(to)
    _clean_configs(to)


def _write_for_stock(folder: Path, to: Path, settings: Settings, model: Mapping[str, Any], family: FamilySpec) -> None:
    """Write files for stock libraries: chat template, processor class, greedy decoding.

    Adapters also get the model's config, which transformers reads before a tokenizer.
    """
    if family.reader == "chatml":
        tokens = Tokens({"tokenizer.json": (to / "tokenizer.json").read_bytes()}, str(to))
        (to / CHAT_TEMPLATE).write_text(chat_template(settings.system or ""), encoding="utf-8")
        write_json(to / "processor_config.json", {"processor_class": _PROCESSORS[family.name]})
    else:
        processor = FamilyProcessor(family, folder)
        tokens = processor.tokens
        (to / CHAT_TEMPLATE).write_text(processor.template, encoding="utf-8")
    decoding = {"do_sample": False, "eos_token_id": list(tokens.ends), "pad_token_id": tokens.id(tokens.marks.pad)}
    write_json(to / "generation_config.json", decoding)
    if not (to / _MODEL).is_file():
        write_json(to / _MODEL, _clean(model))


def _is_own(settings: Settings, model: Mapping[str, Any], family: FamilySpec) -> bool:
    """Whether stock transformers computes the same RoPE variants."""
    if family.positions == "index":
        return True
    text = model.get("text_config", model)
    section = (text.get("rope_parameters") or text.get("rope_scaling") or {}).get("mrope_section")
    own = Choice(family.rope, {"layout": family.positions, "section": section})
    return settings.vision_rope is None and settings.rope == own


def _quantizer(settings: Settings) -> tuple[str, ...]:
    """The distribution that makes the 4-bit weights below adapters."""
    return ("bitsandbytes",) if settings.lora is not None and settings.lora.quantize is not None else ()


def _needs(settings: Settings) -> tuple[str, ...]:
    """kdkit, and the distributions of variants that name their provider."""
    names = [choice.name for choice in (settings.rope, settings.vision_rope) if choice is not None]
    return ("kdkit", *dict.fromkeys(name.partition(":")[0] for name in names if ":" in name))


def _lines(name: str, settings: Settings, base: PinnedBase | None, family: FamilySpec, *, attached: bool) -> str:
    """See ``Published.lines``."""
    quoted = json.dumps(name, ensure_ascii=False)
    weights = [f'model = AutoModelForImageTextToText.from_pretrained({quoted}, dtype="{settings.dtype}")']
    if base is not None:
        at = f'    "{base.repository}", revision="{base.commit}", dtype="{settings.dtype}"'
        weights = ["model = AutoModelForImageTextToText.from_pretrained(", at, ")"]
        if _quantizer(settings):
            weights = [*_four_bit(settings, family), *weights[:1], f"{at}, quantization_config=four_bit", ")"]
    quantizing = "BitsAndBytesConfig, " if base is not None and _quantizer(settings) else ""
    resizer = "AutoImageProcessor, " if family.reader == "chatml" else ""
    lines = [
        *((f"# pip install {' '.join(_needs(settings))}",) if attached else ()),
        *(("from peft import PeftModel",) if base is not None else ()),
        "from PIL import Image",
        f"from transformers import {resizer}AutoModelForImageTextToText, AutoProcessor, {quantizing}GenerationConfig",
        *(("", "from kdkit.plugins.students.clinkd.attach import attach_saved") if attached else ()),
        "",
        *weights,
        *((f"attach_saved(model, {quoted})  # its RoPE: without it the answers are others",) if attached else ()),
        *((f"model = PeftModel.from_pretrained(model, {quoted})",) if base is not None else ()),
    ]
    question = json.dumps(settings.question, ensure_ascii=False)
    resizing = _RESIZING.format(name=quoted) + "  # resizes as in training\n" if family.reader == "chatml" else ""
    return "\n".join(lines) + _ASK.format(
        name=quoted, question=question, longest=settings.max_answer, resizing=resizing
    )


def _four_bit(settings: Settings, family: FamilySpec) -> list[str]:
    """The lines that quantize the base as in training."""
    assert settings.lora is not None
    lines = [
        "load_in_4bit=True",
        f'bnb_4bit_quant_type="{settings.lora.quantize}"',
        f'bnb_4bit_compute_dtype="{settings.dtype}"',
        "bnb_4bit_use_double_quant=True",
        f"llm_int8_skip_modules={json.dumps(whole_layers(family))}",
    ]
    return ["four_bit = BitsAndBytesConfig(", *(f"    {line}," for line in lines), ")"]


def _notes(settings: Settings, images: ImageSettings | None, *, attached: bool, merged: bool) -> list[str]:
    notes = [f"Its RoPE is the model's own, {settings.rope}: plain transformers needs nothing more."]
    if attached:
        vision = f", that of its vision tower {settings.vision_rope}" if settings.vision_rope else ""
        notes = [
            f"**Its RoPE variant is {settings.rope}{vision}, which plain transformers does not know.** Without "
            "`attach_saved` of the lines above it loads without an error and gives other answers."
        ]
    if settings.boxes not in (None, "as-is"):
        notes.append(f"It reads and writes boxes as the family `{settings.boxes}` of kdkit's BoxCodec does.")
    if images is None and settings.system:
        notes.append(f"It was trained with the system message {settings.system!r}: give it in every conversation.")
    if images is not None and (tokens := images.max_pixels // images.unit**2) < MAX_ASPECT:
        notes.append(
            f"Images with one side more than {tokens} times the other are made smaller by kdkit than by transformers' "
            "processor, which goes beyond its limit of pixels there."
        )
    if merged:
        notes.append(
            "It was trained with adapters, which are merged into these weights: a project that pulls it "
            "trains whole weights."
        )
    return notes


def _summary(to: Path, settings: Settings, images: ImageSettings | None, base: PinnedBase | None) -> str:
    count = sum(read_header(path).parameters for path in to.glob("*.safetensors") if path.name != TURNS)
    size = f"{count:,} parameters"
    if base is not None:
        size = f"{count:,} parameters of adapters (LoRA) for {base.repository} at commit `{base.commit[:12]}`"
    seen = "images" if images is None else f"images of up to {images.max_pixels:,} pixels"
    return f"Questions of up to {settings.max_tokens} tokens with {seen}; {size}."


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data
