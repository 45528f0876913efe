"""Where data sets of a suite are, and whether they are those of the definition."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from kdkit.core.base.yaml_model import read_model
from kdkit.core.evaluation.suites.definition import Suite
from kdkit.core.evaluation.suites.place import Placed, SuiteStatus, locate
from tests.core.evaluation.suites.test_definition import ONE


def suite(files: str, data: str = "{source: folder, path: test, options: {split: test}}") -> Suite:
    text = ONE.replace("{source: folder, path: test, options: {split: test}}", data)
    text = text.replace("title: Stains", f"title: Stains\n    files: {files}").replace("[data]", "[data, files]")
    return read_model(Suite, text, "suite.yaml")[0]


def only(made: Suite, folder: Path) -> Placed:
    (found,) = locate(made.datasets, folder)
    return found


def test_nothing_there_is_missing_with_everything_that_a_person_needs(tmp_path: Path) -> None:
    made = suite("{}")
    (tmp_path / "stains" / "test").mkdir(parents=True)  # an empty folder
    found = only(made, tmp_path)
    assert found.status == "missing"
    text = str(SuiteStatus("two", made.summary, tmp_path, (found,)))
    for fact in (
        "https://example.org",
        "mit",
        "size: not known",
        str(tmp_path / "stains" / "test"),
        "not verified: data",
    ):
        assert fact in text
    assert json.loads(json.dumps(SuiteStatus("two", "", tmp_path, (found,)).to_json()))["datasets"]["stains"]["home"]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_of_another_release_is_named_with_its_hash(tmp_path: Path, kind: str) -> None:
    right, wrong = b"release 1", b"release 2"
    digest = hashlib.new(kind, right).hexdigest()
    made = suite(f"{{a.npz: {{{kind}: '{digest}'}}}}", "{source: medmnist, path: a.npz}")
    file = tmp_path / "stains" / "a.npz"
    file.parent.mkdir()
    file.write_bytes(right)
    assert only(made, tmp_path).status == "present"
    file.write_bytes(wrong)
    found = only(made, tmp_path)
    assert (found.status, found.path) == ("other release", file)
    assert hashlib.new(kind, wrong).hexdigest() in found.problems[0]
    assert digest in found.problems[0]


def test_a_folder_with_another_number_of_images_is_another_release(tmp_path: Path) -> None:
    made = suite("{test: {images: 3}}")
    folder = tmp_path / "stains" / "test" / "he"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.PNG").touch()
    (folder / "readme.txt").touch()
    assert only(made, tmp_path).status == "present"
    (folder / "3.png").touch()
    assert "4 images" in only(made, tmp_path).problems[0]


def test_the_first_alternative_that_is_there_is_read_and_checked_alone(tmp_path: Path) -> None:
    digest = hashlib.md5(b"small").hexdigest()
    files = f"{{large.npz: {{md5: '{'0' * 32}'}}, small.npz: {{md5: {digest}}}}}"
    made = suite(files, "{source: medmnist, path: large.npz, alternatives: [small.npz]}")
    small = tmp_path / "stains" / "small.npz"
    small.parent.mkdir()
    small.write_bytes(b"small")
    found = only(made, tmp_path)
    assert (found.path, found.status) == (small, "present")
    (tmp_path / "stains" / "large.npz").write_bytes(b"large")
    assert only(made, tmp_path).status == "other release"
