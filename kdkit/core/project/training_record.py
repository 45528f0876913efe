"""How a version was trained, stage by stage: part of its lineage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdkit.core.base.json_record import JsonRecord
from kdkit.core.project.recipe import PreviousPart


@dataclass(frozen=True)
class Machine(JsonRecord):
    """Where the run was trained; ``building_seconds`` is the time before the first step. ``strategy`` is what the
    processes did, as found in the model: ``one process``, ``ddp`` or ``fsdp2``."""

    processes: int
    device: str
    precision: str
    building_seconds: float
    strategy: str = ""


@dataclass(frozen=True)
class SkippedStep(JsonRecord):
    """A step that changed nothing, because its loss or gradient was not a finite number (``on_nan: skip``).

    Attributes:
        step: from 0.
        found: what was not finite: ``loss``, terms of it, ``gradient``, and parts of the batch such as
            ``targets/radio/image``. Samples are named in the run's messages alone: a lineage is published.
    """

    step: int
    found: tuple[str, ...]


@dataclass(frozen=True)
class TrainingRecord(JsonRecord):
    """Settings and course of the run; ``previous`` is None for a run from scratch. ``skipped`` counts the steps that
    changed nothing; ``skipped_steps`` are the first of them."""

    steps: int
    batch_size: int
    lr: float
    seed: int
    previous: PreviousPart | None
    seconds: float
    machine: Machine
    log: tuple[Mapping[str, Any], ...]
    digest: str
    skipped: int = 0
    skipped_steps: tuple[SkippedStep, ...] = ()


@dataclass(frozen=True)
class StageRecord(JsonRecord):
    """A stage before the last one.

    Attributes:
        number: in the recipe's stages, from 1. A stage that had nothing to do has no record.
        name: of its recipe.
        samples: domain -> number of training samples.
        teachers: those that taught in it.
    """

    number: int
    name: str
    samples: Mapping[str, int]
    teachers: tuple[str, ...]
    training: TrainingRecord
