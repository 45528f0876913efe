"""The processor of a model folder: its chat template, its tokenizer and its image processor, as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE_MARK, Sample
from kdkit.plugins.loaders.hugging_face import PROCESSORS, TOKENIZER_FILES, digest_files, missing_packages
from kdkit.plugins.loaders.model_types import CUSTOM_CODE, needs_own_code
from kdkit.plugins.loaders.transformers_model import LOCAL
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.families.tensors import PIXELS, Normalization, as_bytes, most_tiles
from kdkit.plugins.students.clinkd.tokens import FILES, Marks, Tokens

PROCESSOR_FILES = (
    *dict.fromkeys((*FILES, *TOKENIZER_FILES)),
    *(*PROCESSORS, "video_preprocessor_config.json"),
)
"""Copied byte for byte when the student is saved."""
_NO_SETTINGS = ("_name_or_path", "name_or_path", "auto_map", "chat_template", "processor_class")
"""Keys of processor files that change no pixel."""
_ANSWER = "ANSWER"
Message = tuple[str, str]
"""Role and content, with image marks."""


class FamilyProcessor:
    """The processor of a folder, for a family that is read with it.

    Args:
        spec: of the family.
        folder: with the files of tokenizer, image processor and chat template.

    Raises:
        KdkitError: files that are missing or damaged, packages that they need, no chat template.
    """

    def __init__(self, spec: FamilySpec, folder: Path) -> None:
        self.spec, self.where = spec, str(folder)
        self.files = {name: (folder / name).read_bytes() for name in PROCESSOR_FILES if (folder / name).is_file()}
        self._processor = _open(spec, folder)
        if not self._processor.chat_template:
            raise KdkitError(
                "KD-STUD-422",
                "this model folder has no chat template",
                where=self.where,
                why="without it kdkit does not know how the model reads a conversation",
                fix="copy chat_template.jinja (or chat_template.json) from the model's repository",
            )
        images = self._processor.image_processor
        self.normalization, self.tiles = Normalization.of(images), most_tiles(images, spec.tiles)
        self.kind = f"{type(self._processor).__name__} with {type(images).__name__}"
        tokenizer = self._processor.tokenizer
        backend = tokenizer.backend_tokenizer
        backend.no_padding(), backend.no_truncation()  # once here, so that threads find nothing to change
        added = [str(x) for x in tokenizer.added_tokens_decoder.values() if x.special]
        special = tuple(x for x in (*tokenizer.all_special_tokens, *added) if not _in_answers(x))
        self.turn, closing = self._turn(special)
        eos = tokenizer.eos_token
        end = spec.end if spec.end in tokenizer.get_vocab() else closing or eos
        if not end:
            raise KdkitError(
                "KD-STUD-481",
                "the tokenizer has no token that ends an answer",
                where=self.where,
                why="tokenizer_config.json names no eos_token, and the chat template ends turns with none",
                fix="take tokenizer_config.json from the model's repository",
            )
        # Gemma 3's templates write the token that begins an image; before transformers 5.24 it has another name.
        image = self._mark = str(getattr(self._processor, "boi_token", None) or self._processor.image_token)
        marks = Marks(end, tokenizer.pad_token or eos or end, tuple(dict.fromkeys((*special, image))))
        self.tokens = Tokens(self.files, self.where, marks, backend.to_str(), (eos,) if eos else (), self.turn)

    def __deepcopy__(self, _: Any) -> FamilyProcessor:
        """Itself: it does not change, and a copy of a student (an average of weights) reads samples alike."""
        return self

    def _turn(self, special: Sequence[str]) -> tuple[tuple[str, str], str]:
        """How the template places an answer: the last line of a prompt, and the blanks between it and an answer, if
        any; and the one of the ``special`` tokens right behind an answer, if there is one."""
        given = [{"role": "user", "content": _parts(f"{IMAGE_MARK}?")}]
        answered = [*given, {"role": "assistant", "content": _parts(_ANSWER)}]
        try:
            prompt = str(self._processor.apply_chat_template(given, add_generation_prompt=True, tokenize=False))
            whole = str(self._processor.apply_chat_template(answered, tokenize=False))
        except Exception:  # a template raises what it likes; of prompts the check of a small image tells
            return ("", ""), ""
        between = whole.removeprefix(prompt).partition(_ANSWER)[0] if whole.startswith(prompt) else ""
        behind = whole.rpartition(_ANSWER)[2]
        closing = [token for token in special if behind.startswith(token)]
        line = re.split(r"[\n>]", prompt)[-1]
        return (line, between if between.isspace() else ""), max(closing, key=len, default="")

    def text(self, sample: Sample, messages: Sequence[Message]) -> str:
        """The prompt as the folder's chat template makes it, with one image token for each image mark.

        Raises:
            KdkitError: the template drops an image or a text, or refuses the messages.
        """
        given: list[dict[str, Any]] = [{"role": role, "content": _parts(content)} for role, content in messages]
        try:
            text = str(self._processor.apply_chat_template(given, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # a template raises what it likes
            raise _template(sample, "the chat template refuses these messages", str(error)) from error
        wanted = sum(content.count(IMAGE_MARK) for _, content in messages)
        mark = self._mark
        if text.count(mark) != wanted:
            what = f"the chat template writes {text.count(mark)} of {wanted} images"
            raise _template(sample, what, f"the prompt needs {mark} once for each image: {text!r:.200}")
        for message in given:
            for part in message["content"]:
                if part["type"] == "text" and part["text"].strip() not in text:
                    what = f"the chat template drops a text of the {message['role']}"
                    raise _template(sample, what, f"{part['text']!r:.100} is not in the prompt")
        return text

    def process(self, sample: Sample, text: str, images: Sequence[Image.Image]) -> tuple[list[int], dict[str, Tensor]]:
        """Token ids with as many image tokens as the images need, and the image tensors, pixels as uint8.

        Raises:
            KdkitError: naming the sample: the processor cannot read its images or its text.
        """
        bos = self._processor.tokenizer.bos_token
        plain = {"add_special_tokens": False} if bos is not None and text.startswith(bos) else {}
        try:
            found: Mapping[str, Any] = self._processor(
                text=[text],
                images=[[image.convert("RGB") for image in images]],
                return_tensors="pt",
                do_rescale=False,
                do_normalize=False,
                **plain,
            )
            tensors = {name: found[name] for name in self.spec.tensors}
        except Exception as error:  # transformers and tokenizers raise what they like
            sizes = ", ".join(f"{image.width} x {image.height}" for image in images)
            raise KdkitError(
                "KD-STUD-432",
                _named(sample, "the processor cannot read it"),
                where=sample.origin or self.where,
                why=f"images of {sizes} pixels: {' '.join(str(error).split())[:400]}",
                fix="correct the sample, or take tokenizer and processor of the model's repository",
            ) from error
        tensors[PIXELS] = as_bytes(tensors[PIXELS], self.where)
        if self.spec.real:
            tensors[self.spec.real] = tensors[self.spec.real].bool()  # a mask of pixels would be larger than these
        return found["input_ids"][0].tolist(), tensors

    @property
    def template(self) -> str:
        """The chat template."""
        found = self._processor.chat_template
        return str(found["default"] if isinstance(found, dict) else found)

    def settings(self) -> str:
        """``sha256:...`` of the settings of the image processor, however the files are laid out."""
        contents = {name: json.loads(self.files[name]) for name in PROCESSORS if name in self.files}
        kept = {
            name: {key: value for key, value in content.items() if key not in _NO_SETTINGS}
            for name, content in contents.items()
        }
        return digest_files({"settings": json.dumps(kept, sort_keys=True).encode()})

    def least(self, image_id: int) -> tuple[int, int]:
        """Tokens of the prompt of one small image, and how many of them are the model's image tokens."""
        nobody = Sample("", Path(), "", "")
        text = self.text(nobody, [("user", f"{IMAGE_MARK}?")])
        ids, _ = self.process(nobody, text, [Image.new("RGB", (32, 32))])
        return len(ids), ids.count(image_id)


def _open(spec: FamilySpec, folder: Path) -> Any:
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    try:
        return getattr(transformers, PROCESSOR_MAPPING_NAMES[spec.name]).from_pretrained(folder, **LOCAL)
    except ImportError as error:
        raise missing_packages(folder, error) from error
    except Exception as error:  # transformers raises nearly anything for a broken file
        if CUSTOM_CODE in str(error):
            raise needs_own_code(folder) from error
        raise KdkitError(
            "KD-STUD-423",
            "the processor cannot be read",
            where=str(folder),
            why=" ".join(str(error).split())[:400],
            fix="take tokenizer, preprocessor_config.json and processor_config.json from the model's repository",
        ) from error


def _in_answers(token: str) -> bool:
    """Whether a special token belongs to answers: the tags of boxes and of what they show."""
    return token.strip("<|/>").removesuffix("_start").removesuffix("_end") in ("box", "ref", "object_ref", "quad")


def _parts(content: str) -> list[dict[str, str]]:
    """The content as transformers' templates take it: images and texts in order."""
    made: list[dict[str, str]] = []
    for number, text in enumerate(content.split(IMAGE_MARK)):
        made += [{"type": "image"}] if number else []
        made += [{"type": "text", "text": text}] if text else []
    return made


def _named(sample: Sample, what: str) -> str:
    return f"sample '{sample.id}': {what}" if sample.id else what


def _template(sample: Sample, what: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-STUD-424",
        _named(sample, what),
        where=sample.origin,
        why=why,
        fix="take the chat template of the model's repository, or change the messages to what it takes",
    )
