"""What losses see of a batch with the student's own answers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdkit.core.contracts.token_signals import NO_TOKEN, TOKENS


def without_own(outputs: Mapping[str, Tensor], own: Tensor) -> dict[str, Tensor]:
    """The student's outputs for a supervised loss: own answers, which are no truth to learn, have no tokens.

    Args:
        own: (B,) bool.
    """
    return {**outputs, TOKENS: outputs[TOKENS].masked_fill(own[:, None], NO_TOKEN)}


def own_figures(outputs: Mapping[str, Tensor], own: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For the log: of this rank's own answers their number and mean length in tokens, and the share that no teacher
    could score.

    Args:
        own: (b,) bool; ``weights``: teacher -> (b,).
    """
    count = own.sum().float()
    tokens = ((outputs[TOKENS] >= 0) & own[:, None]).sum()
    taught = torch.stack([weight > 0 for weight in weights.values()]).any(dim=0)
    least = count.clamp(min=1)
    return {"own/answers": count, "own/tokens": tokens / least, "own/unscored": (own & ~taught).sum() / least}
