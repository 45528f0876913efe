"""Tasks of a Ray cluster as workers, one of them killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from kdkit.core.features.extract.on_ray import project_digest, run_worker
from kdkit.core.features.extract.shared import FOLDER
from tests.cli.test_features import PLUGIN, save_teacher
from tests.conftest import Cli, InstallPlugin
from tests.core.data.projects import make_project, row

WAITING = PLUGIN.replace(
    "        return pixels.flatten(1) @ self.weight",
    """        import os, pathlib, time
        while "GATE" in os.environ and not pathlib.Path(os.environ["GATE"]).exists():
            time.sleep(0.05)
        return pixels.flatten(1) @ self.weight""",
)

PATIENT = {"RAY_raylet_start_wait_time_s": "600", "RAY_USAGE_STATS_ENABLED": "0"}
"""Ray's own limit is 30 s, which a loaded machine exceeds."""


@pytest.fixture
def project(kdkit_cli: Cli, install_plugin: InstallPlugin) -> Cli:
    """A project with 1,200 samples, three blocks, and a teacher that computes once the file GATE exists."""
    install_plugin("kdkit-patch", WAITING)
    make_project(kdkit_cli.folder, [row(i) for i in range(1200)])
    save_teacher(kdkit_cli.folder / "patch", 1)
    done = kdkit_cli("add-teacher", "patch", "--from", "local:patch", "--loader", "patch", "--license", "mit")
    assert done.code == 0, done.stderr
    return kdkit_cli


def contents(folder: Path) -> dict[str, bytes]:
    """All files but drafts, which the killed task leaves and the next writer of their folder removes."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".draft-" not in str(path)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_killed_task_is_replaced(project: Cli) -> None:
    pytest.importorskip("ray")
    store, kept, gate = project.folder / "features", project.folder / "alone", project.folder / "gate"
    assert project("features", "extract", env={"OMP_NUM_THREADS": "1"}).code == 0
    store.rename(kept)
    words = ["features", "extract", "--ray", "local", "--gpus", "2", "--device", "cpu", "--json"]
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        running = project.start(*words, env={"GATE": str(gate), **PATIENT}, out=out, err=err)
        while len(list((store / FOLDER).glob("*.worker"))) < 2:
            assert running.poll() is None, (err.seek(0), err.read())
            time.sleep(0.1)
        victim = json.loads(next((store / FOLDER).glob("*.worker")).read_text())["name"]
        os.kill(int(victim.rpartition(":")[2]), signal.SIGKILL)
        gate.touch()
        assert running.wait(600) == 0, (err.seek(0), err.read())
        out.seek(0)
        assert [found["new"] for found in json.loads(out.read())] == [1200]
    assert contents(store) == contents(kept)


def test_a_task_with_another_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text("a: 1\n")
    digest = project_digest(tmp_path)
    (tmp_path / "registry.yaml").write_text("a: 2\n")
    for root in (tmp_path, tmp_path / "absent"):
        assert run_worker(str(root), digest, (), {})["error"]["id"] == "KD-FEAT-543"


def test_ray_is_an_extra(tmp_path: Path, kdkit_cli: Cli) -> None:
    make_project(kdkit_cli.folder, [row(0)])
    (tmp_path / "ray.py").write_text("raise ImportError\n")
    found = kdkit_cli("features", "extract", "--ray", "auto", env={"PYTHONPATH": str(tmp_path)})
    assert "pip install 'kdkit[ray]'" in found.stderr
    assert "KD-FEAT-541" in found.stderr
