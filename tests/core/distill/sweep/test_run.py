"""A sweep of a toy project: jobs, interruptions, claims, and what may not change in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import Silent
from kdkit.core.distill.sweep.prepare import SweepOptions, plan_sweep
from kdkit.core.distill.sweep.run import SweepRequest, dry_run_sweep, report_sweep, sweep
from kdkit.core.distill.trials.trial import TrialOptions
from kdkit.core.evaluation.sweeps.record import SweepFolder
from kdkit.core.evaluation.sweeps.report import SweepReport
from tests.core.distill.explain.test_explain import Counting, files
from tests.core.distill.toy_runs import ALL
from tests.errors import raises_error
from tests.flipped import flip
from tests.toy_project import make_project, open_project

TRIALS = TrialOptions(cpu=True, checkpoint_seconds=0.0)
OPTIONS = SweepOptions(length=0.1, seeds=2, trials=TRIALS)
WEIGHTS = SweepRequest("recipe", ("losses.fd.weight=1,4",), "weights")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with features; radio knows ct and mri, xr alone knows xray."""
    root = tmp_path_factory.mktemp("sweep") / "project"
    make_project(root, teachers={"radio": ("ct", "mri"), "xr": ("xray",)}, domains=ALL)
    dry_run_sweep(open_project(root), WEIGHTS, OPTIONS, Silent())
    return root


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of the project, without sweeps."""
    return Path(shutil.copytree(made, tmp_path / "project", ignore=shutil.ignore_patterns("sweeps")))


@pytest.fixture(scope="module")
def whole(made: Path) -> SweepReport:
    return sweep(open_project(made), WEIGHTS, OPTIONS, Silent())


def test_a_sweep(made: Path, whole: SweepReport) -> None:
    assert [result.variation.name for result in whole.results] == [
        "as it is",
        "losses.fd.weight=1",
        "losses.fd.weight=4",
    ]
    baseline, same, other = whole.results
    assert baseline.accuracies == same.accuracies
    assert same.effect is None, "its runs are those of the baseline"
    assert other.effect is not None
    assert other.effect.mean.before == pytest.approx(baseline.mean)
    assert other.effect.mean.after == pytest.approx(other.mean)
    assert (whole.runs, whole.missing, other.compared) == (4, (), (0, 1))
    assert {path.name for path in (made / "sweeps" / "weights").iterdir()} == {
        *("sweep.json", "runs", "report.json", "report.html")
    }  # fmt: skip
    assert json.loads((made / "sweeps/weights/report.json").read_text(encoding="utf-8"))["missing"] == []
    assert not list((made / ".kdkit" / "runs").glob("*"))
    assert not (made / "versions").exists()


def test_a_finished_run_is_never_repeated(made: Path, whole: SweepReport) -> None:
    counting, before = Counting(), files(made)
    assert sweep(open_project(made), WEIGHTS, OPTIONS, counting) == whole
    assert counting.steps == 0
    assert report_sweep(open_project(made), "weights", Silent()) == whole
    assert files(made) == before
    plan = dry_run_sweep(open_project(made), WEIGHTS, OPTIONS, Silent())
    assert (plan.trainings, plan.finished, plan.seconds) == (4, 4, 0)
    other = dry_run_sweep(open_project(made), SweepRequest("imbalance", ("1",)), OPTIONS, Silent())
    assert (other.trainings, other.finished) == (2, 2), "another sweep of the project has them"


def test_jobs_make_the_same_table_as_one_command(copied: Path, whole: SweepReport) -> None:
    for number in (1, 2):
        job = SweepRequest(WEIGHTS.question, WEIGHTS.arguments, WEIGHTS.name, (number, 2))
        found = sweep(open_project(copied), job, OPTIONS, Silent())
        assert len(found.missing) == (2 if number == 1 else 0)  # two rows share runs
    assert found == whole
    assert str(found) == str(whole)


def test_an_interrupted_sweep_continues(copied: Path, whole: SweepReport) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweep(open_project(copied), WEIGHTS, OPTIONS, Counting(stop=4 + 2))
    assert len(report_sweep(open_project(copied), None, Silent()).missing) == 4
    counting = Counting()
    assert sweep(open_project(copied), WEIGHTS, OPTIONS, counting) == whole
    assert 3 * 4 - 2 <= counting.steps <= 3 * 4


def test_a_run_that_another_process_is_at_is_left_to_it(copied: Path) -> None:
    once = SweepOptions(length=0.1, seeds=1, trials=TRIALS)
    project = open_project(copied)
    first = dry_run_sweep(project, WEIGHTS, once, Silent())
    assert first.trainings == 2
    planned = plan_sweep(project, "weights", WEIGHTS.question, WEIGHTS.arguments, once, Silent())
    with SweepFolder(project, "weights").kept.claim(planned.trials[1].key) as mine:
        assert mine
        found = sweep(project, WEIGHTS, once, Silent())
    assert (found.missing, found.busy) == ((("losses.fd.weight=4", 0),), 1)
    assert "other processes" in str(found)
    assert sweep(project, WEIGHTS, once, Silent()).missing == ()


def test_two_sweeps_at_once_do_not_train_in_the_same_folder(copied: Path) -> None:
    once, project = SweepOptions(length=0.1, seeds=1, trials=TRIALS), open_project(copied)
    planned = plan_sweep(project, "weights", WEIGHTS.question, WEIGHTS.arguments, once, Silent())
    with SweepFolder(project, "another").kept.claim(planned.trials[0].key):  # the baseline, which all sweeps have
        found = sweep(project, WEIGHTS, once, counting := Counting())
    assert (found.busy, counting.steps) == (1, 4)
    assert [name for name, _ in found.missing] == ["as it is", "losses.fd.weight=1"]


def test_what_changed_since_a_sweep_began_is_named(copied: Path) -> None:
    once = SweepOptions(length=0.1, seeds=1, trials=TRIALS)
    sweep(open_project(copied), SweepRequest("imbalance", ("0",), "s"), once, Silent())
    registry = copied / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    job = SweepRequest("imbalance", ("0",), "s", (1, 2))
    registry.write_text(text + "optimizer: {lr: 0.02}\n", encoding="utf-8")
    with raises_error("KD-PROJ-382", mentions=("recipe.optimizer.lr: 0.01, now 0.02",), code=ExitCode.FOUND):
        sweep(open_project(copied), job, once, Silent())
    registry.write_text(text.replace("xr:\n", "xr:\n    domains: [xray]\n", 1), encoding="utf-8")
    with raises_error("KD-PROJ-382", mentions=("teacher 'xr'",), code=ExitCode.FOUND):
        sweep(open_project(copied), job, once, Silent())
    registry.write_text(text, encoding="utf-8")
    with raises_error("KD-PROJ-383", mentions=("sweep imbalance 0",)):
        sweep(open_project(copied), SweepRequest("imbalance", ("0.5",), "s", (1, 2)), once, Silent())
    more = sweep(open_project(copied), SweepRequest("imbalance", ("0,0.5",), "s"), once, counting := Counting())
    assert (len(more.results), counting.steps) == (3, 4), "a command without a job may ask for more"


def test_kept_students_are_evaluated_on_another_split_without_training(copied: Path) -> None:
    keep = SweepOptions(length=0.1, seeds=1, trials=TrialOptions(cpu=True, keep=True))
    request = SweepRequest("imbalance", ("1",), "s")
    sweep(open_project(copied), request, keep, Silent())
    test = SweepOptions(length=0.1, seeds=1, split="test", trials=TRIALS)
    found = sweep(open_project(copied), SweepRequest("imbalance", ("1",)), test, counting := Counting())
    assert (counting.steps, found.record.split, found.record.name) == (0, "test", "imbalance-test")
    assert "TEST split" in str(found)
    assert not list((copied / ".kdkit" / "runs").glob("*"))


def test_bad_requests(copied: Path) -> None:
    def asked(question: str, *arguments: str, job: tuple[int, int] | None = None, **options: object) -> None:
        chosen = SweepOptions(**{"seeds": 1, "trials": TRIALS, **options})  # type: ignore[arg-type]
        dry_run_sweep(open_project(copied), SweepRequest(question, arguments, "n", job), chosen, Silent())

    for job in ((0, 2), (3, 2)):
        with raises_error("KD-PROJ-381", mentions=("1/2 to 2/2",)):
            asked("trust", job=job)
    with raises_error("KD-DIST-393", mentions=("'trust'",)):
        asked("tryst")
    with raises_error("KD-DIST-470"):
        asked("report")
    for wrong in ({"length": 0.0}, {"length": float("nan")}, {"seeds": 0}):
        with raises_error("KD-DIST-394"):
            asked("trust", **wrong)
    with raises_error("KD-DIST-395", mentions=("'xray'",)):
        asked("trust", domains=("xrya",))
    with raises_error("KD-PROJ-380"):
        dry_run_sweep(open_project(copied), SweepRequest("trust", (), "../x"), OPTIONS, Silent())
    with raises_error("KD-EVAL-383", code=ExitCode.MISSING):
        report_sweep(open_project(copied), None, Silent())


def test_damage_is_named(copied: Path) -> None:
    once = SweepOptions(length=0.1, seeds=1, trials=TRIALS)
    request = SweepRequest("imbalance", ("1",), "s")
    sweep(open_project(copied), request, once, Silent())
    file = next((copied / "sweeps" / "s" / "runs").glob("*.json"))
    flip(file, 400, 0)
    with raises_error("KD-EVAL-381", where=str(file), code=ExitCode.MISSING):
        report_sweep(open_project(copied), "s", Silent())
    (copied / "sweeps" / "s" / "sweep.json").write_text("{", encoding="utf-8")
    with raises_error("KD-EVAL-382", code=ExitCode.MISSING):
        report_sweep(open_project(copied), "s", Silent())
