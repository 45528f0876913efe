"""``kdkit trust``."""

from __future__ import annotations

import pytest

from tests.cli.test_distill import PLUGIN
from tests.conftest import Cli, InstallPlugin
from tests.toy_project import make_project


@pytest.fixture
def toy(kdkit_cli: Cli, install_plugin: InstallPlugin) -> Cli:
    install_plugin("kdkit-toy", PLUGIN)
    kdkit_cli.folder.rmdir()
    make_project(kdkit_cli.folder, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri", "xray"))
    return kdkit_cli


def test_the_trust_of_a_project(toy: Cli) -> None:
    shown = toy("trust")
    assert shown.code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    for setting in ("threshold", "value 0.7", "on estimate", "fallback none"):
        assert setting in lines[0]
    assert lines[1].split() == ["domain", "radio", "chance", "images"]
    assert [line.split()[0] for line in lines[3:6]] == ["ct", "mri", "xray"]
    assert ["*" in line for line in lines[3:6]] == [True, True, False]
    assert "'xray'" in shown.stderr
    assert any(line.split()[:2] == ["xray", "none"] for line in lines)

    other = toy("trust", "--policy", "all", "--option", "unmeasured=true", "--json")
    data = other.json
    assert data["policy"]["options"] == {"unmeasured": True}
    assert data["policy"]["weights"] == {"radio": {"ct": 1.0, "mri": 1.0, "xray": 1.0}}
    radio = data["teachers"][0]["domains"]
    assert radio["ct"]["lower"] <= radio["ct"]["accuracy"] <= radio["ct"]["upper"]
    assert radio["ct"]["accuracy"] > 0.8
    assert data["domains"][0] == {"domain": "ct", "count": 30, "chance": pytest.approx(1 / 3)}

    wrong = toy("trust", "--option", "value")
    assert (wrong.code, wrong.stdout, wrong.error) == (2, "", "KD-CLI-012")
    unknown = toy("trust", "--policy", "treshold")
    assert (unknown.code, unknown.error) == (2, "KD-PLUG-003")
    assert "'threshold'" in unknown.stderr
