"""Imports of ``.npy`` and ``.npz``: what is stored, what is told, what is refused."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.data import load_index
from kdkit.core.features.extract.missing import extract_missing, extraction_hint
from kdkit.core.features.imports.importing import ImportedColumn, ImportRequest, import_features
from kdkit.core.features.imports.rows import ReadOptions
from kdkit.core.features.store.column import Column
from kdkit.core.features.store.store import FeatureStore
from kdkit.core.project.project import Project
from kdkit.core.teachers import check_lock, open_teacher
from tests.conftest import REPOSITORY, Cli
from tests.core.features.imports.saved import COUNT, IDS, WIDTH, save_npz, small_project, vectors
from tests.core.teachers.stub import Notes


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return small_project(tmp_path / "p")


def run(project: Project, *paths: Path, name: str = "tiles", **fields: Any) -> ImportedColumn:
    dry = fields.pop("dry_run", False)
    request = ImportRequest(paths, **{"license": "mit", **fields})
    return import_features(Project(project.root), name, request, dry_run=dry)


def column_of(project: Project, name: str = "tiles") -> Column:
    fresh = Project(project.root)
    return FeatureStore(fresh.features).column(name, fresh.lock.teacher(name).fingerprint)


def stored(project: Project, signal: str = "image", name: str = "tiles") -> np.ndarray[Any, Any]:
    """Rows of all samples that have one, in the order of the index."""
    column = column_of(project, name)
    rows = column.locate(load_index(project))
    return column.gather(signal, rows[rows >= 0])


def refused(call: Callable[[], object]) -> KdkitError:
    with pytest.raises(KdkitError) as caught:
        call()
    return caught.value


def test_rows_are_stored_bit_for_bit_in_any_order(project: Project, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(COUNT)
    image, text = vectors(seed=1), vectors(seed=2)
    path = save_npz(tmp_path / "a.npz", [IDS[i] for i in order], image=image[order], text=text[order])

    done = run(project, path, model="UNI2-h", revision="abc", preprocessing="224 px")

    assert (done.rows, done.used, done.new, done.samples) == (COUNT, COUNT, COUNT, COUNT)
    assert np.array_equal(stored(project), image.astype(np.float16))
    assert np.array_equal(stored(project, "text"), text.astype(np.float16))
    assert column_of(project).complete
    assert column_of(project).verify() == []
    facts = Project(project.root).lock.teacher("tiles")
    assert facts.imported
    assert facts.dims == {"image": WIDTH, "text": WIDTH}
    assert {"model": "UNI2-h", "revision": "abc", "preprocessing": "224 px"}.items() <= facts.identity.items()
    assert check_lock(Project(project.root)) == []


def test_every_row_is_used_or_told(project: Project, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", ["s3", "nobody", "s1", "x", "y", "z"])
    done = run(project, path)
    assert (done.rows, done.used) == (6, 2)
    assert done.rows_without_sample == ("nobody", "x", "y", "z")
    assert done.samples_without_row == tuple(id_ for id_ in IDS if id_ not in ("s1", "s3"))
    assert done.used + len(done.rows_without_sample) == done.rows
    assert done.used + len(done.samples_without_row) == done.samples


def test_many_rows_fill_several_blocks(tmp_path: Path) -> None:
    from tests.core.data.projects import make_project, row

    project = make_project(tmp_path / "p", [row(i, image="0.png") for i in range(1300)])
    image = vectors(1300, seed=5)
    np.save(tmp_path / "a.npy", image)
    (tmp_path / "ids.txt").write_text("".join(f"s{i}\n" for i in range(1300)), encoding="utf-8")
    run(project, tmp_path / "a.npy", read=ReadOptions(ids=tmp_path / "ids.txt"))
    assert np.array_equal(stored(project), image.astype(np.float16))


def test_a_second_import_changes_nothing_and_another_is_refused(project: Project, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz")
    run(project, path)
    before = {
        file: file.read_bytes() for file in project.root.rglob("*") if file.is_file() and ".kdkit" not in file.parts
    }
    assert run(project, path).new == 0
    assert {file: file.read_bytes() for file in before} == before

    other = save_npz(tmp_path / "b.npz", image=vectors(width=8))
    error = refused(lambda: run(project, other))
    assert (error.id, error.code) == ("KD-FEAT-030", ExitCode.FOUND)
    assert "image 6 float16" in error.why
    assert "image 8 float16" in error.why
    assert "--replace" in error.fix
    assert refused(lambda: run(project, path, model="another")).id == "KD-FEAT-030"
    assert {file: file.read_bytes() for file in before} == before

    done = run(project, other, replace=True)
    assert done.new == COUNT
    assert np.array_equal(stored(project), vectors(width=8).astype(np.float16))


def test_new_samples_are_added_from_the_same_file(project: Project, tmp_path: Path) -> None:
    from tests.core.data.projects import make_project, row

    path = save_npz(tmp_path / "a.npz", [f"s{i}" for i in range(COUNT + 3)])
    assert run(project, path).rows_without_sample == ("s12", "s13", "s14")
    teachers = (project.root / "registry.yaml").read_text(encoding="utf-8")
    make_project(project.root, [row(i) for i in range(COUNT + 3)])
    (project.root / "registry.yaml").write_text(teachers, encoding="utf-8")
    assert run(project, path, dry_run=True).new == 3
    assert run(project, path).new == 3
    assert np.array_equal(stored(project), vectors(COUNT + 3).astype(np.float16))


def test_a_dry_run_writes_nothing(project: Project, tmp_path: Path) -> None:
    before = sorted(project.root.rglob("*"))
    done = run(project, save_npz(tmp_path / "a.npz"), dry_run=True)
    assert (done.used, done.new, done.fingerprint) == (COUNT, COUNT, "")
    left = [path for path in sorted(project.root.rglob("*")) if path not in before and ".kdkit" not in path.parts]
    assert left == []


def test_an_interrupted_import_is_continued(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdkit.core.features.imports import importing

    path = save_npz(tmp_path / "a.npz")
    monkeypatch.setattr(importing, "_fill", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(project, path)
    monkeypatch.undo()
    assert run(project, path).new == COUNT
    assert column_of(project).complete


@pytest.mark.parametrize("damage", ["bit", "length"])
def test_a_damaged_column_is_imported_again(project: Project, tmp_path: Path, damage: str) -> None:
    path = save_npz(tmp_path / "a.npz")
    run(project, path)
    before, shard = stored(project), column_of(project).shards[0].path
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content if damage == "bit" else content[:-1000])

    done = run(project, path)

    assert done.new == COUNT
    assert np.array_equal(stored(project), before)
    assert column_of(project).verify() == []
    assert shard.with_name(f"{shard.name}.damaged").is_file()
    assert run(project, path).new == 0


def test_features_on_another_disk(project: Project, tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        project.features.symlink_to(other)
        assert run(project, save_npz(tmp_path / "a.npz")).new == COUNT
        assert np.array_equal(stored(project), vectors().astype(np.float16))


def test_a_killed_import_leaves_no_draft(project: Project, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz")
    program = f"""
import os
from pathlib import Path
from kdkit.core.features.imports import importing
from kdkit.core.project.project import Project
importing._write = lambda *_: os._exit(9)
request = importing.ImportRequest([Path({str(path)!r})], license="mit")
importing.import_features(Project(Path({str(project.root)!r})), "tiles", request)
"""
    assert Cli(REPOSITORY).warm("-c", program).code == 9
    folder = column_of(project).folder
    assert len(list(folder.glob(".*"))) == 1
    assert run(project, path).new == COUNT
    assert list(folder.glob(".*")) == []
    assert np.array_equal(stored(project), vectors().astype(np.float16))


def test_an_imported_teacher_computes_nothing(project: Project, tmp_path: Path) -> None:
    run(project, save_npz(tmp_path / "a.npz", IDS[:5]))
    fresh, reporter = Project(project.root), Notes()
    assert refused(lambda: open_teacher(fresh, "tiles")).id == "KD-TEACH-026"
    assert extract_missing(fresh, load_index(fresh), reporter=reporter) == ()
    (warning,) = reporter.warnings
    assert "7 of 12 samples have none" in warning
    assert "'s5', 's6', 's7' and 4 more" in warning
    hint = extraction_hint(fresh.registry, fresh.lock, "tiles")
    assert hint.startswith("'kdkit features import tiles --from PATH --replace' adds them")
    assert hint in warning


def test_what_is_left_out_is_as_before(project: Project, tmp_path: Path) -> None:
    """Prompts are added, and files replaced, without repeating what was declared."""
    path = save_npz(tmp_path / "a.npz", image=vectors(), text=vectors(seed=1))
    declared = {"model": "UNI2-h", "revision": "abc", "preprocessing": "224 px"}
    run(project, path, float32=True, domains=["ct"], **declared)
    registry = (project.root / "registry.yaml").read_text(encoding="utf-8")
    first = Project(project.root).lock.teacher("tiles").fingerprint
    prompts = save_npz(tmp_path / "p.npz", ["a", "b"], text=vectors(2))
    done = run(project, path, license=None, prompts=prompts)
    assert (done.fingerprint, done.prompts, done.new) == (first, 2, 0)

    other = save_npz(tmp_path / "b.npz", image=vectors(seed=5), text=vectors(seed=6))
    assert refused(lambda: run(project, other, license=None)).why.startswith("sha256 was")
    done = run(project, other, license=None, replace=True)
    assert done.fingerprint != first
    assert (project.root / "registry.yaml").read_text(encoding="utf-8") == registry
    facts = Project(project.root).lock.teacher("tiles")
    assert declared.items() <= facts.identity.items()
    assert {fact.dtype for fact in facts.signals.values()} == {"float32"}
    assert check_lock(Project(project.root)) == []

    run(project, other, license="apache-2.0", domains=["ct", "mri"], model="", float32=False, replace=True)
    entry = Project(project.root).registry.teachers["tiles"]
    assert (entry.license, entry.domains) == ("apache-2.0", ["ct", "mri"])
    facts = Project(project.root).lock.teacher("tiles")
    assert "model" not in facts.identity
    assert facts.identity["revision"] == "abc"
    assert {fact.dtype for fact in facts.signals.values()} == {"float16"}
    assert check_lock(Project(project.root)) == []


@pytest.mark.parametrize("step", ["write_atomically", "lock_teachers", "_fill"])
def test_a_killed_replacement_is_continued(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from kdkit.core.features.imports import importing

    run(project, save_npz(tmp_path / "a.npz"), model="UNI2-h", domains=["ct"])
    other = save_npz(tmp_path / "b.npz", image=vectors(seed=5))
    again: dict[str, Any] = {"license": "apache-2.0", "replace": True}
    monkeypatch.setattr(importing, step, lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(project, other, **again)
    monkeypatch.undo()
    assert run(project, other, **again).new == COUNT
    assert np.array_equal(stored(project), vectors(seed=5).astype(np.float16))
    fresh = Project(project.root)
    assert fresh.registry.teachers["tiles"].domains == ["ct"]
    assert fresh.registry.teachers["tiles"].license == "apache-2.0"
    assert fresh.lock.teacher("tiles").identity["model"] == "UNI2-h"
    assert check_lock(fresh) == []


def test_prompts_in_a_file_without_ids(project: Project, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz")
    np.save(tmp_path / "p.npy", vectors(2))
    error = refused(lambda: run(project, path, prompts=tmp_path / "p.npy"))
    assert error.id == "KD-FEAT-022"
    assert "--ids" not in error.fix


def test_prompts_come_from_a_file_too(project: Project, tmp_path: Path) -> None:
    both = save_npz(tmp_path / "a.npz", image=vectors(), text=vectors(seed=1))
    prompts = save_npz(tmp_path / "prompts.npz", ["a ct image of x.", "b"], text=vectors(2, seed=3))
    assert run(project, both).prompts_missing[0] == "a ct image of abnormal."
    assert run(project, both, prompts=prompts).prompts == 2
    assert run(project, both, prompts=prompts).prompts == 0
    other = save_npz(tmp_path / "other.npz", ["b"], text=vectors(1, seed=4))
    assert refused(lambda: run(project, both, prompts=other)).id == "KD-FEAT-034"
    assert np.array_equal(column_of(project).text_features(["b"])[0], vectors(2, seed=3)[1])
    wide = save_npz(tmp_path / "wide.npz", ["b"], text=vectors(1, width=7))
    assert refused(lambda: run(project, both, prompts=wide)).id == "KD-FEAT-032"


def test_text_vectors_alone(project: Project, tmp_path: Path) -> None:
    error = refused(lambda: run(project, save_npz(tmp_path / "a.npz", text=vectors())))
    assert (error.id, error.why) == ("KD-FEAT-022", "it has text vectors alone")
    assert "--prompts" in error.fix
    assert "tiles" not in Project(project.root).registry.teachers


def test_ids_that_match_nothing(project: Project, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", ["1.png", "2.png", "3.png", "4.png"])
    error = refused(lambda: run(project, path))
    assert error.id == "KD-FEAT-026"
    assert error.what == "none of the 4 ids is that of one of the 12 samples"
    assert error.why == (
        "the file has '1.png', '2.png', '3.png' and 1 more; the samples have 's0', 's1', 's2' and 9 more"
    )
    assert "tiles" not in Project(project.root).registry.teachers


def test_rows_that_are_not_finite(project: Project, tmp_path: Path) -> None:
    image = vectors()
    image[3, 1], image[7, 0] = np.nan, np.inf
    error = refused(lambda: run(project, save_npz(tmp_path / "a.npz", image=image)))
    assert (error.id, error.why) == ("KD-FEAT-028", "'s3', 's7'")
    large = vectors()
    large[2] = 1e6
    path = save_npz(tmp_path / "b.npz", image=large)
    error = refused(lambda: run(project, path))
    assert (error.id, error.why) == ("KD-FEAT-028", "'s2'")
    assert "--float32" in error.fix
    run(project, path, float32=True)
    assert np.array_equal(stored(project), large)


def test_ids_that_occur_twice(project: Project, tmp_path: Path) -> None:
    error = refused(lambda: run(project, save_npz(tmp_path / "a.npz", ["s1", "s2", "s1", "s2", "s1"])))
    assert (error.id, error.what, error.why) == ("KD-FEAT-027", "2 ids occur more than once", "'s1', 's2'")


def test_vectors_of_several_widths(project: Project, tmp_path: Path) -> None:
    both = save_npz(tmp_path / "a.npz", image=vectors(), text=vectors(width=4))
    assert refused(lambda: run(project, both)).id == "KD-FEAT-029"
    one, two = save_npz(tmp_path / "b.npz", IDS[:4]), save_npz(tmp_path / "c.npz", IDS[4:], image=vectors(8, 7))
    error = refused(lambda: run(project, one, two))
    assert (error.id, error.why) == ("KD-FEAT-029", "'s0' has image 6, 's4' has image 7")


def test_several_files_are_one_import(project: Project, tmp_path: Path) -> None:
    image = vectors(seed=9)
    one, two = (
        save_npz(tmp_path / "b.npz", IDS[:4], image=image[:4]),
        save_npz(tmp_path / "c.npz", IDS[4:], image=image[4:]),
    )
    assert run(project, one, two).used == COUNT
    assert np.array_equal(stored(project), image.astype(np.float16))


def test_a_license_that_forbids_distillation(project: Project, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz")
    error = refused(lambda: run(project, path, license="cc-by-nc-nd-4.0"))
    assert (error.id, error.code) == ("KD-TEACH-009", ExitCode.DENIED)
    assert refused(lambda: run(project, path, name="conch", license=None)).id == "KD-TEACH-009"  # by the catalogue


def test_names(project: Project, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz")
    assert refused(lambda: run(project, path, name="../tiles")).id == "KD-TEACH-001"
    (project.root / "registry.yaml").write_text(
        (project.root / "registry.yaml").read_text(encoding="utf-8") + "teachers:\n  tiles: {from: 'local:m'}\n",
        encoding="utf-8",
    )
    assert refused(lambda: run(project, path)).id == "KD-FEAT-031"


def test_the_record_of_a_bundle_is_its_copy(project: Project, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz")
    run(project, path)
    (project.root / "imported" / "tiles" / "imported.json").unlink()
    assert run(project, path).new == 0
    assert check_lock(Project(project.root)) == []
