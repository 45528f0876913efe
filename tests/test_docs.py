"""The documentation says what the code does: hooks, specs, commands, exit codes, variables."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from kdkit.cli.main import app
from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import hookspecs, specs
from kdkit.core.plugin_system.discovery import HOOKS, discover, installed
from tests import hook_pages
from tests.conftest import Cli
from tests.documented_plugin import install_documented_plugin

ROOT = Path(__file__).parents[1]
PLUGINS = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs/cli.md").read_text(encoding="utf-8")


def sections(text: str, level: str) -> dict[str, str]:
    """Heading -> the text under it."""
    parts = re.split(rf"^{level} (.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# ------------------------------------------------------------------------------------ plugins


DECLARED = sorted(name for name in vars(hookspecs) if name.startswith("kdkit_"))


def test_every_hook_has_a_page_and_every_page_a_hook() -> None:
    assert sorted(path.stem for path in hook_pages.FOLDER.iterdir()) == DECLARED
    listed = re.findall(r"^\| \[`(\w+)`\]\(hooks/(\w+)\.md\)", PLUGINS, flags=re.M)
    assert sorted(listed) == [(name, name) for name in DECLARED]


@pytest.mark.parametrize("hook", DECLARED)
def test_a_page_says_what_the_code_says(hook: str) -> None:
    """Arguments, fields, protocol and example; ``python -m tests.hook_pages`` writes the pages anew."""
    assert (hook_pages.FOLDER / f"{hook}.md").read_text(encoding="utf-8") == hook_pages.page(hook)


def test_a_page_would_notice_an_argument_and_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    hook, (family, _) = "kdkit_losses", HOOKS["kdkit_losses"]
    before = hook_pages.page(hook)

    def kdkit_losses(device: str) -> None:
        """Losses that recipes can name."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class LossSpec(specs.LossSpec):
        """As it is, and one more."""

        weight: float = 1.0
        """Of the loss."""

    with monkeypatch.context() as patch:
        patch.setattr(hookspecs, hook, kdkit_losses)
        assert hook_pages.page(hook).startswith("# `kdkit_losses(device: str) -> None`")
    with monkeypatch.context() as patch:
        patch.setitem(cast(dict[str, Any], HOOKS), hook, (family, LossSpec))
        assert "| `weight` | `float` | `1.0` | Of the loss. |" in hook_pages.page(hook)
    assert hook_pages.page(hook) == before


@pytest.fixture
def huber(tmp_path: Path) -> Path:
    """The complete plugin of the documentation, installed into a folder."""
    install_documented_plugin(tmp_path)
    return tmp_path


def test_the_documented_plugin_is_listed(huber: Path, kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("plugins", "--json", env={"PYTHONPATH": str(huber), "KDKIT_STRICT": "1"})
    assert (outcome.code, outcome.stderr) == (0, "")
    (record,) = [r for r in json.loads(outcome.stdout)["plugins"] if r["name"] == "huber"]
    assert record["distribution"] == "kdkit-huber"
    assert record["provides"] == {"loss": ["huber"]}


@pytest.fixture
def importable(huber: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(huber))
    yield
    for name in [name for name in sys.modules if name.startswith("kdkit_huber")]:
        del sys.modules[name]


@pytest.mark.usefixtures("importable")
def test_the_documented_loss_is_what_it_says() -> None:
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
    silent = TeacherView("t", torch.zeros(3), {"image": target}, {"image": student})
    nothing = loss(LossInput({"logit_scale": scale}, (silent,), torch.zeros(3, dtype=torch.int64)))
    assert nothing.item() == 0
    assert nothing.requires_grad


# --------------------------------------------------------------------------------- command line


def commands(group: TyperGroup, prefix: str = "kdkit") -> Iterator[tuple[str, set[str]]]:
    """Every command with its options (long names)."""
    for name, command in group.commands.items():
        options = {o for parameter in command.params for o in (*parameter.opts, *parameter.secondary_opts)}
        yield f"{prefix} {name}", {option for option in options if option.startswith("--")}
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{prefix} {name}")


def app_commands() -> dict[str, set[str]]:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(commands(group))


def documented() -> dict[str, str]:
    """Command -> its section of docs/cli.md, heading included; a heading also shows the arguments."""
    found = sections(CLI, "###").items()
    return {" ".join(re.findall(r"(?<![-\w\[])[a-z][a-z-]*", heading)): heading + text for heading, text in found}


def test_every_command_has_one_section_and_every_section_a_command() -> None:
    assert len(sections(CLI, "###")) == len(re.findall(r"^### ", CLI, flags=re.M))
    assert set(documented()) == set(app_commands())


def test_every_option_is_documented() -> None:
    everywhere = {"--help", "--json", "--project"}
    for command, options in app_commands().items():
        assert {option for option in options - everywhere if option not in documented()[command]} == set(), command


def test_the_exit_codes_are_documented() -> None:
    table = {int(number) for number in re.findall(r"^\| (\d+) \|", CLI, flags=re.M)}
    assert table == {*ExitCode, 141}


def test_every_variable_is_documented() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "kdkit").rglob("*.py"))
    used = set(re.findall(r"\bKDKIT_(?!API\b)[A-Z_]+\b", sources))
    assert used
    assert used == set(re.findall(r"^\| `(KDKIT_[A-Z_]+)", CLI, flags=re.M))


# -------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda path: path.name)
def test_links_within_the_project_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    inside = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in inside if not (document.parent / target).exists()] == []
