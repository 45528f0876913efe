"""The same questions to a student here and by the lines of its card, in a process of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.tensors import read_tensors
from kdkit.core.contracts import Decoding, Published, Sample
from kdkit.core.sharing.release.compare import cannot_load, fixed_pictures, put_into_cache, run_check, save_pictures

TOLERANCE = 1e-5
"""Largest difference of a logit from the version's own, relative to the question's largest (at least to 1)."""
COARSE = 2e-2
"""The same for weights of fewer than 32 bits, which round every product: adapters that are merged into such weights
are rounded otherwise than beside them."""

_CHECK = Path(__file__).with_name("answer_check.py")
_LONGEST = 8
"""Tokens of an answer that are compared."""

Turns = Sequence[tuple[str, str]]
QUESTIONS: Sequence[tuple[tuple[int, ...], Turns]] = (
    ((0,), (("user", "<image>What is it?"),)),
    ((1,), (("user", "Where? <image>"), ("assistant", "Left."), ("user", "Is it?"))),
    ((2,), (("system", "Be brief."), ("user", "<image>\nWhere is it?"))),
    ((2, 0), (("user", "<image> or <image>?"),)),
)
"""Pictures, and messages with their marks: an image first, an image last and a conversation, a system message, two
images. What a student does not take is left out."""


@dataclass(frozen=True)
class Asked:
    """A question that the student takes, and what it says.

    Attributes:
        messages: as transformers has them; an image is the number of a picture.
        logits: (V,) of the answer's first token; ``ids`` (n,) of its first tokens, ``log_probs`` (n,) of those.
    """

    messages: list[dict[str, Any]]
    logits: Tensor
    ids: Tensor
    log_probs: Tensor


def compare_answers(
    published: Published, student: Any, *, where: str, repo: str, folder: Path
) -> tuple[float, float, Mapping[str, str]]:
    """Run the lines, without network, and compare what they load with the student.

    Args:
        published: its lines, and the base of adapters.
        student: in eval mode on the CPU; see ``contracts.Student`` and ``contracts.Answering``.
        where: what messages name.
        repo, folder: ``folder`` stands in the Hub's cache as ``repo``, unless that is its own path.

    Returns:
        The largest difference, relative to the largest logit of its question, what was allowed, and the versions of
        the libraries.

    Raises:
        KdkitError: exit code 1 when the lines fail, or a difference is above what is allowed.
    """
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        pictures = fixed_pictures()
        save_pictures(pictures, scratch)
        ours, allowed = ask(student, pictures, scratch), tolerance(student)
        del student  # the other process has one of its own
        asked = {
            "questions": [item.messages for item in ours],
            "longest": _LONGEST,
            "libraries": list(dict.fromkeys(("torch", "transformers", published.library, *published.needs))),
        }
        (scratch / "questions.json").write_text(json.dumps(asked), encoding="utf-8")
        (scratch / "card.lines").write_text(published.lines, encoding="utf-8")
        if published.base is not None:
            base = published.base
            put_into_cache(scratch, base.repository, base.folder, base.commit)
        if repo != str(folder):
            put_into_cache(scratch, repo, folder)
        errors, environment = run_check(_CHECK, scratch, where)
        theirs = read_tensors(scratch / "answers.safetensors")
    if errors:
        raise cannot_load(published.library, where, errors["lines"])
    # torch's maximum, which is NaN where one of them is.
    difference = float(torch.tensor([_difference(item, theirs, number) for number, item in enumerate(ours)]).max())
    judge(difference, allowed, library=published.library, where=where)
    return difference, allowed, environment


def tolerance(student: Any) -> float:
    """What rounding may do to the logits of ``student``, an ``nn.Module``."""
    coarse = any(p.is_floating_point() and p.element_size() < 4 for p in student.parameters())
    return COARSE if coarse else TOLERANCE


def judge(difference: float, allowed: float, *, library: str, where: str) -> None:
    """Raise KdkitError unless the difference is a number not above what is allowed."""
    if not difference <= allowed:  # NaN is not <= anything
        raise KdkitError(
            "KD-REL-003",
            f"stock {library} gives other answers than this student; nothing was written",
            where=where,
            why=f"largest relative difference of a logit: {difference:.2g}; allowed {allowed:.0e}",
            fix="check that the versions of transformers and peft are those it was trained with",
            code=ExitCode.FOUND,
        )


@torch.no_grad()
def ask(student: Any, pictures: Sequence[Image.Image], folder: Path) -> list[Asked]:
    """What the student says to those of ``QUESTIONS`` that it takes; ``folder`` holds the pictures as files.

    Raises:
        KdkitError: it takes none.
    """
    found, refused = [], None
    for images, turns in QUESTIONS:
        messages = [{"role": role, "content": content} for role, content in turns]
        more = [folder / f"{number}.png" for number in images[1:]]
        sample = Sample("check", folder / "image.png", "yes", "check", extra={"messages": messages, "images": more})
        picture = pictures[images[0]]
        try:
            inputs = student.prepare(picture, sample)
        except KdkitError as error:
            refused = error
            continue
        outputs = student({name: value[None] for name, value in inputs.items()})
        logits = outputs["answer_hidden"][0, 0].float() @ outputs["output_embedding"].float().T
        (answer,) = student.answer([picture], [sample], Decoding(max_new=_LONGEST, scored=True))[0]
        ids, log_probs = torch.tensor(answer.ids), torch.tensor(answer.log_probs)
        found.append(Asked(stock_messages(turns, images), logits, ids, log_probs))
    if not found:
        assert refused is not None
        raise refused
    return found


def stock_messages(turns: Turns, images: Sequence[int]) -> list[dict[str, Any]]:
    """Messages with ``<image>`` marks as transformers has them."""
    numbers, messages = iter(images), []
    for role, content in turns:
        parts: list[dict[str, Any]] = []
        for place, text in enumerate(content.split("<image>")):
            parts += [{"type": "image", "image": next(numbers)}] if place else []
            parts += [{"type": "text", "text": text}] if text else []
        messages.append({"role": role, "content": parts})
    return messages


def _difference(ours: Asked, theirs: Mapping[str, Tensor], number: int) -> float:
    """Of the first token's logits, and of the log-probabilities of the tokens that were chosen.

    Where two tokens are as likely the answers may part: up to there the likeliest token of both is compared.
    """
    logits, ids, log_probs = (theirs[f"{number}.{name}"] for name in ("logits", "ids", "log_probs"))
    if logits.shape != ours.logits.shape:
        return float("inf")
    same = min(len(ids), len(ours.ids), len(ours.log_probs))
    parted = next((place + 1 for place in range(same) if ids[place] != ours.ids[place]), same)
    scale = max(1.0, float(ours.logits.abs().max()))
    apart = torch.cat([logits - ours.logits, log_probs[:parted] - ours.log_probs[:parted]])
    return float(apart.abs().max()) / scale
