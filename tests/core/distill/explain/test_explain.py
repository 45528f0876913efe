"""What a student would be without each source: short runs of a toy project whose teachers know different domains."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from kdkit.core.base.errors import ExitCode
from kdkit.core.base.locks import file_lock
from kdkit.core.contracts import Silent
from kdkit.core.distill.explain.explain import explain, plan_explanation, prepare_explanation
from kdkit.core.distill.explain.runs import FOLDER, ExplainOptions
from kdkit.core.distill.loop.checkpoint_state import task_tensors
from kdkit.core.distill.model.projection import module_key
from kdkit.core.evaluation.leave_one_out import Explanation
from kdkit.core.project.versions import Versions
from kdkit.core.teachers.add import remove_teacher
from tests.core.distill.building import build_plan
from tests.core.distill.toy_runs import ALL, Heard, recipe, run
from tests.errors import raises_error
from tests.flipped import flip
from tests.toy_project import make_project, open_project

WHOLE = ExplainOptions(length=1.0, seeds=1, cpu=True)
SHORT = ExplainOptions(length=0.05, seeds=1, cpu=True)


class Counting(Silent):
    """Counts the steps that are trained, and interrupts a run at one of them."""

    def __init__(self, stop: int = 0) -> None:
        self.steps, self.stop = 0, stop

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == "distill":
            self.steps += 1
            if self.steps == self.stop:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1 of two teachers: radio knows ct and mri, xr alone knows xray."""
    root = tmp_path_factory.mktemp("explain") / "project"
    run(make_project(root, teachers={"radio": ("ct", "mri"), "xr": ("xray",)}, domains=ALL))
    return root


@pytest.fixture(scope="module")
def explained(distilled: Path) -> Explanation:
    return explain(open_project(distilled), None, WHOLE, Silent())


@pytest.fixture
def copied(distilled: Path, tmp_path: Path) -> Path:
    """A copy of the project, without explanations."""
    ignored = shutil.ignore_patterns(FOLDER)
    return Path(shutil.copytree(distilled, tmp_path / "project", ignore=ignored))


def files(root: Path) -> dict[str, bytes]:
    """Every file but the local state."""
    paths = [path for path in root.rglob("*") if path.is_file() and ".kdkit" not in path.parts]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_a_domain_is_lost_without_the_one_teacher_that_knows_it(explained: Explanation) -> None:
    radio, xr = explained.sources
    assert (explained.version, explained.steps, explained.seeds) == ("v1", 40, (0,))
    assert (radio.source, xr.source, radio.kind) == ("radio", "xr", "teacher")
    assert all(radio.domains[domain].points < -10 for domain in ("ct", "mri"))
    assert {d for d, change in radio.domains.items() if change.distinguishable} <= {"ct", "mri"}
    assert radio.domains["mri"].distinguishable
    assert {d for d, change in xr.domains.items() if change.distinguishable and change.points < -20} == {"xray"}
    for effect, elsewhere in ((radio, ["xray"]), (xr, ["ct", "mri"])):
        assert all(abs(effect.domains[domain].points) <= 100 / 30 + 1e-9 for domain in elsewhere)


def test_at_the_whole_length_the_run_with_all_sources_is_the_version(distilled: Path, explained: Explanation) -> None:
    scores = Versions(open_project(distilled)).get("v1").lineage.scores.domains
    for domain, change in explained.sources[0].domains.items():
        assert change.everything == scores[domain]["accuracy"]
    assert explained.version_accuracy == pytest.approx(explained.sources[0].mean.everything)
    assert not explained.too_short


def test_a_second_call_trains_nothing_and_a_project_stays_as_it_is(distilled: Path, explained: Explanation) -> None:
    before, counting = files(distilled), Counting()
    assert explain(open_project(distilled), "v1", WHOLE, counting) == explained
    assert counting.steps == 0
    plan = plan_explanation(open_project(distilled), "v1", WHOLE, Silent())
    assert (plan.runs, plan.finished, plan.seconds) == (3, 3, 0)
    assert files(distilled) == before
    assert Versions(open_project(distilled)).names() == ("v1",)
    assert not list((distilled / ".kdkit" / "runs").glob("*"))


def test_an_interrupted_call_continues_with_the_same_result(copied: Path, explained: Explanation) -> None:
    options = ExplainOptions(length=1.0, seeds=1, cpu=True, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        explain(open_project(copied), None, options, Counting(stop=40 + 10))
    assert len(list((copied / ".kdkit" / FOLDER).glob("*.json"))) == 1
    counting = Counting()
    assert explain(open_project(copied), None, options, counting) == explained
    assert 30 <= counting.steps - 40 < 40, "the second run continues, the third is whole"


def test_all_runs_have_the_same_batches_and_the_others_keep_their_trust(copied: Path) -> None:
    prepared = prepare_explanation(open_project(copied), None, ExplainOptions(0.5, seeds=2, cpu=True), Silent())
    assert [run.title for run in prepared.runs] == 2 * ["with all sources", "without radio", "without xr"]
    assert [run.plan.settings.seed for run in prepared.runs] == [0, 0, 0, 1, 1, 1]
    assert len({run.key for run in prepared.runs}) == 6
    whole = prepared.runs[0].plan
    for made in prepared.runs:
        assert made.plan.settings.steps == 20
        assert all(np.array_equal(a.indices, b.indices) for a, b in zip(made.plan.pools, whole.pools, strict=True))
    without = {teacher.name: teacher for teacher in prepared.runs[1].plan.teachers}
    assert (without["radio"].samples, dict(without["radio"].admitted)) == (0, {})
    assert without["xr"].admitted == {teacher.name: teacher for teacher in whole.teachers}["xr"].admitted


def test_all_runs_have_the_same_initial_student_and_heads_are_drawn_in_order(copied: Path) -> None:
    project = open_project(copied)
    prepared = prepare_explanation(project, None, ExplainOptions(0.5, seeds=1, cpu=True), Silent())
    whole, no_radio, no_xr = (task_tensors(build_plan(project, run.plan, run.inventory).task) for run in prepared.runs)
    student = [name for name in whole if name.startswith("student.")]
    heads = {teacher: [name for name in whole if f".{module_key(teacher)}." in name] for teacher in ("radio", "xr")}
    assert heads["radio"]
    assert heads["xr"]
    assert all(torch.equal(whole[name], other[name]) for name in student for other in (no_radio, no_xr))
    assert all(torch.equal(whole[name], no_xr[name]) for name in heads["radio"])
    assert not any(torch.equal(whole[name], no_radio[name]) for name in heads["xr"])


def test_captions_are_a_source_where_a_loss_learns_from_them(copied: Path) -> None:
    recipe(copied, ("  - {name: crd, weight: 1.0}", "  - {name: crd, weight: 1.0}\n  - {name: clip, weight: 3.0}"))
    run(open_project(copied))
    prepared = prepare_explanation(open_project(copied), "v2", SHORT, Silent())
    assert [source.name for source in prepared.sources] == ["radio", "xr", "captions"]
    texts = prepared.runs[-1]
    assert set(texts.plan.captions.values()) == {0.0}
    assert [loss.name for loss in texts.plan.recipe.losses] == ["fd", "crd"]
    assert not texts.inventory.caption_targets().weight.any()
    assert [loss.name for loss in prepared.runs[1].plan.recipe.losses] == ["fd", "crd", "clip"]
    found = explain(open_project(copied), "v2", SHORT, Silent())
    assert [effect.kind for effect in found.sources] == ["teacher", "teacher", "texts"]


def test_only_what_the_version_knew_takes_part(copied: Path) -> None:
    """Samples and teachers that were added since are left out; so is what the registry says of trust now."""
    before = prepare_explanation(open_project(copied), "v1", SHORT, Silent())
    manifest, registry = copied / "images" / "samples.jsonl", copied / "registry.yaml"
    rows = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    more = [row.replace('"id": "', '"id": "again-').replace('"text": "', '"text": "again, ') for row in rows]
    manifest.write_text("".join([*rows, *[row for row in more if '"train"' in row]]), encoding="utf-8")
    registry.write_text(registry.read_text(encoding="utf-8") + "trust: {policy: top-k}\n", encoding="utf-8")
    after = prepare_explanation(open_project(copied), "v1", SHORT, Silent())
    assert [run.key for run in after.runs] == [run.key for run in before.runs]


def test_an_increment_is_explained_from_scratch(with_xray: Path) -> None:
    with raises_error("KD-DIST-087", mentions=("radio",)):
        prepare_explanation(open_project(with_xray), "v1", SHORT, Silent())
    run(open_project(with_xray), incremental=True)
    prepared = prepare_explanation(open_project(with_xray), "v2", SHORT, Silent())
    assert [source.name for source in prepared.sources] == ["radio", "xr"]
    assert {run.plan.parent for run in prepared.runs} == {None}
    assert prepared.domains == ("ct", "mri", "xray")


def test_missing_features_are_extracted_with_the_project_locked(copied: Path) -> None:
    shutil.rmtree(copied / "features")
    busy = raises_error("KD-PROJ-002", mentions=("'kdkit distill'",))
    with open_project(copied).exclusive("kdkit distill"), ThreadPoolExecutor(1) as other, busy:
        other.submit(plan_explanation, open_project(copied), None, SHORT, Silent()).result()
    assert plan_explanation(open_project(copied), None, SHORT, Silent()).sources == ("radio", "xr")


def test_what_cannot_be_explained(copied: Path) -> None:
    def explained_with(name: str | None = None, **options: object) -> None:
        chosen = ExplainOptions(**{"seeds": 1, "cpu": True, **options})  # type: ignore[arg-type]
        plan_explanation(open_project(copied), name, chosen, Silent())

    with raises_error("KD-PROJ-010", mentions=("'v7'",), code=ExitCode.MISSING):
        explained_with("v7")
    for options in ({"length": 0.0}, {"length": 1.5}, {"length": float("nan")}, {"seeds": 0}):
        with raises_error("KD-DIST-083"):
            explained_with(**options)
    with raises_error("KD-DIST-084", mentions=("'xrya'", "'xray'")):
        explained_with(domains=("xrya",))
    registry, manifest = copied / "registry.yaml", copied / "images" / "samples.jsonl"
    text, rows = registry.read_text(encoding="utf-8"), manifest.read_text(encoding="utf-8")
    registry.write_text(text.replace("  - {source: jsonl, path: images/samples.jsonl}", "  []"), encoding="utf-8")
    with raises_error("KD-DATA-007"):
        explained_with()
    registry.write_text(text, encoding="utf-8")
    manifest.write_text(rows.replace('"text": "a', '"text": "another'), encoding="utf-8")
    with raises_error("KD-DIST-086", mentions=("108", "v1"), code=ExitCode.MISSING):
        explained_with()
    held_out = rows.replace('"calibration"', '"test"')
    manifest.write_text(held_out, encoding="utf-8")
    with raises_error("KD-DIST-033"):  # trust has nothing to measure
        explained_with()
    manifest.write_text(rows, encoding="utf-8")
    registry.write_text(text.replace("  xr:\n", "  xr:\n    domains: []\n"), encoding="utf-8")
    with raises_error("KD-DIST-710", mentions=("xr", "domains: []")):
        explained_with()
    registry.write_text(text, encoding="utf-8")
    remove_teacher(open_project(copied), "xr")
    with raises_error("KD-DIST-085", mentions=("xr", "local:models/xr"), code=ExitCode.MISSING):
        explained_with()


def test_a_domain_that_cannot_be_measured_is_named(copied: Path) -> None:
    manifest = copied / "images" / "samples.jsonl"
    rows = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if '"mri"' not in row or '"calibration"' not in row]
    manifest.write_text("".join(kept), encoding="utf-8")
    heard = Heard()
    prepared = prepare_explanation(open_project(copied), None, SHORT, heard)
    assert prepared.domains == ("ct", "xray")
    assert any("not compared" in line and "mri" in line for line in heard.warnings)
    with raises_error("KD-DIST-088", mentions=("mri",)):
        prepare_explanation(open_project(copied), None, ExplainOptions(seeds=1, domains=("mri",), cpu=True), Silent())


def test_samples_that_are_gone_are_counted(copied: Path) -> None:
    manifest = copied / "images" / "samples.jsonl"
    rows = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    train = [row for row in rows if '"train"' in row]
    manifest.write_text("".join(row for row in rows if row not in train[:5]), encoding="utf-8")
    heard = Heard()
    prepare_explanation(open_project(copied), None, SHORT, heard)
    assert any("5 of 108" in line for line in heard.warnings)


def test_one_explanation_at_a_time_and_damage_is_named(copied: Path) -> None:
    state = copied / ".kdkit" / FOLDER
    state.mkdir()
    with file_lock(state / "explain.busy"), raises_error("KD-DIST-080", code=ExitCode.FOUND):
        explain(open_project(copied), None, SHORT, Silent())
    explain(open_project(copied), None, SHORT, Silent())
    file = next(state.glob("*.json"))
    flip(file, 400, 0)
    with raises_error("KD-EVAL-381", where=str(file), code=ExitCode.MISSING):
        explain(open_project(copied), None, SHORT, Silent())
    file.unlink()
    explain(open_project(copied), None, SHORT, Silent())
