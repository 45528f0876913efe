"""Checks that a teacher works, by one small image and text, and measures its signals."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import LOGPROBS, OWN_ANSWERS, Answering, Sample, SignalSource, Teacher
from kdkit.core.plugin_system.failures import culprit, one_line
from kdkit.core.project.registry.lock import SignalFact

if TYPE_CHECKING:
    from torch import Tensor

_SIZE = (61, 47)
"""Not square and no multiple of a patch size, which preprocessing must handle."""


@dataclass(frozen=True)
class Probe:
    """What the probe found.

    Attributes:
        signals: name -> shape and dtype of one row; empty for a model that only answers.
        seconds: that the second computation took, preprocessing included.
    """

    signals: dict[str, SignalFact]
    seconds: float


def probe(signals: SignalSource, where: str) -> Probe:
    """Compute the signals of one random image with a text twice; a model without signals answers once.

    Raises:
        KdkitError: the model fails; its rows differ from its declaration or between the runs, or are not finite.
    """
    import torch
    from PIL import Image

    from kdkit.core.teachers.signals import TextSignals

    pixels = random.Random(0).randbytes(_SIZE[0] * _SIZE[1] * 3)
    image = Image.frombytes("RGB", _SIZE, pixels)
    sample = Sample(id="probe", image=Path("probe.png"), text="a chest x-ray of a nodule", domain="probe")
    try:
        with torch.no_grad():
            first = signals.compute([signals.prepare(image, sample)])
            if isinstance(signals, TextSignals) and len(signals.signals) == 1:
                signals.forget_texts()  # else the second computation of a text encoder would compute nothing
            start = time.perf_counter()
            second = signals.compute([signals.prepare(image, sample)])
            seconds = time.perf_counter() - start
        model: object = signals
        only_answers = isinstance(model, Answering) and not signals.signals
        if isinstance(model, Answering) and (only_answers or signals.identity().get(LOGPROBS) == OWN_ANSWERS):
            answers = model.answer([image], [sample])
            if [len(group) for group in answers] != [1]:
                raise _unusable(where, "it does not return one answer to one question")
    except KdkitError:
        raise
    except (Exception, SystemExit) as error:
        plugin = culprit(error)
        raise KdkitError(
            "KD-TEACH-013",
            "the model fails on a small image with a short text",
            where=where,
            why=one_line(error) + (f", in the plugin {plugin.distribution} {plugin.version}" if plugin else ""),
            fix="check that it is the right loader: kdkit plugins",
            code=ExitCode.PLUGIN if plugin else ExitCode.USAGE,
        ) from error
    if not isinstance(first, Mapping):
        raise _unusable(where, f"it returns a {type(first).__name__}, not a mapping of tensors")
    declared = {spec.name: spec for spec in signals.signals}
    if not (declared or only_answers) or set(first) != set(declared):
        raise _unusable(where, f"it declares the signals {sorted(declared)} and returns {sorted(first)}")
    for name, rows in first.items():
        again = None if LOGPROBS in signals.identity() else second[name]  # a server's rounding depends on its batches
        _check(where, name, rows, again, declared[name].shape)
    return Probe(declared_signals(signals), seconds)


def declared_signals(signals: SignalSource) -> dict[str, SignalFact]:
    """Signal name -> shape and dtype of one row, as the model declares them."""
    return {spec.name: SignalFact(shape=spec.shape, dtype=spec.dtype) for spec in signals.signals}


def _check(where: str, name: str, rows: Tensor, again: Tensor | None, shape: tuple[int, ...]) -> None:
    import torch

    if not isinstance(rows, torch.Tensor):
        raise _unusable(where, f"'{name}' is a {type(rows).__name__}, not a tensor")
    if tuple(rows.shape) != (1, *shape):
        raise _unusable(where, f"a row of '{name}' should be {shape} and is {tuple(rows.shape)[1:]}")
    if not bool(torch.isfinite(rows).all()):
        raise _unusable(where, f"'{name}' holds NaN or infinity")
    if again is not None and not torch.equal(rows, again):
        raise _unusable(where, f"'{name}' differs between two runs on the same sample")


def _unusable(where: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-TEACH-014", "the model is no usable teacher", where=where, why=why, fix="check its files and its loader"
    )


def freeze(model: Any) -> Any:
    """Put a torch module into eval mode, without gradients; other models stay as they are."""
    from torch import nn

    if isinstance(model, nn.Module):
        model.eval().requires_grad_(False)
    return model


def identity_of(model: Teacher) -> Mapping[str, str]:
    """The model's identity as plain strings, sorted by key."""
    return {str(key): str(value) for key, value in sorted(model.identity().items())}
