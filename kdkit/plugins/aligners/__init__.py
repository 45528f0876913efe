"""The built-in aligners: specs only, so that no torch is imported."""

from __future__ import annotations

from kdkit.core.contracts import AlignerSpec
from kdkit.core.contracts.hookspecs import hookimpl


@hookimpl
def kdkit_aligners() -> tuple[AlignerSpec, ...]:
    """Maps of a teacher's space to the student's width."""
    return (
        AlignerSpec(
            name="procrustes",
            summary="one rotation for image and text, to the anchor; keeps the teacher's similarities",
            factory="kdkit.plugins.aligners.matrix:procrustes",
        ),
        AlignerSpec(
            name="pca",
            summary="one projection for image and text, to the main directions; ignores the anchor",
            factory="kdkit.plugins.aligners.matrix:pca",
        ),
        AlignerSpec(
            name="linear",
            summary="one least-squares map for image and text, to the anchor",
            factory="kdkit.plugins.aligners.matrix:linear",
        ),
        AlignerSpec(
            name="autoencoder",
            summary="the first layer of an autoencoder, as in MMKD-CLIP; ignores the anchor",
            factory="kdkit.plugins.aligners.autoencoder:Autoencoder",
        ),
    )
