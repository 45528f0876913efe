"""From a sample's messages to the prompt that Qwen's chat template makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE_MARK, Sample
from kdkit.plugins.students.clinkd.tokens import END, IMAGE, IMAGE_END, IMAGE_START, START, STRUCTURE

TEMPLATE = "ChatML of Qwen2-VL 1"
"""Part of the student's identity; it changes with the prompt that the same messages give."""


def prompt_of(sample: Sample, *, images: int, system: str, question: str) -> str:
    """Everything before the answer, with one ``<|image_pad|>`` for each image.

    It is what the chat template of Qwen2-VL and Qwen2.5-VL gives for the same messages with a generation prompt.

    Args:
        sample: its ``extra["messages"]`` are mappings with ``role`` (system, user, assistant) and ``content``;
            a sample without messages uses ``question``.
        images: how many images the sample has.
        system: the system message where the sample has none; empty for no such message.

    Raises:
        KdkitError: roles that do not alternate, marks and images that differ in number, or a text with tokens of
            the template in it.
    """
    messages = messages_of(sample, images=images, system=system, question=question)
    picture = f"{IMAGE_START}{IMAGE}{IMAGE_END}"
    turns = (f"{START}{role}\n{content.replace(IMAGE_MARK, picture)}{END}\n" for role, content in messages)
    return "".join(turns) + f"{START}assistant\n"


def messages_of(
    sample: Sample, *, images: int, system: str, question: str, structure: Sequence[str] = STRUCTURE
) -> list[tuple[str, str]]:
    """Role and content of each message before the answer; arguments and errors as of :func:`prompt_of`.

    Args:
        structure: tokens that no text may contain.
    """
    messages = _messages(sample, question, structure)
    if messages[0][0] != "system" and system:
        messages = [("system", system), *messages]
    marks = sum(content.count(IMAGE_MARK) for _, content in messages)
    if marks != images:
        raise _refused(
            sample,
            f"{marks} {IMAGE_MARK} marks for {images} image{'s' * (images != 1)}",
            fix=f"write {IMAGE_MARK} once for each image, where it belongs in the messages",
        )
    return messages


def check_text(sample: Sample, text: str, structure: Sequence[str] = STRUCTURE) -> None:
    """Refuse a text that contains tokens of the template."""
    for token in structure:
        if token in text:
            raise _refused(sample, f"the text contains {token}", fix="remove it: it would break the sequence")


def _messages(sample: Sample, question: str, structure: Sequence[str]) -> list[tuple[str, str]]:
    given: Sequence[Mapping[str, Any]] = sample.extra.get("messages") or ()
    messages = []
    for message in given:
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise _refused(sample, "a message needs a 'role' and a 'content', both text")
        for part in content.split(IMAGE_MARK):
            check_text(sample, part, structure)
        messages.append((role, content))
    messages = messages or [("user", f"{IMAGE_MARK}{question}")]
    turns = [role for role, _ in messages]
    turns = turns[1:] if turns[0] == "system" else turns
    wanted = ["user", "assistant"] * (len(turns) // 2) + ["user"]
    if turns != wanted:
        raise _refused(
            sample,
            f"roles are {', '.join(turns) or 'none'}",
            fix="after an optional system message, user and assistant alternate and the last one is the user; "
            "the answer is the sample's text",
        )
    return messages


def _refused(sample: Sample, what: str, fix: str = "") -> KdkitError:
    return KdkitError("KD-STUD-006", f"sample '{sample.id}': {what}", where=sample.origin, fix=fix)
