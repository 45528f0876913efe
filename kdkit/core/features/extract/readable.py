"""Answers that a model refuses, found before anything is computed for them: for days, perhaps, and for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ChecksAnswers, Sample


def refusals(model: object, samples: Iterable[Sample]) -> list[KdkitError]:
    """What a model that checks answers says of those that it refuses; any other one is not asked."""
    if not isinstance(model, ChecksAnswers):
        return []
    return [error for sample in samples if (error := _error(model, sample)) is not None]


def require_readable(teacher: str, model: object, samples: Sequence[Sample]) -> None:
    """Try answers on a teacher that is about to be asked about them.

    Raises:
        KdkitError: about the first that it refuses, with the number of all.
    """
    refused = refusals(model, samples)
    if refused:
        why = f"it would refuse {len(refused)} of the {len(samples)} samples that it is to be asked about"
        raise first_of(refused, why, f"teacher '{teacher}': ")


def first_of(refused: Sequence[KdkitError], why: str, who: str = "") -> KdkitError:
    """The first refusal, which stands for all; ``why`` counts them."""
    first = refused[0]
    fix = " ".join(filter(None, [first.fix, "(or shorten these answers, or leave them out)"]))
    return KdkitError("KD-FEAT-007", who + first.what, where=first.where, why=why, fix=fix, code=first.code)


def _error(model: ChecksAnswers, sample: Sample) -> KdkitError | None:
    try:
        model.check_answer(sample)
    except KdkitError as error:
        return error
    return None
