"""Built-in evaluation tasks."""

from __future__ import annotations

from collections.abc import Iterable

from kdkit.core.contracts import TaskSpec
from kdkit.core.contracts.hookspecs import hookimpl


@hookimpl
def kdkit_tasks() -> Iterable[TaskSpec]:
    return [
        TaskSpec(
            name="zero-shot",
            summary="classify images by prompts: accuracy and macro one-vs-rest AUC, per domain",
            factory="kdkit.plugins.tasks.zero_shot:ZeroShot",
            options={"logit_scale": 100.0, "resamples": 1000, "seed": 42, "level": 0.95},
        )
    ]
