"""What this plugin provides. kdkit imports this module in every command, so there is no torch in it."""

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
