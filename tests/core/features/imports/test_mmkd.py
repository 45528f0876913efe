"""MMKD-CLIP's released folders: one file of tensors per sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kdkit.core.features.imports.open import open_rows
from kdkit.core.features.imports.rows import ReadOptions
from tests.core.features.imports.saved import vectors
from tests.core.features.imports.test_arrays import Explosive, all_rows
from tests.errors import raises_error

TRUSTED = {"a": ["PLIP", "BMCA"], "b": ["BMCA"], "c": ["PLIP", "BMCA"]}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Three samples; the files hold more teachers than a sample trusts."""
    folder, lines = tmp_path / "MMKDCLIP_DATA", []
    for number, (id_, trusted) in enumerate(TRUSTED.items()):
        place = folder / "features" / "data_1" / id_
        place.mkdir(parents=True)
        lines.append(json.dumps({"folderid": "data_1", "id": id_, "txt": "x", "available_clips": trusted}))
        for file, width in (("clips_output.pt", 8), ("clips_project_output.pt", 6)):
            rows = torch.from_numpy(vectors(4, width, seed=number))
            names = ("PLIP_img", "PLIP_txt", "BMCA_img", "BMCA_txt")
            torch.save(dict(zip(names, rows.clone(), strict=True)), place / file)
    (folder / "meta.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_one_teacher_where_the_release_trusts_it(release: Path) -> None:
    rows = open_rows([release], ReadOptions(key="PLIP"))
    ids, values = all_rows(rows)
    assert ids == ["a", "c"]
    assert np.array_equal(values["image"], np.stack([vectors(4, 8, seed=n)[0] for n in (0, 2)]))
    assert np.array_equal(values["text"], np.stack([vectors(4, 8, seed=n)[1] for n in (0, 2)]))
    assert list(rows.skipped.values()) == [1]
    assert len(ids) + sum(rows.skipped.values()) == len(TRUSTED)
    assert rows.listed
    _, projected = all_rows(open_rows([release], ReadOptions(key="BMCA", projected=True)))
    assert np.array_equal(projected["image"], np.stack([vectors(4, 6, seed=n)[2] for n in range(3)]))


def test_the_teacher_must_be_named(release: Path) -> None:
    for key in (None, "plip"):
        with raises_error("KD-FEAT-022", mentions=["BMCA, PLIP", "--key NAME"]):
            open_rows([release], ReadOptions(key=key))


@pytest.mark.parametrize(
    "odd", [torch.tensor(1.0), torch.zeros(1, 0), torch.zeros(2, 8), torch.zeros(8, device="meta"), torch.arange(8)]
)
def test_tensors_that_are_no_vectors(release: Path, odd: torch.Tensor) -> None:
    path = release / "features" / "data_1" / "a" / "clips_output.pt"
    torch.save({"PLIP_img": odd, "PLIP_txt": torch.zeros(8)}, path)
    with raises_error("KD-FEAT-022", where=str(path)):
        all_rows(open_rows([release], ReadOptions(key="PLIP")))


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"id": "a\\u0000", "folderid": "data_1", "available_clips": ["PLIP"]}']
)
def test_lines_that_are_no_samples(release: Path, line: str) -> None:
    (release / "meta.jsonl").write_text(line, encoding="utf-8")
    with raises_error("KD-FEAT-022", where=f"{release / 'meta.jsonl'}:1"):
        open_rows([release], ReadOptions(key="PLIP"))


def test_code_is_never_run(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(release)
    torch.save({"PLIP_img": Explosive()}, release / "features" / "data_1" / "a" / "clips_output.pt")
    with raises_error("KD-FEAT-023"):
        all_rows(open_rows([release], ReadOptions(key="PLIP")))
    assert not (release / "exploded").exists()


def test_files_that_are_damaged_missing_or_elsewhere(release: Path, tmp_path: Path) -> None:
    file = release / "features" / "data_1" / "a" / "clips_output.pt"
    whole = file.read_bytes()
    for content in (b"", whole[:100], b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(content)
        with raises_error("KD-FEAT-022" if content[:1] != b"v" else "KD-FEAT-023", where=str(file)):
            all_rows(open_rows([release], ReadOptions(key="PLIP")))
    torch.save({"BMCA_img": torch.ones(3)}, file)
    with raises_error("KD-FEAT-022", mentions=["PLIP_img"]):
        all_rows(open_rows([release], ReadOptions(key="PLIP")))
    file.unlink()
    with raises_error("KD-FEAT-022", mentions=["missing"]):
        open_rows([release], ReadOptions(key="PLIP"))
    (tmp_path / "x.pt").write_bytes(whole)
    file.symlink_to(tmp_path / "x.pt")
    with raises_error("KD-FEAT-024"):
        open_rows([release], ReadOptions(key="PLIP"))


def test_lines_that_are_refused(release: Path) -> None:
    for line, id_ in (("{", "KD-FEAT-022"), ('{"id": "a"}', "KD-FEAT-022")):
        (release / "meta.jsonl").write_text(line, encoding="utf-8")
        with raises_error(id_, where=f"{release / 'meta.jsonl'}:1"):
            open_rows([release], ReadOptions(key="PLIP"))
    outside = {"folderid": "../..", "id": "a", "available_clips": ["PLIP"]}
    (release / "meta.jsonl").write_text(json.dumps(outside), encoding="utf-8")
    with raises_error("KD-FEAT-024", where=f"{release / 'meta.jsonl'}:1"):
        open_rows([release], ReadOptions(key="PLIP"))
