"""``kdkit evaluate``."""

from __future__ import annotations

import pytest

from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.project import Project
from tests.cli.test_distill import PLUGIN
from tests.conftest import Cli, InstallPlugin
from tests.toy_project import make_project


@pytest.fixture
def toy(kdkit_cli: Cli, install_plugin: InstallPlugin) -> Cli:
    """The command in a toy project with one version."""
    install_plugin("kdkit-toy", PLUGIN)
    kdkit_cli.folder.rmdir()
    distill(
        make_project(kdkit_cli.folder, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri", "xray")),
        Options(cpu=True),
    )
    return kdkit_cli


def test_evaluate(toy: Cli) -> None:
    shown = toy("evaluate")
    assert shown.code == 0, shown.stderr
    title = shown.stdout.splitlines()[0]
    assert "accuracy" in title
    assert "test split" in title
    assert "reports/evaluation-v1-test.png" in shown.stderr
    assert (toy.folder / "reports" / "evaluation-v1-test.png").read_bytes()[:4] == b"\x89PNG"

    with Project(toy.folder).exclusive("kdkit distill"):  # a run that lasts days
        codes = [toy(*command).code for command in (["trust"], ["rollback", "v1"])]
        data = toy("evaluate", "v1", "--split", "calibration", "--json").json
    assert codes == [0, 0]
    assert data["file"] == "reports/evaluation-v1-calibration.json"
    assert Evaluation.load(toy.folder / data["file"]).model("v1").means["accuracy"] > 0.5
    assert data["picture"]["alt"]

    early = toy("evaluate", "--html", "registry.yaml/v1.html")
    assert (early.code, early.stdout, early.error) == (2, "", "KD-BASE-300")
    bare = toy("report", "--json").json
    assert bare["file"].endswith("reports/v1.html")
    assert {"Confusion matrices", "Training"} <= set(bare["sections"])
    assert {"Retrieval examples", "Most-changed samples"} <= set(bare["absent"])
    assert "data:image" not in (toy.folder / "reports" / "v1.html").read_text()

    with (toy.folder / "registry.yaml").open("a") as registry:
        registry.write("report: {images: true}\n")
    shown = toy("evaluate", "--task", "retrieval", "--html", "v1.html")
    assert (shown.code, shown.error) == (0, ""), shown.stderr
    page = (toy.folder / "v1.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "Retrieval examples" in page

    wrong = toy("evaluate", "--split", "tst")
    assert (wrong.code, wrong.stdout, wrong.error) == (2, "", "KD-API-004")
    assert "'test'" in wrong.stderr
    absent = toy("evaluate", "v7")
    assert (absent.code, absent.stdout, absent.error) == (3, "", "KD-PROJ-010")
