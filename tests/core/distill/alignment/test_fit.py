"""The consensus of teachers, and aligners fitted on it, also for a later teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kdkit.core.distill.alignment.compare import same_minus_different
from kdkit.core.distill.alignment.fit import PairedFeatures, consensus, encode, fit_aligners, mean_of, pair_features
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.recipe import NamedPart
from tests.errors import raises_error

SAMPLES = 240
Array = np.ndarray[Any, Any]


def held(name: str, features: Mapping[str, Array], rows: Array) -> TeacherTargets:
    """A teacher with its features in memory."""
    return TeacherTargets(
        name=name,
        widths={signal: x.shape[1] for signal, x in features.items()},
        rows=rows,
        weight=(rows >= 0).astype(np.float32),
        gather=lambda signal, rows: features[signal][rows],
    )


def features_of(teacher: TeacherTargets) -> dict[str, Array]:
    return {signal: teacher.gather(signal, np.arange(SAMPLES)) for signal in teacher.widths}


def world(widths: Mapping[str, int], noise: float = 0.05, seed: int = 0) -> list[TeacherTargets]:
    """Teachers with rotated copies of one latent world of 5 dimensions, each of its own width."""
    rng = np.random.default_rng(seed)
    latent = {"image": rng.normal(size=(SAMPLES, 5)) + 0.3, "text": rng.normal(size=(SAMPLES, 5)) - 0.3}
    latent["text"] = 0.7 * latent["image"] + 0.3 * latent["text"]
    teachers = []
    for name, width in widths.items():
        axes = np.linalg.qr(rng.normal(size=(width, width)))[0][:5]
        features = {s: x @ axes + noise * rng.normal(size=(SAMPLES, width)) for s, x in latent.items()}
        teachers.append(held(name, {s: x.astype(np.float16) for s, x in features.items()}, np.arange(SAMPLES)))
    return teachers


def without(teacher: TeacherTargets, missing: Array) -> TeacherTargets:
    rows = teacher.rows.copy()
    rows[missing] = -1
    return replace(teacher, rows=rows)


def align(teachers: list[TeacherTargets], name: str = "procrustes", dim: int = 8, **more: Any) -> dict[str, nn.Module]:
    return fit_aligners(
        load_catalogue(),
        NamedPart(name=name),
        teachers,
        {"image": dim, "text": dim},
        samples=np.arange(SAMPLES),
        **more,
    )


def gap(teachers: list[TeacherTargets], aligners: Mapping[str, nn.Module], one: str, other: str) -> float:
    codes = {t.name: encode(aligners[t.name], pair_features(t, np.arange(SAMPLES))) for t in teachers}
    return same_minus_different(codes[one].features["image"], codes[other].features["image"])


def test_consensus_aligns_rotated_copies_of_one_world() -> None:
    teachers = world({"a": 8, "b": 8, "c": 12, "d": 6})
    paired = {t.name: pair_features(t, np.arange(SAMPLES)) for t in teachers}
    anchor = consensus(paired, SAMPLES, 8)
    assert anchor["image"].shape == (SAMPLES, 8)
    assert torch.allclose(anchor["text"].norm(dim=-1), torch.ones(SAMPLES), atol=1e-5)
    wanted = same_minus_different(anchor["image"], anchor["image"])
    aligners = align(teachers)
    for one, other in (("a", "b"), ("a", "c"), ("c", "d")):
        assert gap(teachers, aligners, one, other) == pytest.approx(wanted, rel=0.05)


def test_aligners_that_ignore_the_consensus_do_not_align_teachers() -> None:
    """The autoencoder of the paper reconstructs well and aligns nothing; the rotation does both."""
    teachers = world({"a": 8, "b": 8})
    catalogue = load_catalogue()
    autoencoder = fit_aligners(
        catalogue,
        NamedPart(name="autoencoder", options={"epochs": 40, "batch_size": 64}),
        teachers,
        {"image": 8, "text": 8},
        samples=np.arange(SAMPLES),
    )
    rotation = align(teachers)
    assert abs(gap(teachers, autoencoder, "a", "b")) < 0.5 * gap(teachers, rotation, "a", "b")


def test_teachers_may_lack_samples() -> None:
    rng = np.random.default_rng(1)
    teachers = [without(t, rng.choice(SAMPLES, 100, replace=False)) for t in world({"a": 8, "b": 8, "c": 8})]
    paired = {t.name: pair_features(t, np.arange(SAMPLES)) for t in teachers}
    anchor = consensus(paired, SAMPLES, 8)
    missing = np.all([t.rows < 0 for t in teachers], axis=0)
    assert missing.any()
    assert torch.equal(anchor["image"].any(-1), torch.from_numpy(~missing))
    complete = world({"a": 8, "b": 8, "c": 8})
    assert gap(complete, align(teachers), "a", "b") == pytest.approx(gap(complete, align(complete), "a", "b"), rel=0.02)


def test_later_teachers_are_aligned_to_the_existing_space() -> None:
    *old, new = world({"a": 8, "b": 10, "late": 7})
    first = align(old)
    kept = {name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in first.items()}
    second = align([*old, new], fixed=first)
    for name, state in kept.items():
        assert second[name] is first[name]
        assert all(torch.equal(state[key], value) for key, value in second[name].state_dict().items())
    assert gap([*old, new], second, "late", "a") == pytest.approx(gap([*old, new], second, "b", "a"), rel=0.05)


def test_only_the_given_samples_are_fitted_on() -> None:
    teachers = world({"a": 8, "b": 8})
    used = np.arange(0, SAMPLES, 2)
    spoiled = []
    for t in teachers:
        features = {s: x.copy() for s, x in features_of(t).items()}
        for x in features.values():
            x[1::2] = np.nan
        spoiled.append(held(t.name, features, t.rows))
    outputs = {"image": 8, "text": 8}
    part = NamedPart(name="procrustes")
    clean = fit_aligners(load_catalogue(), part, teachers, outputs, samples=used)
    dirty = fit_aligners(load_catalogue(), part, spoiled, outputs, samples=used)
    assert torch.equal(clean["b"].get_buffer("encoder"), dirty["b"].get_buffer("encoder"))


def test_a_teacher_without_common_samples_keeps_its_geometry() -> None:
    first, second = world({"a": 8, "b": 8})
    half = np.arange(SAMPLES) < SAMPLES // 2
    for fixed in (None, align([without(first, half)])):
        apart = without(second, ~half)
        aligner = align([without(first, half), apart], fixed=fixed)["b"]
        mine = torch.nn.functional.normalize(
            torch.tensor(features_of(second)["image"][half], dtype=torch.float32), dim=-1
        )
        code = encode(aligner, pair_features(apart, np.arange(SAMPLES))).features["image"]
        torch.testing.assert_close(code @ code.T, mine @ mine.T, atol=1e-4, rtol=1e-4)


def test_a_teacher_without_samples_is_an_error() -> None:
    first, second = world({"a": 8, "b": 8})
    with raises_error("KD-DIST-005", mentions=("'b'",)):
        align([first, without(second, np.ones(SAMPLES, dtype=bool))])


def test_signals_of_different_widths_are_an_error() -> None:
    (teacher,) = world({"a": 8})
    features = features_of(teacher)
    uneven = held("uneven", {"image": features["image"], "text": features["text"][:, :5]}, teacher.rows)
    with raises_error("KD-DIST-006", mentions=("'uneven'",)):
        align([uneven])


def test_mean_is_normalized() -> None:
    rows = torch.tensor([0, 2])
    one = PairedFeatures(rows, {"image": torch.tensor([[2.0, 0.0], [0.0, 1.0]])})
    two = PairedFeatures(torch.tensor([0]), {"image": torch.tensor([[0.0, 5.0]])})
    found = mean_of({"one": one, "two": two}, 3)["image"]
    assert torch.allclose(found, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 0.0], [0.0, 1.0]]))
