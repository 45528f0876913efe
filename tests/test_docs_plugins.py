"""The documented plugin works, its tests pass, and every built-in part is documented with its options."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdkit.testing as kit
from kdkit.core.contracts.specs import FactorySpec
from kdkit.core.plugin_system.catalogue import Family, resolve
from kdkit.core.plugin_system.discovery import discover, load_catalogue
from kdkit.core.plugin_system.installed import installed
from tests.conftest import Cli
from tests.documented_plugin import install_documented_plugin
from tests.test_architecture import PUBLIC

DOCS = Path(__file__).parents[1] / "docs"
TESTING = (DOCS / "howto/test-plugin.md").read_text(encoding="utf-8")
PAGES: dict[Family, str] = {
    "loss": "reference/losses.md",
    "aligner": "reference/aligners.md",
    "rope": "reference/rope.md",
    "policy": "explanation/trust.md",
    "task": "reference/evaluation.md",
    "source": "reference/sources.md",
}
"""Where the parts of a family are documented."""
QUESTIONS = (
    *("sharegpt", "med-grit", "vqa-rad", "slake", "llava-med-qa"),
    *("hub-questions", "pmc-vqa", "omni-med-vqa", "vqa-med"),
)


# ------------------------------------------------------------------------- the documented plugin


@pytest.fixture
def huber(tmp_path: Path) -> Path:
    """The complete plugin of the documentation, installed into a folder."""
    site = tmp_path / "site"
    site.mkdir()
    install_documented_plugin(site)
    return site


@pytest.fixture
def importable(huber: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(huber))
    yield
    for name in [name for name in sys.modules if name.startswith("kdkit_huber")]:
        del sys.modules[name]


@pytest.fixture
def with_tests(huber: Path, kdkit_cli: Cli) -> Cli:
    """The command in a folder with the documented tests, where the documented plugin is installed."""
    (path, text), *_ = re.findall(r"^`([\w./]+)`\n\n```python\n(.*?)^```$", TESTING, flags=re.M | re.S)
    assert path == "tests/test_huber.py"
    (kdkit_cli.folder / "tests").mkdir()
    (kdkit_cli.folder / path).write_text(text, encoding="utf-8")
    kdkit_cli.environment["PYTHONPATH"] = str(huber)
    return kdkit_cli


def test_the_documented_plugin_is_listed(huber: Path, kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("plugins", "--json", env={"PYTHONPATH": str(huber), "KDKIT_STRICT": "1"})
    assert (outcome.code, outcome.stderr) == (0, "")
    (record,) = [r for r in json.loads(outcome.stdout)["plugins"] if r["name"] == "huber"]
    assert record["distribution"] == "kdkit-huber"
    assert record["provides"] == {"loss": ["huber"]}


@pytest.mark.usefixtures("importable")
def test_the_documented_loss_has_value_and_gradient() -> None:
    import torch

    from kdkit.core.contracts import LossInput, TeacherView

    loss = discover(installed()).make("loss", "huber", delta=0.5)
    student = torch.tensor([[0.2, 0.0], [3.0, 1.0], [9.0, 9.0]], requires_grad=True)
    target = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    view = TeacherView("t", torch.tensor([1.0, 3.0, 0.0]), {"image": target}, {"image": student})
    scale = torch.tensor(1.0, requires_grad=True)
    value = loss(LossInput({"image": student, "logit_scale": scale}, (view,), torch.zeros(3, dtype=torch.int64)))
    first, second = (0.5 * 0.2**2 + 0) / 2, (0.5 * (3.0 - 0.25) + 0.5 * (1.0 - 0.25)) / 2
    assert value.item() == pytest.approx((1 * first + 3 * second) / 4)
    value.backward()
    assert student.grad is not None
    assert student.grad[2].tolist() == [0.0, 0.0]
    unweighted = TeacherView("t", torch.zeros(3), {"image": target}, {"image": student})
    zero = loss(LossInput({"logit_scale": scale}, (unweighted,), torch.zeros(3, dtype=torch.int64)))
    assert zero.item() == 0
    assert zero.requires_grad


def test_the_documented_tests_pass_under_pytest(with_tests: Cli) -> None:
    outcome = with_tests.warm("-m", "pytest", "-p", "no:cacheprovider", "-q", "tests")
    contracts = ("PluginContract", "LossContract", "LossContract")
    number = sum(1 for name in contracts for _ in kit.checks(getattr(kit, name)))
    assert outcome.stdout.strip().splitlines()[-1].startswith(f"{number} passed"), outcome.stdout
    assert outcome.code == 0


def test_the_documented_tests_pass_from_the_command_line(with_tests: Cli) -> None:
    outcome = with_tests("plugins", "verify", "kdkit-huber", "--tests", "tests/test_huber.py", "--json")
    assert outcome.code == 0, outcome.stdout
    report = json.loads(outcome.stdout)
    assert {check["contract"] for check in report["checks"]} == {"TestPlugin", "TestHuber", "TestFlatHuber"}
    assert {check["status"] for check in report["checks"]} == {"passed"}


# ------------------------------------------------------------------------------ parts and options


def rows(page: str) -> list[str]:
    """The rows of all tables of a page, pipe tables and list tables."""
    lists = re.findall(r"^```\{list-table\}\n(.*?)^```$", page, flags=re.M | re.S)
    return [*re.findall(r"^\|.*$", page, flags=re.M), *(row for text in lists for row in text.split("\n* - ")[1:])]


def built_in() -> list[tuple[Family, str]]:
    entries = [(family, entry) for family in PAGES for entry in load_catalogue().entries(family)]
    return [(family, entry.spec.name) for family, entry in entries if entry.provider == "kdkit"]


@pytest.mark.parametrize(("family", "name"), built_in())
def test_a_part_is_documented_with_its_options(family: Family, name: str) -> None:
    page = (DOCS / PAGES[family]).read_text(encoding="utf-8")
    assert f"`{name}`" in page
    if name in QUESTIONS:  # these sources share a table: the rows that name this one, or are of all
        page = "\n".join(row for row in rows(page) if f"`{name}`" in row or "\n  - all\n" in row)
    spec = load_catalogue().get(family, name).spec
    assert isinstance(spec, FactorySpec)
    parameters = inspect.signature(resolve(spec.factory)).parameters.values()
    options = {parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY}
    assert sorted(option for option in options if f"`{option}" not in page) == []


def test_every_contract_has_a_row() -> None:
    contracts = sorted(name for name in kit.__all__ if name.endswith("Contract") and name != "Contract")
    assert [found for row in rows(TESTING) for found in re.findall(r"^\W*`(\w+Contract)`", row)] == contracts


def test_every_public_module_is_named() -> None:
    page = (DOCS / "howto/write-plugin.md").read_text(encoding="utf-8")
    assert sorted(module for module in PUBLIC if f"`{module}`" not in page) == []
