"""The common anchor, aligners fitted on it (also for a teacher that comes later), and the judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from kdkit.core.distill.alignment.anchor import Paired, consensus, mean_of
from kdkit.core.distill.alignment.judge import judge_aligner, ranking_kept, same_minus_different
from kdkit.core.distill.alignment.shared import encoded, fit_aligners, pair
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.recipe import NamedPart
from tests.errors import raises_error

SAMPLES = 240
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Held:
    """A teacher with its features in memory."""

    name: str
    features: Mapping[str, Array]
    rows: Array

    @property
    def widths(self) -> dict[str, int]:
        return {signal: x.shape[1] for signal, x in self.features.items()}

    def gather(self, signal: str, rows: Array) -> Array:
        return self.features[signal][rows]


def world(widths: Mapping[str, int], noise: float = 0.05, seed: int = 0) -> list[Held]:
    """Teachers that see one latent world of 5 dimensions, each through its own rotation into its own width."""
    rng = np.random.default_rng(seed)
    latent = {"image": rng.normal(size=(SAMPLES, 5)) + 0.3, "text": rng.normal(size=(SAMPLES, 5)) - 0.3}
    latent["text"] = 0.7 * latent["image"] + 0.3 * latent["text"]
    held = []
    for name, width in widths.items():
        axes = np.linalg.qr(rng.normal(size=(width, width)))[0][:5]
        features = {s: x @ axes + noise * rng.normal(size=(SAMPLES, width)) for s, x in latent.items()}
        held.append(Held(name, {s: x.astype(np.float16) for s, x in features.items()}, np.arange(SAMPLES)))
    return held


def without(teacher: Held, missing: Array) -> Held:
    rows = teacher.rows.copy()
    rows[missing] = -1
    return Held(teacher.name, teacher.features, rows)


def align(teachers: list[Held], name: str = "procrustes", dim: int = 8, **more: Any) -> dict[str, nn.Module]:
    return fit_aligners(
        load_catalogue(),
        NamedPart(name=name),
        teachers,
        {"image": dim, "text": dim},
        samples=np.arange(SAMPLES),
        **more,
    )


def gap(teachers: list[Held], aligners: Mapping[str, nn.Module], one: str, other: str) -> float:
    codes = {t.name: encoded(aligners[t.name], pair(t, np.arange(SAMPLES))) for t in teachers}
    return same_minus_different(codes[one].features["image"], codes[other].features["image"])


def test_consensus_brings_rotated_copies_of_one_world_together() -> None:
    teachers = world({"a": 8, "b": 8, "c": 12, "d": 6})
    paired = {t.name: pair(t, np.arange(SAMPLES)) for t in teachers}
    anchor = consensus(paired, SAMPLES, 8)
    assert anchor["image"].shape == (SAMPLES, 8)
    assert torch.allclose(anchor["text"].norm(dim=-1), torch.ones(SAMPLES), atol=1e-5)
    wanted = same_minus_different(anchor["image"], anchor["image"])
    aligners = align(teachers)
    for one, other in (("a", "b"), ("a", "c"), ("c", "d")):
        assert gap(teachers, aligners, one, other) == pytest.approx(wanted, rel=0.05)


def test_what_does_not_look_at_the_anchor_leaves_teachers_apart() -> None:
    """The paper's autoencoder reconstructs well and aligns nothing; the rotation does both."""
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


def test_samples_that_only_some_teachers_have() -> None:
    rng = np.random.default_rng(1)
    teachers = [without(t, rng.choice(SAMPLES, 100, replace=False)) for t in world({"a": 8, "b": 8, "c": 8})]
    paired = {t.name: pair(t, np.arange(SAMPLES)) for t in teachers}
    anchor = consensus(paired, SAMPLES, 8)
    nobody = np.all([t.rows < 0 for t in teachers], axis=0)
    assert nobody.any()
    assert torch.equal(anchor["image"].any(-1), torch.from_numpy(~nobody))
    complete = world({"a": 8, "b": 8, "c": 8})
    assert gap(complete, align(teachers), "a", "b") == pytest.approx(gap(complete, align(complete), "a", "b"), rel=0.02)


def test_a_later_teacher_comes_into_the_space_that_is_there() -> None:
    *old, new = world({"a": 8, "b": 10, "late": 7})
    first = align(old)
    kept = {name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in first.items()}
    second = align([*old, new], fixed=first)
    for name, state in kept.items():
        assert second[name] is first[name]
        assert all(torch.equal(state[key], value) for key, value in second[name].state_dict().items())
    assert gap([*old, new], second, "late", "a") == pytest.approx(gap([*old, new], second, "b", "a"), rel=0.05)


def test_only_the_samples_that_are_given_are_fitted_on() -> None:
    teachers = world({"a": 8, "b": 8})
    used = np.arange(0, SAMPLES, 2)
    spoilt = []
    for t in teachers:
        features = {s: x.copy() for s, x in t.features.items()}
        for x in features.values():
            x[1::2] = np.nan
        spoilt.append(Held(t.name, features, t.rows))
    outputs = {"image": 8, "text": 8}
    part = NamedPart(name="procrustes")
    clean = fit_aligners(load_catalogue(), part, teachers, outputs, samples=used)
    dirty = fit_aligners(load_catalogue(), part, spoilt, outputs, samples=used)
    assert torch.equal(clean["b"].get_buffer("encoder"), dirty["b"].get_buffer("encoder"))


def test_a_teacher_with_nothing_in_common_keeps_its_own_geometry() -> None:
    first, second = world({"a": 8, "b": 8})
    half = np.arange(SAMPLES) < SAMPLES // 2
    for fixed in (None, align([without(first, half)])):
        apart = without(second, ~half)
        aligner = align([without(first, half), apart], fixed=fixed)["b"]
        mine = torch.nn.functional.normalize(torch.tensor(second.features["image"][half], dtype=torch.float32), dim=-1)
        code = encoded(aligner, pair(apart, np.arange(SAMPLES))).features["image"]
        torch.testing.assert_close(code @ code.T, mine @ mine.T, atol=1e-4, rtol=1e-4)


def test_a_teacher_without_any_sample_is_named() -> None:
    first, second = world({"a": 8, "b": 8})
    with raises_error("KD-DIST-005", mentions=("'b'",)):
        align([first, without(second, np.ones(SAMPLES, dtype=bool))])


def test_signals_of_different_widths_are_refused() -> None:
    (teacher,) = world({"a": 8})
    lame = Held("lame", {"image": teacher.features["image"], "text": teacher.features["text"][:, :5]}, teacher.rows)
    with raises_error("KD-DIST-006", mentions=("'lame'",)):
        align([lame])


def test_mean_of_is_a_direction() -> None:
    rows = torch.tensor([0, 2])
    one = Paired(rows, {"image": torch.tensor([[2.0, 0.0], [0.0, 1.0]])})
    two = Paired(torch.tensor([0]), {"image": torch.tensor([[0.0, 5.0]])})
    found = mean_of({"one": one, "two": two}, 3)["image"]
    assert torch.allclose(found, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 0.0], [0.0, 1.0]]))


# ------------------------------------------------------------------------------------------- the judge


def rows(count: int, width: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, width, generator=g) for name in ("image", "text")}


def test_ranking_is_scipys_spearman_over_distinct_texts() -> None:
    before, after = rows(20, 6, 0), rows(20, 4, 1)
    for space in (before, after):
        space["text"][7] = space["text"][3]  # a caption that occurs twice
    distinct = [i for i in range(20) if i != 7]
    unit = nn.functional.normalize
    first, second = (unit(s["image"]) @ unit(s["text"][distinct]).T for s in (before, after))
    wanted = [spearmanr(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    ranking, top1 = ranking_kept(before, after)
    assert ranking == pytest.approx(float(np.mean(wanted)), abs=1e-6)
    assert top1 == pytest.approx(float((first.argmax(1) == second.argmax(1)).float().mean()))


def test_gap_of_loops() -> None:
    a, b = rows(9, 5, 2)["image"], rows(9, 5, 3)["image"]
    cosine = [[float(nn.functional.cosine_similarity(x, y, dim=0)) for y in b] for x in a]
    same = np.mean([cosine[i][i] for i in range(9)])
    different = np.mean([cosine[i][j] for i in range(9) for j in range(9) if i != j])
    assert same_minus_different(a, b) == pytest.approx(float(same - different), abs=1e-6)


class Identity(nn.Module):
    """Keeps everything; ``shuffle`` reorders the dimensions of the text's codes, which loses no information."""

    def __init__(self, shuffle: Tensor | None = None) -> None:
        super().__init__()
        self.shuffle = shuffle

    def encode(self, name: str, x: Tensor) -> Tensor:
        return x if self.shuffle is None or name == "image" else x[:, self.shuffle]

    def decode(self, name: str, z: Tensor) -> Tensor:
        return z if self.shuffle is None or name == "image" else z[:, self.shuffle.argsort()]


def test_perfect_reconstruction_can_have_lost_every_ranking() -> None:
    features = rows(200, 16, 4)
    keeps = judge_aligner(Identity(), features, [features], name="keeps", teacher="t")
    loses = judge_aligner(Identity(torch.arange(16).roll(5)), features)
    assert keeps.reconstruction == pytest.approx(1)
    assert loses.reconstruction == pytest.approx(1)
    assert keeps.ranking == pytest.approx(1)
    assert keeps.top1 == 1
    assert keeps.gap is not None
    assert keeps.gap > 0.9
    assert loses.ranking is not None
    assert abs(loses.ranking) < 0.2
    assert loses.gap is None


def test_a_teacher_without_text_has_no_ranking() -> None:
    report = judge_aligner(Identity(), {"image": rows(9, 4, 0)["image"]})
    assert report.ranking is None
    assert report.top1 is None
