"""Text to token ids and back, from the ``tokenizer.json`` of a model folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError

FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "chat_template.json", "chat_template.jinja"),
)
"""What belongs to a tokenizer in a model folder, and is copied when the student is saved."""
END, START, PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
IMAGE, IMAGE_START, IMAGE_END = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
STRUCTURE = (END, START, PAD, IMAGE, IMAGE_START, IMAGE_END, "<|video_pad|>", "<|vision_pad|>")
"""Tokens that make the shape of a sequence; a text that contains one would break it."""


@dataclass(frozen=True)
class Marks:
    """The special tokens of a family.

    Attributes:
        end: ends an answer; ``pad``: fills a sequence.
        structure: all that make the shape of a sequence.
    """

    end: str
    pad: str
    structure: tuple[str, ...]


QWEN = Marks(END, PAD, STRUCTURE)


class Tokens:
    """A tokenizer, safe to call from several threads.

    Args:
        files: name -> content, of :data:`FILES`; ``tokenizer.json`` is read, the others are kept.
        where: for messages.
        marks: special tokens of the family; by default Qwen's.
        content: what to read instead of ``tokenizer.json``: a tokenizer as transformers made it of all files.
        ends: tokens that end an answer beside the end and pad tokens of ``marks``.
        turn: the last line of a prompt, and the blanks that the chat template writes between it and an answer, as
            those of SmolVLM (``Assistant:`` and a space) and LLaVA do. They belong to the answer's tokens.

    Raises:
        KdkitError: no usable ``tokenizer.json``, or one without Qwen's special tokens.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        where: str,
        marks: Marks = QWEN,
        content: str | None = None,
        ends: Sequence[str] = (),
        turn: tuple[str, str] = ("", ""),
    ) -> None:
        from tokenizers import Tokenizer

        self.marks, self._ends, self._turn = marks, ends, turn
        if content is None and "tokenizer.json" not in files:
            raise KdkitError(
                "KD-STUD-047",
                "no tokenizer.json in the model folder",
                where=where,
                code=ExitCode.MISSING,
                fix="take all files of the model folder from its repository",
            )
        try:
            self._tokenizer: Any = Tokenizer.from_str(content or files["tokenizer.json"].decode())
        except Exception as error:  # the library raises Exception itself
            raise KdkitError(
                "KD-STUD-048",
                "not a usable tokenizer.json",
                where=where,
                why=str(error),
                fix="fetch the file again from the model's repository",
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.files, self._content = dict(files), content
        absent = [token for token in marks.structure[:6] if self._tokenizer.token_to_id(token) is None]
        if absent:
            raise KdkitError(
                "KD-STUD-049",
                f"the tokenizer has no {absent[0]}",
                where=where,
                why="it is not that of a Qwen2-VL model",
                fix="take tokenizer.json from a Qwen2-VL or Qwen2.5-VL model",
            )

    def __len__(self) -> int:
        """Number of token ids."""
        return int(self._tokenizer.get_vocab_size())

    def id(self, token: str) -> int:
        """The id of a special token."""
        return int(self._tokenizer.token_to_id(token))

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return tuple(dict.fromkeys(self.id(token) for token in (self.marks.end, self.marks.pad, *self._ends)))

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``; special tokens in it are recognized, none is added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_answer(self, text: str) -> list[int]:
        """Ids of an answer as they follow a prompt, without an end token."""
        line, blanks = self._turn
        if not blanks or not text:
            return self.encode(text)
        before, whole = self.encode(line), self.encode(line + blanks + text)  # SentencePiece writes a blank of its own
        return whole[len(before) :] if whole[: len(before)] == before else self.encode(blanks + text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, before the first end token. Boxes' and objects' special tokens are part of it."""
        stop = next((place for place, token in enumerate(ids) if token in self.ends), len(ids))
        text: str = self._tokenizer.decode(list(ids[:stop]), skip_special_tokens=False)
        return text.removeprefix(self._turn[1])

    def digest(self) -> str:
        """``sha256:...``, the same for the same ``tokenizer.json`` and the same blanks before answers."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        content = self.files["tokenizer.json"] if self._content is None else self._content.encode()
        return f"sha256:{hashlib.sha256(content + self._turn[1].encode()).hexdigest()}"

    @cached_property
    def unwritable(self) -> frozenset[int]:
        """Ids that make the shape of a sequence and end no answer."""
        ids = (self._tokenizer.token_to_id(token) for token in self.marks.structure)
        return frozenset(number for number in ids if number is not None) - {*self.ends}
