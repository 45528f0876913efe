"""The demo world: pictures, captions and the data set on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdkit.plugins.demo.captions import all_texts, class_prompts, prompt_templates, word_list
from kdkit.plugins.demo.dataset import write_dataset
from kdkit.plugins.demo.images import DOMAINS, FINDINGS, SIZE, render

PAIRS = [(domain, finding) for domain in DOMAINS for finding in FINDINGS[domain]]


@pytest.mark.parametrize(("domain", "finding"), PAIRS)
def test_pictures_are_a_function_of_the_seed_and_vary(domain: str, finding: str) -> None:
    once, again = (render(domain, finding, np.random.default_rng(3), 4) for _ in range(2))
    assert once.shape == (4, SIZE, SIZE, 3)
    assert once.dtype == np.uint8
    assert np.array_equal(once, again)
    assert len({picture.tobytes() for picture in once}) == 4


def test_a_finding_of_another_domain_is_refused() -> None:
    with pytest.raises(ValueError, match="no finding 'polyp' in domain 'ct'"):
        render("ct", "polyp", np.random.default_rng(0), 1)


def test_labels_are_unique_across_domains() -> None:
    assert len({finding for _, finding in PAIRS}) == len(PAIRS)


def test_prompts_name_their_label_and_use_known_words() -> None:
    words = set(word_list())
    for domain in DOMAINS:
        assert all("{label}" in template for template in prompt_templates(domain))
        for label, prompts in class_prompts(domain).items():
            assert all(label in prompt for prompt in prompts)
            assert words.issuperset(" ".join(prompts).split())


def test_texts_fit_the_context() -> None:
    assert max(len(text.split()) for text in all_texts()) <= 14


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    parts = [path.relative_to(folder).as_posix().encode() + path.read_bytes() for path in files]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_data_set_is_complete_and_reproducible(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(tmp_path / name, seed=5, train=11, calibration=4, test=6, domains=["oct", "ct"])
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    rows = [json.loads(line) for line in (tmp_path / "one" / "samples.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == 2 * (11 + 4 + 6)
    assert all(Image.open(tmp_path / "one" / row["image"]).size == (SIZE, SIZE) for row in rows)
    assert all(row["label"] in FINDINGS[row["domain"]] for row in rows)
    assert all(row["label"] in row["text"] for row in rows if row["split"] != "train")


def test_train_captions_are_half_generic_and_sometimes_wrong(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", seed=1, train=600, calibration=0, test=0, domains=["mri"])
    rows = [json.loads(line) for line in (tmp_path / "data" / "samples.jsonl").read_text().splitlines()]
    generic = sum(not any(label in row["text"] for label in FINDINGS["mri"]) for row in rows)
    right = sum(row["label"] in row["text"] for row in rows)
    assert 0.43 < generic / 600 < 0.57
    assert 0.05 < (600 - generic - right) / 600 < 0.15


def test_a_larger_data_set_shares_no_picture_between_splits_or_seeds(tmp_path: Path) -> None:
    pictures = []
    for seed in (1, 2):
        write_dataset(tmp_path / str(seed), seed=seed, train=8, calibration=8, test=8, domains=["oct"])
        pictures += [path.read_bytes() for path in (tmp_path / str(seed) / "images").rglob("*.png")]
    assert len(set(pictures)) == len(pictures) == 48


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="already exists"):
        write_dataset(tmp_path, seed=0, train=1, calibration=1, test=1)


def test_an_unknown_domain_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown domain 'pet'"):
        write_dataset(tmp_path / "data", seed=0, train=1, calibration=1, test=1, domains=["pet"])
    assert list(tmp_path.iterdir()) == []
