"""The documented tests of a plugin pass, and the page knows every contract."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import kdkit.testing as kit
from tests.conftest import Cli
from tests.documented_plugin import install_documented_plugin

PAGE = (Path(__file__).parents[2] / "docs/howto/test-plugin.md").read_text(encoding="utf-8")
CONTRACTS = sorted(name for name in kit.__all__ if name.endswith("Contract") and name != "Contract")


def test_every_contract_is_documented() -> None:
    assert re.findall(r"^\| `(\w+Contract)` \|", PAGE, flags=re.M) == CONTRACTS


@pytest.fixture
def huber(tmp_path: Path, kdkit_cli: Cli) -> Cli:
    """The command in a folder with the documented tests, where the documented plugin is installed."""
    site = tmp_path / "site"
    site.mkdir()
    install_documented_plugin(site)
    (path, text), *_ = re.findall(r"^`([\w./]+)`\n\n```python\n(.*?)^```$", PAGE, flags=re.M | re.S)
    assert path == "tests/test_huber.py"
    (kdkit_cli.folder / "tests").mkdir()
    (kdkit_cli.folder / path).write_text(text, encoding="utf-8")
    kdkit_cli.environment["PYTHONPATH"] = str(site)
    return kdkit_cli


def test_the_documented_tests_pass_under_pytest(huber: Cli) -> None:
    outcome = huber.python("-m", "pytest", "-p", "no:cacheprovider", "-q", "tests")
    number = sum(
        1 for name in ("PluginContract", "LossContract", "LossContract") for _ in kit.checks(getattr(kit, name))
    )
    assert outcome.stdout.strip().splitlines()[-1].startswith(f"{number} passed"), outcome.stdout
    assert outcome.code == 0


def test_the_documented_tests_pass_from_the_command_line(huber: Cli) -> None:
    outcome = huber("plugins", "verify", "kdkit-huber", "--tests", "tests/test_huber.py", "--json")
    assert outcome.code == 0, outcome.stdout
    report = json.loads(outcome.stdout)
    assert {check["contract"] for check in report["checks"]} == {"TestPlugin", "TestHuber", "TestFlatHuber"}
    assert {check["status"] for check in report["checks"]} == {"passed"}
