"""Target normalization against scipy, closed forms, and what each kind promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from kdkit.core.distill.model.target_norm import STD_FLOOR, Moments, TargetNorm, equalizer, fit_norms
from kdkit.core.project.recipe import Normalize
from tests.errors import raises_error

Array = np.ndarray[Any, Any]
WIDTHS = (1, 2, 3, 7, 8, 12, 16, 33)


def features(dim: int, rows: int = 400, seed: int = 0) -> Array:
    """Correlated, far from the origin, of very unequal spread."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dim, dim)) * np.geomspace(1, 30, dim)
    return np.asarray(rng.normal(size=(rows, dim)) @ mix + 50 * rng.normal(size=dim))


def fitted(dim: int, kind: Normalize, x: Array) -> TargetNorm:
    norm = TargetNorm(dim, kind)
    fit_norms({"image": norm}, [{"image": x}])
    return norm


def applied(norm: TargetNorm, x: Array) -> Array:
    return np.asarray(norm.double()(torch.from_numpy(x)))


@pytest.mark.parametrize("dim", [1, 2, 8, 64])
def test_powers_of_two_use_the_hadamard_matrix(dim: int) -> None:
    assert np.allclose(equalizer(np.arange(dim, dtype=float)), hadamard(dim) / np.sqrt(dim))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=40))
def test_equalizer_is_orthogonal_and_equalizes(variances: list[float]) -> None:
    lam = np.array(variances)
    h = equalizer(lam)
    assert np.allclose(h @ h.T, np.eye(len(lam)), atol=1e-9)
    assert np.allclose(np.diag(h @ np.diag(lam) @ h.T), lam.mean(), atol=1e-9 * (1 + lam.max()))


@pytest.mark.parametrize("dim", WIDTHS)
def test_phi_s_gives_every_dimension_mean_0_and_variance_1_and_keeps_distances(dim: int) -> None:
    x = features(dim)
    norm = fitted(dim, "phi-s", x)
    y = applied(norm, x)
    assert np.allclose(y.mean(0), 0, atol=1e-4)
    assert np.allclose(y.var(0, ddof=1), 1, rtol=1e-4)
    phi = np.sqrt(np.trace(np.atleast_2d(np.cov(x.T))) / dim)
    before = np.linalg.norm(x[:50, None] - x[None, :50], axis=-1)
    after = np.linalg.norm(y[:50, None] - y[None, :50], axis=-1)
    assert np.allclose(after, before / phi, atol=1e-3)


def test_phi_s_is_the_formula_of_the_paper() -> None:
    """phi^-1 H U' (y - mu), up to the sign of each eigenvector."""
    x = features(8)
    lam, u = np.linalg.eigh(np.cov(x.T))
    wanted = hadamard(8) / np.sqrt(8) @ u.T / np.sqrt(lam.mean())
    found = np.asarray(fitted(8, "phi-s", x).get_buffer("matrix"))
    h = hadamard(8) / np.sqrt(8)
    assert np.allclose(np.abs(h.T @ found), np.abs(h.T @ wanted), atol=1e-5)


def test_standardize_and_unit_and_none() -> None:
    x = features(6)
    assert np.allclose(applied(fitted(6, "standardize", x), x), (x - x.mean(0)) / x.std(0, ddof=1), atol=1e-4)
    assert np.allclose(applied(fitted(6, "unit", x), x), x / np.linalg.norm(x, axis=1, keepdims=True))
    assert np.array_equal(applied(fitted(6, "none", x), x), x)


def test_a_constant_dimension_is_not_blown_up() -> None:
    x = features(4)
    x[:, 2] = 7 + 1e-9 * np.arange(len(x))
    norm = fitted(4, "standardize", x)
    assert np.abs(applied(norm, x)[:, 2]).max() < 1e-3
    rms = np.sqrt(x.var(0, ddof=1).mean())
    assert float(norm.get_buffer("std")[2]) == pytest.approx(STD_FLOOR * rms, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=5), full=st.booleans())
def test_chunks_do_not_matter(cuts: list[int], full: bool) -> None:
    x = features(5, rows=60) + 1e6  # a naive sum of squares would lose all digits here
    moments = Moments(5, full=full)
    for chunk in np.split(x, sorted(cuts)):
        moments.add(chunk)
    mean, scatter = moments.compute()
    assert np.allclose(mean, x.mean(0), rtol=1e-12)
    wanted = np.cov(x.T) if full else x.var(0, ddof=1)
    assert np.allclose(scatter, wanted, rtol=1e-7)


def test_the_state_dict_is_all_of_it() -> None:
    x = features(12)
    for kind in ("standardize", "phi-s"):
        norm = fitted(12, kind, x)
        again = TargetNorm(12, kind)
        again.load_state_dict(norm.state_dict())
        y = torch.from_numpy(x).float()
        assert torch.equal(norm(y), again(y))
    assert not list(TargetNorm(12, "unit").state_dict())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_an_error(bad: float) -> None:
    x = features(3)
    x[5, 1] = bad
    with raises_error("KD-DIST-028"):
        fitted(3, "phi-s", x)


def test_too_little_to_fit_on_is_an_error() -> None:
    with raises_error("KD-DIST-029"):
        fitted(3, "standardize", features(3)[:1])
    with raises_error("KD-DIST-027"):
        fitted(3, "phi-s", np.ones((9, 3)))
