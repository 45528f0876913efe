"""The autoencoder of MMKD-CLIP (arXiv 2506.22567; ``models_ae.py`` of the released code)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Linear map to the common width, an MLP encoder and decoder per signal, linear map back.

    Trained to reconstruct; then ``encode`` is the *first linear map alone*, as released. Its loss neither aligns
    teachers nor keeps their similarities. The released code trains the MLPs for all teachers at once. Here every
    teacher has its own, so that teachers can be added later (the linear maps are per teacher there too).

    Args:
        in_dim: the teacher's width.
        out_dim: the student's.
        hidden: width of the MLPs; None for ``out_dim``. Not published, like the next three.
        epochs, batch_size, lr: of Adam.
        dropout, noise: as released; noise is the standard deviation at the MLP's input.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden: int | None = None,
        epochs: int = 20,
        batch_size: int = 256,
        lr: float = 1e-3,
        dropout: float = 0.2,
        noise: float = 0.01,
    ) -> None:
        super().__init__()
        width = hidden or out_dim
        self.epochs, self.batch_size, self.lr, self.noise = epochs, batch_size, lr, noise
        self.project = nn.Linear(in_dim, out_dim)
        self.restore = nn.Linear(out_dim, in_dim)
        self.encoders = nn.ModuleDict({name: _encoder(out_dim, width, dropout) for name in ("image", "text")})
        self.decoders = nn.ModuleDict({name: _decoder(out_dim, width) for name in ("image", "text")})

    def fit(
        self,
        features: Mapping[str, Tensor],
        anchor: Mapping[str, Tensor] | None = None,  # noqa: ARG002 (contract)
        *,
        seed: int = 0,
    ) -> None:
        """Reset and train on the mean squared error of unit rows (N, in_dim). ``anchor`` is ignored."""
        rows = {name: F.normalize(x.float(), dim=-1) for name, x in features.items()}
        count = len(next(iter(rows.values())))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()
            optimizer = torch.optim.Adam(self.requires_grad_(True).train().parameters(), lr=self.lr)
            for _ in range(self.epochs):
                for chosen in torch.split(torch.randperm(count), self.batch_size):
                    batch = {name: x[chosen] for name, x in rows.items()}
                    errors = [F.mse_loss(self._reconstruct(name, x), x) for name, x in batch.items()]
                    optimizer.zero_grad()
                    torch.autograd.backward(torch.stack(errors).mean())
                    optimizer.step()
        self.requires_grad_(False).eval()

    def encode(self, name: str, x: Tensor) -> Tensor:  # noqa: ARG002 (the same for every signal)
        """(B, in_dim) of any length -> (B, out_dim)."""
        z: Tensor = self.project(F.normalize(x, dim=-1))
        return z

    def decode(self, name: str, z: Tensor) -> Tensor:
        """(B, out_dim) -> (B, in_dim)."""
        if self.training and self.noise:
            z = z + self.noise * torch.randn_like(z)
        x: Tensor = self.restore(self.decoders[name](self.encoders[name](z)))
        return x

    def _reconstruct(self, name: str, x: Tensor) -> Tensor:
        return self.decode(name, self.project(x))


def _encoder(width: int, hidden: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


def _decoder(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width))
