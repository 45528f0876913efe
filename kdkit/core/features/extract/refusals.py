"""Answers that a model refuses, found before hours of computation are spent on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ChecksAnswers, Sample


def find_refusals(model: object, samples: Iterable[Sample]) -> list[KdkitError]:
    """The errors of the samples whose answer ``model`` refuses; none for a model that checks no answers."""
    if not isinstance(model, ChecksAnswers):
        return []
    return [error for sample in samples if (error := _refusal(model, sample)) is not None]


def require_accepted(teacher: str, model: object, samples: Sequence[Sample]) -> None:
    """Check the answers of all samples that a teacher is about to compute.

    Raises:
        KdkitError: the first refusal, with the count of all.
    """
    refused = find_refusals(model, samples)
    if refused:
        why = f"the teacher refuses {len(refused)} of the {len(samples)} samples to compute"
        raise refusal_error(refused, why, f"teacher '{teacher}': ")


def refusal_error(refused: Sequence[KdkitError], why: str, prefix: str = "") -> KdkitError:
    """One error for all refusals: the first one, with ``why`` counting the rest."""
    first = refused[0]
    fix = " ".join(filter(None, [first.fix, "(or shorten these answers, or remove the samples)"]))
    return KdkitError("KD-FEAT-007", prefix + first.what, where=first.where, why=why, fix=fix, code=first.code)


def _refusal(model: ChecksAnswers, sample: Sample) -> KdkitError | None:
    try:
        model.check_answer(sample)
    except KdkitError as error:
        return error
    return None
