"""``kdkit sweep``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest

from kdkit.cli.sweep import parse_job
from kdkit.core.contracts import Silent
from kdkit.core.distill.sweep.prepare import SweepOptions
from kdkit.core.distill.sweep.run import SweepRequest, sweep
from kdkit.core.distill.trials.trial import TrialOptions
from kdkit.core.evaluation.scores import to_plain
from tests.cli.test_distill import PLUGIN
from tests.conftest import Cli, InstallPlugin
from tests.errors import raises_error
from tests.toy_project import make_project, open_project

SHORT = ("--seeds", "2", "--length", "0.1", "--cpu")


@pytest.fixture
def toy(kdkit_cli: Cli, install_plugin: InstallPlugin) -> Cli:
    """The command in a project of two teachers."""
    install_plugin("kdkit-toy", PLUGIN)
    kdkit_cli.folder.rmdir()
    make_project(kdkit_cli.folder, teachers={"radio": ("ct", "mri"), "xr": ("xray",)}, domains=("ct", "mri", "xray"))
    return kdkit_cli


def test_a_killed_sweep_resumes_with_the_same_table(toy: Cli) -> None:
    command = ("sweep", "recipe", "losses.crd.weight=0.5,2", *SHORT, "--checkpoint-every", "0")
    with open(os.devnull, "w") as said:
        process = toy.start(*command, out=said, err=said)
    runs, deadline = toy.folder / "sweeps" / "recipe-losses.crd.weight" / "runs", time.monotonic() + 120
    while len(list(runs.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert 2 <= len(list(runs.glob("*.json"))) < 6

    resumed = toy(*command)
    assert resumed.code == 0, resumed.stderr
    assert "run 1 of 6" not in resumed.stderr
    written = json.loads((runs.parent / "report.json").read_text(encoding="utf-8"))
    shutil.rmtree(toy.folder / "sweeps")
    options = SweepOptions(length=0.1, seeds=2, trials=TrialOptions(cpu=True))
    request = SweepRequest("recipe", ("losses.crd.weight=0.5,2",))
    whole = sweep(open_project(toy.folder), request, options, Silent())
    assert str(whole) == resumed.stdout.rstrip("\n")
    assert to_plain(whole.to_json()) == written
    assert written["missing"] == []
    assert not (toy.folder / "versions").exists()

    wrong = toy("sweep", "recipe", "losses.crd.wieght=1", "--json")
    place = "argument 1 ('losses.crd.wieght=1')"
    assert (wrong.code, wrong.error, wrong.json["error"]["where"]) == (2, "KD-DIST-384", place)


def test_jobs_as_text() -> None:
    for text in ("2", "a/b", "1/", "-1/2"):
        with raises_error("KD-CLI-380", mentions=(text,)):
            parse_job(text)
