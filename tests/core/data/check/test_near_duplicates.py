"""Copies and similar pictures across splits."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy.fft import dctn, idctn

from kdkit.core.data.check import check_data, near_duplicates
from kdkit.core.data.check.examined import examine
from kdkit.core.data.check.near_duplicates import MIRRORS, find_near
from kdkit.core.data.image_facts import LOW, ORDER, SIDE, perceptual_hash
from tests.core.data.projects import make_project, row


def picture(seed: int, size: int = 160) -> Image.Image:
    """A random picture with the spectrum of natural ones: amplitude falls with the frequency."""
    frequency = np.add.outer(np.arange(40), np.arange(40)) + 1.0
    spectrum = np.random.default_rng(seed).normal(size=(40, 40)) / frequency
    gray = idctn(spectrum, s=(size, size))
    return Image.fromarray(np.uint8(255 * (gray - gray.min()) / np.ptp(gray))).convert("RGB")


def jpeg(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=50)
    return Image.open(stream).convert("RGB")


def test_the_hash_is_the_signs_of_the_cosine_transform() -> None:
    image = picture(0)
    gray = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    signs = (dctn(gray)[:LOW, :LOW] > 0).ravel()[ORDER]
    bits, contrast = perceptual_hash(image)
    unpacked = np.unpackbits(bits.view(np.uint8), bitorder="little").astype(bool)
    assert not unpacked[0]  # the mean says nothing
    assert (unpacked[1:] != signs[1:]).sum() <= 2  # of which rounding may decide
    assert contrast == pytest.approx(gray.std(), rel=1e-5)


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("same", jpeg),
        ("same", lambda image: image.resize((80, 80), Image.Resampling.BICUBIC)),
        ("same", lambda image: ImageEnhance.Brightness(image).enhance(0.8)),
        ("mirrored", ImageOps.mirror),
        ("upside down", ImageOps.flip),
        ("turned by 180 degrees", lambda image: ImageOps.flip(ImageOps.mirror(jpeg(image)))),
    ],
)
def test_copies_are_near_and_how_they_are_turned_is_known(
    how: str, change: Callable[[Image.Image], Image.Image]
) -> None:
    images = [picture(1), change(picture(1)), *(picture(seed) for seed in range(2, 12))]
    hashes = np.stack([perceptual_hash(image)[0] for image in images])
    kinds = np.arange(len(images)) % 2
    near = {name: find_near(hashes, kinds, mask, 24)[0].tolist() for name, mask in MIRRORS.items()}
    assert near == {name: [[0, 1]] if name == how else [] for name in MIRRORS}


def test_pairs_are_those_of_a_comparison_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "BLOCK", 50)  # many blocks
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 1 << 16, size=(40, 16), dtype=np.uint16)
    flips = np.packbits(rng.random((200, 256)) < 0.02, axis=1).view(np.uint16)
    hashes, kinds = centers[rng.integers(0, 40, 200)] ^ flips, rng.integers(0, 3, 200)
    mask = MIRRORS["mirrored"]
    for reversed_bits in (mask, np.zeros_like(mask)):
        turned = hashes ^ (reversed_bits * (np.arange(200) % 2)[:, None]).astype(np.uint16)
        pairs, distances = find_near(turned, kinds, reversed_bits, 12)
        expected = {}
        for i, j in combinations(range(200), 2):
            distance = sum(bin(word).count("1") for word in (turned[i] ^ turned[j] ^ reversed_bits).tolist())
            if kinds[i] != kinds[j] and distance <= 12:  # at most 12 of 16 words differ, so one is equal
                expected[i, j] = distance
        assert dict(zip(map(tuple, pairs.tolist()), distances.tolist(), strict=True)) == expected
        assert len(expected) > 50


def test_copies_across_splits_are_a_problem_and_similar_pictures_a_note(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i in range(6):
        picture(i).save(data / f"{i}.png")
    ImageOps.mirror(picture(0)).save(data / "6.jpg", quality=60)
    ImageOps.crop(picture(1), 3).save(data / "7.png")  # shifted and enlarged: similar
    for i in (8, 9):
        Image.new("RGB", (40, 40), (i, i, i)).save(data / f"{i}.png")  # of one color
    rows = [row(i, split="train", image=f"{i}.{'jpg' if i == 6 else 'png'}") for i in range(9)]
    rows += [row(i, split="calibration", image=f"{i}.png") for i in (9,)]
    project = make_project(tmp_path, [{**one, "split": "test"} if one["id"] in ("s6", "s7") else one for one in rows])
    report = check_data(project)
    (copy,) = report.items("near-duplicates", "problem")
    assert (copy.ids, copy.splits, copy.how) == (("s0", "s6"), ("train", "test"), "mirrored")
    (similar,) = report.items("near-duplicates", "note")
    assert similar.ids == ("s1", "s7")
    assert copy.distance <= 24 < similar.distance <= 40
    assert any("near-duplicate" in line and "s6" in line for line in report.problems)
    assert {"s8", "s9"} <= set(report.items("sizes"))
    strict = check_data(project, near_duplicates=similar.distance)
    assert {one.ids for one in strict.items("near-duplicates", "problem")} == {copy.ids, similar.ids}
    off = check_data(project, near_duplicates=-1)
    assert list(off.not_looked_at) == ["near-duplicates"]
    assert off.to_json()["complete"] is False


def hash_with(*words: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.array([*words, *[0] * (16 - len(words))], dtype=np.uint16)


def test_pictures_that_are_alike_anyway_are_no_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pairs of one picture with others: few are near, more are less near; in the other domain all are near."""
    data = tmp_path / "data"
    data.mkdir()
    distances = {"alike": [20] * 1 + [28] * 3 + [36] * 6, "copied": [20] * 2 + [28] * 1}
    rows: list[dict[str, Any]] = []
    bits: list[np.ndarray[Any, np.dtype[np.uint16]]] = []
    for domain, others in distances.items():
        mark = 0 if domain == "alike" else 0xFFFF
        for distance in (0, *others):
            number = len(rows)
            picture(number, size=48).save(data / f"{number}.png")
            rows.append(row(number, split="test" if distance else "train", domain=domain, image=f"{number}.png"))
            flipped = np.zeros(256, dtype=bool)
            flipped[16 + np.random.default_rng(number).choice(64, distance, replace=False)] = True  # the first is equal
            own = hash_with(*[mark] * 16) if mark else hash_with()
            bits.append(own ^ np.packbits(flipped, bitorder="little").view("<u2"))
    project = make_project(tmp_path, rows)
    monkeypatch.setattr(near_duplicates, "MIRRORS", {"same": MIRRORS["same"]})
    examined = examine(project)
    examined.images.facts["hash"][examined.pairs[:, 1]] = [bits[row] for row in examined.pairs[:, 0]]
    note, problem, similar = near_duplicates.check_near_duplicates(examined)
    assert (note.level, note.items) == ("note", ())
    assert "alike (1 pairs within 24 bits)" in note.text
    assert {one.distance for one in problem.items} == {20}
    assert {one.ids[0] for one in problem.items} == {"s11"}
    assert len(similar.items) == 11


def test_a_picture_that_many_samples_share_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen, find = tmp_path / "data", list[int](), near_duplicates.find_near
    data.mkdir()
    rows = [row(i, split=("train", "test")[i % 2], image=f"{i}.bmp") for i in range(12)]
    for one in rows[:10]:
        picture(0, size=48).save(data / one["image"])
    for one in rows[10:]:
        jpeg(picture(0, size=48)).save(data / one["image"])

    def counted(hashes: Any, *options: Any) -> Any:
        seen.append(len(hashes))
        return find(hashes, *options)

    monkeypatch.setattr(near_duplicates, "find_near", counted)
    report = check_data(make_project(tmp_path, rows))
    assert set(seen) == {4}  # two pictures in two splits
    assert {one.ids for one in report.items("near-duplicates", "problem")} == {("s0", "s11"), ("s1", "s10")}


def test_pairs_of_one_split_are_no_leak(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i in range(2):
        picture(0, size=160 - 16 * i).save(data / f"{i}.png")
    report = check_data(make_project(tmp_path, [row(i, split="test", label=None) for i in range(2)]))
    assert report.items("near-duplicates") == ()
