"""A sample of benchmarks/environments.py: commands on read-only and full disks, without a home, on ASCII terminals."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.core.data.projects import make_project, row

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "environments.py"
ENDS = {"read-only": 4, "full": 3, "no-home": 0, "ascii": 0, "no-network": 0}
"""Environment -> exit code of a command that writes."""


@pytest.fixture(scope="module")
def environments() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environments", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_knows_every_command(environments: ModuleType) -> None:
    assert sorted(environments.commands()) == sorted(environments.ARGUMENTS)


@pytest.mark.skipif(sys.platform != "linux", reason="the environments are made by means of Linux")
@pytest.mark.parametrize("environment", ENDS)
def test_commands_end_with_a_message(environment: str, environments: ModuleType, tmp_path: Path) -> None:
    prepare, _ = environments.ENVIRONMENTS[environment]
    reading = random.Random(environment).choice(["data check", "versions", "features", "recipes", "plugins freeze"])
    rows = [row(i, domain="ct", label="tum\u00f6r") for i in range(3)]
    for command in (reading, "new-plugin"):
        project = make_project(tmp_path / command.replace(" ", "-") / "project", rows)
        code, output = environments.run(command, prepare, project.root)
        assert code == (ENDS[environment] if command == "new-plugin" else 0), output
        assert "Traceback" not in output
