"""The same inputs through a student here and through stock libraries in a process of its own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.subprocesses import run_python
from kdkit.core.base.tensors import read_tensors
from kdkit.core.contracts import Decoding, DualEncoder, Published, Sample

TOLERANCE = 1e-5
"""Largest difference of a feature or logit from the student's own, relative to the largest one (at least to 1)."""
COARSE = 2e-2
"""The same for logits of weights of fewer than 32 bits: merged adapters are rounded otherwise than adapters."""

_CHECK = Path(__file__).with_name("stock_check.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_COMMIT, _CACHE = "0" * 40, "cache"
_LENGTH = 8
"""Tokens of an answer that are compared."""

TEXTS = (
    "a chest x-ray showing pneumonia",
    "Histology, H&E: adenocarcinoma (grade 3).",
    "",
    "no finding in this image of the retina, " * 60,
)
"""Ordinary, with punctuation, empty, and longer than any context."""
SIZES = ((64, 96), (300, 120), (224, 224), (17, 230))
"""Height and width of the pictures, which show every way of resizing and cropping."""

Turns = Sequence[tuple[str, str]]
QUESTIONS: Sequence[tuple[tuple[int, ...], Turns]] = (
    ((0,), (("user", "<image>What is it?"),)),
    ((1,), (("user", "Where? <image>"), ("assistant", "Left."), ("user", "Is it?"))),
    ((2,), (("system", "Be brief."), ("user", "<image>\nWhere is it?"))),
    ((2, 0), (("user", "<image> or <image>?"),)),
)
"""Pictures, and messages with image marks: an image first, last in a conversation, with a system message, two images.
Questions that a student does not take are left out."""


@dataclass(frozen=True)
class Compared:
    """Differences of stock libraries from a student.

    Attributes:
        checks: library -> ``tolerance``, and ``image_difference`` and ``text_difference`` of features or
            ``logit_difference`` of answers.
        environment: distribution -> version.
    """

    checks: Mapping[str, Mapping[str, float]]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """A question that the student takes, and its answer.

    Attributes:
        messages: as chat templates have them; an image is the number of a picture.
        logits: (V,) of the answer's first token; ``ids`` (n,) of its first tokens, ``log_probs`` (n,) of those.
    """

    messages: list[dict[str, Any]]
    logits: Tensor
    ids: Tensor
    log_probs: Tensor


def compare_with_stock(published: Published, student: Any, *, where: str, name: str, folder: Path) -> Compared:
    """Run lines and probes without network, and compare what they compute with the student.

    Args:
        student: in eval mode on the CPU: a ``contracts.DualEncoder``, or a student that answers.
        where: for messages.
        name, folder: ``folder`` stands in the Hub's cache as ``name``, unless that is its own path.

    Raises:
        KdkitError: exit code 1 when a library cannot load it, or a difference is above the tolerance.
    """
    with tempfile.TemporaryDirectory() as place:
        scratch, pictures = Path(place), fixed_pictures()
        save_pictures(pictures, scratch)
        check: dict[str, Any] = {"libraries": list(published.lines), "distributions": list(published.distributions)}
        replies: list[Reply] = []
        features: dict[str, Tensor] = {}
        if isinstance(student, DualEncoder):
            pixels = torch.stack([student.preprocess(picture) for picture in pictures])
            features = {"image": student.encode_image(pixels), "text": student.encode_text(TEXTS)}
            check |= {"texts": TEXTS, "pictures": len(pictures)}
        else:
            replies = collect_replies(student, pictures, scratch)
            check |= {"questions": [reply.messages for reply in replies], "length": _LENGTH}
        allowed = tolerance(student) if replies else TOLERANCE
        del student  # the other process loads one of its own
        (scratch / "check.json").write_text(json.dumps(check), encoding="utf-8")
        for library, lines in published.lines.items():
            (scratch / f"{library}.lines").write_text(lines + published.probes[library], encoding="utf-8")
        if (base := published.base) is not None:
            put_into_cache(scratch, base.repository, base.folder, base.commit)
        if name != str(folder):
            put_into_cache(scratch, name, folder)
        errors, environment = run_check(scratch, where)
        found = read_tensors(scratch / "found.safetensors")
    checks = {}
    for library in published.lines:
        if library in errors:
            raise _cannot_load(library, where, errors[library])
        theirs = {key.removeprefix(f"{library}."): x for key, x in found.items() if key.startswith(f"{library}.")}
        differences = {kind: feature_difference(theirs[kind], ours) for kind, ours in features.items()}
        if replies:
            differences["logit"] = answer_difference(theirs, replies)
        require_close(differences, allowed, published, library=library, where=where)
        checks[library] = {"tolerance": allowed, **{f"{kind}_difference": x for kind, x in differences.items()}}
    return Compared(checks, environment)


def require_close(
    differences: Mapping[str, float], allowed: float, published: Published, *, library: str, where: str
) -> None:
    """Raise KdkitError unless every difference is a number not above ``allowed``."""
    if all(difference <= allowed for difference in differences.values()):  # NaN is not <= anything
        return
    found = ", ".join(f"{kind} {difference:.2g}" for kind, difference in differences.items())
    raise KdkitError(
        "KD-REL-001",
        f"stock {library} computes something else than this student; nothing was written",
        where=where,
        why=f"largest relative difference: {found}; allowed {allowed:.0e}",
        fix=f"install the versions that it was trained with: {', '.join(published.distributions)}",
        code=ExitCode.FOUND,
    )


def feature_difference(theirs: Tensor, ours: Tensor) -> float:
    """Largest difference of features, relative to our largest one (at least to 1)."""
    ours = ours.detach().float().cpu()
    if theirs.shape != ours.shape:
        return float("inf")
    return float((theirs - ours).abs().max() / max(1.0, float(ours.abs().max())))


def answer_difference(theirs: Mapping[str, Tensor], replies: Sequence[Reply]) -> float:
    """Largest difference over all questions; NaN where one of them is."""
    return float(torch.tensor([_reply_difference(theirs, number, reply) for number, reply in enumerate(replies)]).max())


def _reply_difference(theirs: Mapping[str, Tensor], number: int, ours: Reply) -> float:
    """Of the first token's logits, and of the log-probabilities of the chosen tokens.

    Where two tokens are equally likely the answers may part; the likeliest token there is the last one compared.
    """
    logits, ids, log_probs = (theirs[f"{number}.{name}"] for name in ("logits", "ids", "log_probs"))
    if logits.shape != ours.logits.shape:
        return float("inf")
    same = min(len(ids), len(ours.ids), len(ours.log_probs))
    parted = next((place + 1 for place in range(same) if ids[place] != ours.ids[place]), same)
    scale = max(1.0, float(ours.logits.abs().max()))
    apart = torch.cat([logits - ours.logits, log_probs[:parted] - ours.log_probs[:parted]])
    return float(apart.abs().max()) / scale


def tolerance(student: Any) -> float:
    """Allowed difference of the logits of ``student``, an ``nn.Module``."""
    coarse = any(p.is_floating_point() and p.element_size() < 4 for p in student.parameters())
    return COARSE if coarse else TOLERANCE


@torch.no_grad()
def collect_replies(student: Any, pictures: Sequence[Image.Image], folder: Path) -> list[Reply]:
    """The student's answers to those of ``QUESTIONS`` that it takes; ``folder`` holds the pictures as files.

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
        (answer,) = student.answer([picture], [sample], Decoding(max_new=_LENGTH, scored=True))[0]
        ids, log_probs = torch.tensor(answer.ids), torch.tensor(answer.log_probs)
        found.append(Reply(chat_messages(turns, images), logits, ids, log_probs))
    if not found:
        assert refused is not None
        raise refused
    return found


def chat_messages(turns: Turns, images: Sequence[int]) -> list[dict[str, Any]]:
    """Messages with ``<image>`` marks in the form of chat templates."""
    numbers, messages = iter(images), []
    for role, content in turns:
        parts: list[dict[str, Any]] = []
        for place, text in enumerate(content.split("<image>")):
            parts += [{"type": "image", "image": next(numbers)}] if place else []
            parts += [{"type": "text", "text": text}] if text else []
        messages.append({"role": role, "content": parts})
    return messages


def fixed_pictures() -> list[Image.Image]:
    """The same RGB pictures every time: noise over a gradient, one per entry of ``SIZES``."""
    rng = np.random.Generator(np.random.PCG64(0))
    pictures = []
    for height, width in SIZES:
        gradient = np.linspace(0, 150, width)[None, :, None]
        pixels = gradient + rng.integers(0, 100, (height, width, 3))
        pictures.append(Image.fromarray(pixels.astype(np.uint8)))
    return pictures


def save_pictures(pictures: Sequence[Image.Image], scratch: Path) -> None:
    """As ``0.png``, ``1.png``, ...; the first one also as the card's ``image.png``."""
    for number, picture in enumerate(pictures):
        picture.save(scratch / f"{number}.png")
    pictures[0].save(scratch / "image.png")


def put_into_cache(scratch: Path, repo: str, folder: Path, commit: str = _COMMIT) -> None:
    """Lay ``folder`` out below ``scratch`` as the Hub's client would after downloading all of ``repo``."""
    place = scratch / _CACHE / f"models--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / "main").write_text(commit, encoding="utf-8")
    (place / "snapshots").mkdir(exist_ok=True)
    (place / "snapshots" / commit).symlink_to(folder.absolute(), target_is_directory=True)


def run_check(scratch: Path, where: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Run ``stock_check.py`` without network and with no cache but the one in ``scratch``.

    Returns:
        Its ``errors.json`` and ``environment.json``.

    Raises:
        KdkitError: exit code 1 when it fails.
    """
    home = {"HF_HOME": str(scratch), "HF_HUB_CACHE": str(scratch / _CACHE), "HF_ENDPOINT": "https://huggingface.co"}
    done = run_python([str(_CHECK), str(scratch)], env={**os.environ, **_OFFLINE, **home}, capture_output=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it ended without a message"]
        raise _cannot_load("libraries", where, lines[-1])
    errors, environment = (json.loads((scratch / f"{name}.json").read_text()) for name in ("errors", "environment"))
    return errors, environment


def _cannot_load(what: str, where: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-REL-002",
        f"stock {what} cannot load this student; nothing was written",
        where=where,
        why=why,
        fix="install the versions of the libraries that it was trained with",
        code=ExitCode.FOUND,
    )
