"""The built-in aligners. Light: no torch here."""

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
            factory="kdkit.plugins.aligners.procrustes:procrustes",
        ),
        AlignerSpec(
            name="pca",
            summary="one projection for image and text, to the main directions; ignores the anchor",
            factory="kdkit.plugins.aligners.pca:pca",
        ),
        AlignerSpec(
            name="linear",
            summary="one least-squares map for image and text, to the anchor",
            factory="kdkit.plugins.aligners.linear:linear",
        ),
        AlignerSpec(
            name="autoencoder",
            summary="the first layer of an autoencoder, as MMKD-CLIP has it; ignores the anchor",
            factory="kdkit.plugins.aligners.autoencoder:Autoencoder",
        ),
    )
