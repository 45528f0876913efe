"""The aligners against scipy and scikit-learn, and what each promises."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA, TruncatedSVD
from torch import Tensor, nn

from kdkit.core.contracts import Aligner
from kdkit.core.plugin_system.discovery import load_catalogue
from tests.errors import raises_error

NAMES = ("autoencoder", "linear", "pca", "procrustes")
Rows = dict[str, Tensor]


def make(name: str, in_dim: int, out_dim: int, **options: Any) -> Aligner:
    return cast(Aligner, load_catalogue().make("aligner", name, in_dim=in_dim, out_dim=out_dim, **options))


def data(in_dim: int, out_dim: int, rows: int = 300, seed: int = 0) -> tuple[Rows, Rows]:
    """Features and an anchor that share a latent space of 6 dimensions."""
    g = torch.Generator().manual_seed(seed)
    to_feature, to_anchor = torch.randn(6, in_dim, generator=g), torch.randn(6, out_dim, generator=g)
    features, anchor = {}, {}
    for signal, shift in (("image", 0.5), ("text", -0.5)):
        latent = torch.randn(rows, 6, generator=g) + shift
        features[signal] = 3 * (latent @ to_feature + 0.1 * torch.randn(rows, in_dim, generator=g))
        anchor[signal] = latent @ to_anchor
    return features, anchor


def stacked(rows: Rows) -> np.ndarray[Any, Any]:
    return np.concatenate([unit(rows[name]).double().numpy() for name in sorted(rows)])


def unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x, dim=-1)


def cosines(rows: Rows) -> Tensor:
    return unit(rows["image"]) @ unit(rows["text"]).T


def encoded(aligner: Aligner, features: Rows) -> Rows:
    return {name: aligner.encode(name, x) for name, x in features.items()}


def test_procrustes_equals_scipy() -> None:
    features, anchor = data(6, 6)  # of full rank: otherwise the best rotation is not unique
    aligner = make("procrustes", 6, 6)
    aligner.fit(features, anchor)
    wanted, _ = orthogonal_procrustes(stacked(features), stacked(anchor))
    assert np.allclose(cast(nn.Module, aligner).get_buffer("encoder").numpy(), wanted, atol=1e-5)


def test_procrustes_finds_the_rotation_back() -> None:
    features, _ = data(8, 8)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1))).Q
    aligner = make("procrustes", 8, 8)
    aligner.fit(features, {name: x @ turn for name, x in features.items()})
    for name, x in features.items():
        assert torch.allclose(aligner.encode(name, x), unit(x) @ turn, atol=1e-5)


@pytest.mark.parametrize(("name", "out_dim"), [("procrustes", 8), ("procrustes", 13), ("pca", 8), ("pca", 13)])
def test_a_space_that_is_large_enough_keeps_every_cosine(name: str, out_dim: int) -> None:
    features, anchor = data(8, out_dim)
    aligner = make(name, 8, out_dim)
    aligner.fit(features, anchor)
    codes = encoded(aligner, features)
    assert codes["image"].shape == (300, out_dim)
    assert torch.allclose(cosines(codes), cosines(features), atol=1e-5)
    assert torch.allclose(aligner.decode("image", codes["image"]), unit(features["image"]), atol=1e-5)


def test_procrustes_into_a_smaller_space_has_orthonormal_columns_and_beats_others() -> None:
    features, anchor = data(12, 5)
    aligner = make("procrustes", 12, 5)
    aligner.fit(features, anchor)
    w = cast(nn.Module, aligner).get_buffer("encoder").double()
    assert torch.allclose(w.T @ w, torch.eye(5, dtype=torch.float64), atol=1e-5)
    x, a = torch.from_numpy(stacked(features)), torch.from_numpy(stacked(anchor))
    agreement = ((x @ w) * a).sum()
    g = torch.Generator().manual_seed(2)
    for _ in range(50):
        other = torch.linalg.qr(torch.randn(12, 5, generator=g, dtype=torch.float64)).Q
        assert agreement > ((x @ other) * a).sum()


@pytest.mark.parametrize("center", [True, False])
def test_pca_equals_scikit_learn(center: bool) -> None:
    features, _ = data(9, 4)
    aligner = make("pca", 9, 4, center=center)
    aligner.fit(features)
    x = stacked(features)
    theirs = PCA(4, svd_solver="full").fit(x) if center else TruncatedSVD(4, algorithm="arpack").fit(x)
    found = aligner.encode("image", features["image"]).numpy()
    wanted = theirs.transform(unit(features["image"]).double().numpy())
    assert np.allclose(np.abs(found), np.abs(wanted), atol=1e-5)
    assert np.allclose(
        np.abs(cast(nn.Module, aligner).get_buffer("decoder").numpy()), np.abs(theirs.components_), atol=1e-5
    )


def test_linear_is_least_squares() -> None:
    features, anchor = data(7, 5)
    aligner = make("linear", 7, 5, ridge=0.0)
    aligner.fit(features, anchor)
    wanted, *_ = np.linalg.lstsq(stacked(features), stacked(anchor), rcond=None)
    assert np.allclose(cast(nn.Module, aligner).get_buffer("encoder").numpy(), wanted, atol=1e-4)


def test_linear_gets_nearer_to_the_anchor_than_a_rotation() -> None:
    features, anchor = data(8, 8)
    distance = {}
    for name in ("linear", "procrustes"):
        aligner = make(name, 8, 8)
        aligner.fit(features, anchor)
        distance[name] = float((aligner.encode("image", features["image"]) - unit(anchor["image"])).square().sum())
    assert distance["linear"] < distance["procrustes"]


def test_autoencoder_learns_to_reconstruct_and_encodes_with_its_first_layer() -> None:
    features, _ = data(8, 10)
    aligner = make("autoencoder", 8, 10, hidden=64, epochs=25, batch_size=64)
    before = reconstruction(aligner, features)
    aligner.fit(features)
    assert reconstruction(aligner, features) > max(0.9, before)
    layer = cast(Any, aligner).project
    assert torch.allclose(aligner.encode("text", features["text"]), layer(unit(features["text"])))
    assert not any(p.requires_grad for p in cast(nn.Module, aligner).parameters())


def reconstruction(aligner: Aligner, features: Rows) -> float:
    x = features["image"]
    cast(nn.Module, aligner).eval()
    with torch.no_grad():
        return float(nn.functional.cosine_similarity(aligner.decode("image", aligner.encode("image", x)), x).mean())


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_results_and_keep_global_state(name: str) -> None:
    features, anchor = data(6, 7, rows=64)
    options = {"epochs": 2} if name == "autoencoder" else {}
    states = []
    for _ in range(2):
        torch.rand(3)
        aligner = make(name, 6, 7, **options)
        before = torch.get_rng_state()
        aligner.fit(features, anchor, seed=5)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(cast(nn.Module, aligner).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_state_dict_is_complete_and_row_lengths_have_no_effect(name: str) -> None:
    features, anchor = data(6, 4, rows=64)
    options = {"epochs": 2} if name == "autoencoder" else {}
    first, second = make(name, 6, 4, **options), make(name, 6, 4, **options)
    first.fit(features, anchor)
    cast(nn.Module, second).load_state_dict(cast(nn.Module, first).state_dict())
    cast(nn.Module, second).eval()
    x = features["text"]
    assert torch.equal(first.encode("text", x), second.encode("text", x))
    assert torch.equal(first.decode("text", first.encode("text", x)), second.decode("text", second.encode("text", x)))
    assert torch.allclose(first.encode("text", 7 * x), first.encode("text", x), atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "procrustes"])
def test_a_missing_anchor_is_an_error(name: str) -> None:
    with raises_error("KD-ALIGN-001"):
        make(name, 4, 4).fit(data(4, 4)[0])
