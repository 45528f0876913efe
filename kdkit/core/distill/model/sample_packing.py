"""``optimizer.pack_tokens``: a generating student computes several samples in one sequence, without padding."""

from __future__ import annotations

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts.token_signals import PacksSamples
from kdkit.core.project.recipe import Recipe


def pack_samples(recipe: Recipe, student: object) -> None:
    """Let the student pack samples, if the recipe says so.

    Raises:
        KdkitError: a student that cannot.
    """
    tokens = recipe.optimizer.pack_tokens
    if tokens is None:
        return
    if not isinstance(student, PacksSamples):
        raise KdkitError(
            "KD-DIST-550",
            "this student cannot put several samples into one sequence",
            where="optimizer.pack_tokens",
            why=f"{type(student).__name__} has no sequences of tokens to pack, or does not say how",
            fix="remove 'pack_tokens' from the recipe or registry; 'micro_batch' saves memory for every student",
        )
    student.pack_samples(tokens)
