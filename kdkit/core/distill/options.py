"""How to run ``kdkit distill``."""

from __future__ import annotations

from dataclasses import dataclass

from kdkit.core.distill.loop.sharding import Sharding


@dataclass(frozen=True)
class Options:
    """How to run. Only what is trained, the seed and (in its rounding) precision change the result.

    Attributes:
        incremental: start from the current version and teach what is new.
        continued: start from the current version and train it on all samples, with the recipe's length and rate.
        recipe: name or path; None for the registry's.
        stage: train this stage of the recipe alone, from 1; None for all.
        restart: discard an interrupted run of the same plan.
        precision: one of :data:`~kdkit.core.distill.loop.accelerator.PRECISIONS`.
        cpu: use the CPU even if there is a GPU.
        checkpoint_seconds: time between checkpoints.
        sharding: how the processes share weights and optimizer states (FSDP2); None if each has them all. A launcher's
            own choice counts too.
        processes: of a run that is planned and not started; otherwise those that a launcher started count.
        track: trackers that receive the loss curve, see :mod:`kdkit.core.distill.loop.tracking`.
    """

    incremental: bool = False
    recipe: str | None = None
    seed: int = 0
    restart: bool = False
    precision: str = "no"
    cpu: bool = False
    checkpoint_seconds: float = 60.0
    track: tuple[str, ...] = ()
    sharding: Sharding | None = None
    processes: int = 1
    continued: bool = False
    stage: int | None = None

    @property
    def from_current(self) -> bool:
        """Whether the run starts from the current version."""
        return self.incremental or self.continued
