"""Attention pooling of a patient's images: a small network, trained on frozen features.

Shapes: N images, B bags, D features, H hidden, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]
HIDDEN = 128
STEPS, PATIENCE = 300, 30
RATE, DECAY = 1e-3, 1e-4


class AttentionPooling(nn.Module):
    """``z = sum_k a_k h_k`` with ``a = softmax(w (tanh(V h) * sigmoid(U h)))`` over the images of a bag, then a linear
    classifier: gated attention (Ilse, Tomczak and Welling, Attention-based Deep Multiple Instance Learning, ICML 2018).
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.content, self.gate = nn.Linear(width, HIDDEN), nn.Linear(width, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1, bias=False)
        self.classify = nn.Linear(width, classes)

    def forward(self, images: Tensor, bag_of: Tensor, bags: int) -> Tensor:
        """(N, D) images and (N,) their bags -> (B, C) logits."""
        score = self.score(torch.tanh(self.content(images)) * torch.sigmoid(self.gate(images)))[:, 0]
        highest = torch.full((bags,), -torch.inf).scatter_reduce(0, bag_of, score, "amax")
        weight = torch.exp(score - highest[bag_of])
        weight = weight / torch.zeros(bags).index_add(0, bag_of, weight)[bag_of]
        pooled = torch.zeros(bags, images.shape[1]).index_add(0, bag_of, weight[:, None] * images)
        logits: Tensor = self.classify(pooled)
        return logits


def fit_attention(
    train: tuple[Array, Array, Array], validation: tuple[Array, Array, Array] | None, classes: int, seed: int
) -> AttentionPooling:
    """The network after the step with the lowest loss on ``validation``, or on ``train`` without it.

    Both are (N, D) float32 features, (N,) bags and (B,) classes. Full-batch AdamW on the CPU, so that a fit depends on
    data and seed alone.
    """
    judged = train if validation is None else validation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AttentionPooling(train[0].shape[1], classes)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    best, kept, since = np.inf, model.state_dict(), 0
    for _ in range(STEPS):
        optimizer.zero_grad()
        _loss(model, train).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            loss = float(_loss(model, judged))
        if loss < best:
            best, since = loss, 0
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        elif (since := since + 1) >= PATIENCE:
            break
    model.load_state_dict(kept)
    return model


def probabilities(model: AttentionPooling, features: Array, bag_of: Array, bags: int) -> Array:
    """(B, C) float64."""
    with torch.no_grad():
        logits = model(torch.from_numpy(features), torch.from_numpy(bag_of), bags)
        found: Array = logits.double().softmax(dim=1).numpy()
    return found


def _loss(model: AttentionPooling, part: tuple[Array, Array, Array]) -> Tensor:
    features, bag_of, labels = (torch.from_numpy(np.ascontiguousarray(array)) for array in part)
    return nn.functional.cross_entropy(model(features, bag_of, len(labels)), labels)
