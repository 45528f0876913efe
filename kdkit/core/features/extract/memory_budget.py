"""Which teachers share a pass over the images: as many as fit into memory together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdkit.core.base.memory import free_memory
from kdkit.core.base.result import format_size
from kdkit.core.contracts import Reporter

if TYPE_CHECKING:
    import torch

    from kdkit.core.project.registry.lock import Lock

FREE_SHARE = 0.8
"""Share of the free memory that the models of a pass may take; the rest is for images and activations."""


def default_budget(device: torch.device) -> int:
    """Bytes for models: a share of what is free on the device; processes of one launcher divide the CPU's memory."""
    processes = 1 if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(FREE_SHARE * free_memory(device) / processes)


def teachers_at_once(names: Sequence[str], lock: Lock, budget: int, reporter: Reporter) -> list[list[str]]:
    """Teachers in groups, in their order, whose files are together no larger than ``budget`` bytes.

    Files stand for the models, which are not loaded yet. A teacher that is larger alone has a group of its own. With
    several groups each image is decoded once per group, which the reporter says.
    """
    groups: list[list[str]] = []
    left = 0
    for name in names:
        size = sum(fact.size for fact in lock.teacher(name).files.values())
        if not groups or size > left:
            groups.append([])
            left = budget
        groups[-1].append(name)
        left -= size
    if len(groups) > 1:
        passes = "; ".join(", ".join(group) for group in groups)
        reporter.say(f"{format_size(budget)} for models: {len(groups)} passes over the images ({passes})")
    return groups
