"""Version v0: the student's initial weights, without training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.distill.explain.explain import prepare_explanation
from kdkit.core.distill.explain.runs import ExplainOptions
from kdkit.core.distill.import_student import import_student
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions
from tests.core.sharing.release.projects import WORDS
from tests.errors import raises_error
from tests.recorder import Recorder
from tests.tiny_models import make_open_clip_folder
from tests.toy_project import make_project, open_project

STUDENT = "{family: open_clip, config: {init: ./weights}}"


@pytest.fixture
def own(tmp_path: Path) -> Project:
    """A small project whose student starts from a folder."""
    root = tmp_path / "project"
    make_project(root, teachers={}, domains=("ct", "mri"), train=1, held_out=2)
    make_open_clip_folder(root / "weights", words=WORDS)
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("{family: toy, config: {width: 12}}", STUDENT)
    registry.write_text(text, encoding="utf-8")
    return open_project(root)


def test_the_same_import_again_changes_nothing(own: Project) -> None:
    done = import_student(own, Recorder()).version
    created = done.lineage.created
    assert done.known_samples().dtype == np.uint64
    assert len(done.known_samples()) == 0
    assert not done.lineage.seconds
    (own.versions / "current").unlink()  # as after a kill before the last step
    again = import_student(open_project(own.root), Recorder()).version
    assert (again.name, again.lineage.created) == ("v0", created)
    current = Versions(own).current()
    assert current is not None
    assert current.name == "v0"


def test_a_project_with_another_version_keeps_it(own: Project) -> None:
    import_student(own, Recorder())
    with raises_error("KD-DIST-490", code=ExitCode.USAGE, mentions=("v0",)):
        import_student(open_project(own.root), Recorder(), seed=1)
    (own.root / "weights" / "notes.json").write_text("{}", encoding="utf-8")
    with raises_error("KD-DIST-490", mentions=("v0",)):
        import_student(open_project(own.root), Recorder())
    (own.versions / "v0").rename(own.versions / "v3")
    with raises_error("KD-DIST-490", mentions=("v3",)):
        import_student(open_project(own.root), Recorder())


def test_random_weights_are_nothing_to_keep(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", teachers={}, domains=("ct",), train=1, held_out=1)
    with raises_error("KD-DIST-491", where="registry.yaml:2", code=ExitCode.USAGE, mentions=("toy", "init")):
        import_student(project, Recorder())
    assert not project.versions.exists()


def test_without_labels_it_is_not_judged(own: Project) -> None:
    manifest = own.root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    manifest.write_text("".join(json.dumps({**row, "label": None}) + "\n" for row in rows), encoding="utf-8")
    lineage = import_student(open_project(own.root), Recorder()).version.lineage
    assert (lineage.judged, lineage.data.known) == (False, ())


def test_there_is_nothing_to_explain(own: Project) -> None:
    import_student(own, Recorder())
    with raises_error("KD-DIST-492", mentions=("v0",)):
        prepare_explanation(open_project(own.root), "v0", ExplainOptions(cpu=True), Recorder())
