"""The built-in aligners: specs only, so that no torch is imported."""

from __future__ import annotations

from kdkit.core.contracts import AlignerSpec
from kdkit.core.contracts.hookspecs import hookimpl

_ALIGNERS = (
    (
        "procrustes",
        "matrix:procrustes",
        "one rotation for image and text, to the anchor; keeps the teacher's similarities",
    ),
    ("pca", "matrix:pca", "one projection for image and text, to the main directions; ignores the anchor"),
    ("linear", "matrix:linear", "one least-squares map for image and text, to the anchor"),
    (
        "autoencoder",
        "autoencoder:Autoencoder",
        "first layer of an autoencoder, as in MMKD-CLIP; ignores the anchor",
    ),
)


@hookimpl
def kdkit_aligners() -> tuple[AlignerSpec, ...]:
    """Maps of a teacher's space to the student's width."""
    return tuple(
        AlignerSpec(name=name, summary=summary, factory=f"{__name__}.{factory}") for name, factory, summary in _ALIGNERS
    )
