"""The hooks of this plugin. Every kdkit command imports this module: keep it free of torch."""

from __future__ import annotations

from kdkit import LossSpec, hookimpl

KDKIT_API = 1


@hookimpl
def kdkit_losses() -> list[LossSpec]:
    return [
        LossSpec(
            name="loss-example",
            summary="Huber distance to each teacher's features; forgives outliers",
            factory="kdkit_loss_example.loss:Huber",
            options={"delta": 1.0},
        ),
    ]
