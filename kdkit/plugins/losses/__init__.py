"""The built-in losses. Light: no torch here, the modules named by the import strings have it."""

from __future__ import annotations

from kdkit.core.contracts import LossSpec
from kdkit.core.hookspecs import hookimpl


@hookimpl
def kdkit_losses() -> tuple[LossSpec, ...]:
    """Losses of dual encoders."""
    return (
        LossSpec(
            name="clip",
            summary="symmetric InfoNCE of the student's own images and texts (the task)",
            factory="kdkit.plugins.losses.clip:ClipLoss",
            signals=(),
        ),
        LossSpec(
            name="fd",
            summary="feature distillation: squared distance to each teacher's features",
            factory="kdkit.plugins.losses.fd:FeatureDistillation",
        ),
        LossSpec(
            name="icl",
            summary="interactive contrastive learning: student image against teacher text, and the reverse",
            factory="kdkit.plugins.losses.icl:InteractiveContrast",
        ),
        LossSpec(
            name="crd",
            summary="relational distillation: KL of the student's similarity rows from the teachers'",
            factory="kdkit.plugins.losses.crd:RelationalDistillation",
        ),
    )
