"""``kdkit.Project`` and the functions of ``kdkit`` are equal to the command line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from doctest import ELLIPSIS, DocTestFinder, DocTestRunner
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import kdkit
from kdkit.cli.main import app
from tests.errors import raises_error

PROJECT = {
    "init": "create",
    "add-teacher": "add_teacher",
    "teachers": "teachers",
    "teachers show": "teacher_facts",
    "remove-teacher": "remove_teacher",
    "lock": "lock",
    "data check": "check_data",
    "data label": "label_data",
    "data shards": "shard_data",
    "features": "features",
    "features extract": "extract",
    "features import": "import_features",
    "features export": "export_features",
    "features verify": "verify_features",
    "features push": "push_features",
    "features pull": "pull_features",
    "trust": "trust",
    "align": "align",
    "pseudo-label": "pseudo_label",
    "import-student": "import_student",
    "pretrain": "pretrain",
    "distill": "distill",
    "profile": "profile",
    "versions": "versions",
    "versions show": "lineage",
    "versions promote": "promote",
    "rollback": "rollback",
    "evaluate": "evaluate",
    "report": "report",
    "explain": "explain",
    "sweep": "sweep",
    "answer": "answer",
    "best-of-n": "best_of_n",
    "correct": "correct",
    "export": "export",
    "push": "push",
    "pull": "pull",
    "bundle": "bundle",
    "unbundle": "unbundle",
}
"""Command -> method of kdkit.Project."""
FUNCTIONS = {
    "recipes": "recipes",
    "recipes show": "show_recipe",
    "suites": "suites",
    "suites show": "show_suite",
    "plugins": "list_plugins",
    "plugins verify": "verify_plugin",
    "plugins freeze": "freeze_plugins",
    "new-plugin": "new_plugin",
}
"""Command without a project -> function of kdkit."""
SHELL_ONLY = {"install", "uninstall", "demo"}
"""They change the environment of kdkit, or show commands."""
OWN_METHOD = {
    ("add-teacher", "dry_run"): "plan_teacher",
    ("data shards", "dry_run"): "plan_shards",
    ("features extract", "dry_run"): "plan_extraction",
    ("distill", "dry_run"): "plan",
    ("explain", "dry_run"): "plan_explanation",
    ("sweep", "dry_run"): "plan_sweep",
    ("lock", "check"): "check_lock",
}
"""Options that change what a command returns."""
PROCESSES = {("distill", "gpus")}
"""Options that start processes, each of which calls the method."""
FORECASTS = {("distill", "plan_for"), ("features extract", "plan_for")}
"""Options of a dry run alone: of its own method."""
RENAMED = {
    "--from": "source",
    "--with": "parts",
    "--pr": "pull_request",
    "--domain": "domains",
    "--split": "splits",
    "--dataset": "datasets",
    "--option": "options",
    "--aligner": "aligners",
    "--continue": "continued",
}
"""Options whose name is a Python keyword, an abbreviation or a singular."""
SHARED = {"json", "help", "reporter", "self"}


def commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """("features extract", command), groups that are commands themselves included."""
    group = group or get_command(app)
    for name, command in group.commands.items():
        full = f"{path} {name}".strip()
        if not hasattr(command, "commands") or command.invoke_without_command:
            yield full, command
        if hasattr(command, "commands"):
            yield from commands(command, full)


COMMANDS = dict(commands())


def method_of(command: str) -> Any:
    if command in PROJECT:
        return getattr(kdkit.Project, PROJECT[command])
    return getattr(kdkit, FUNCTIONS[command])


def normal(value: object) -> object:
    """Empty collections, None and False are one default; a path is its text."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str) and "," in value:
        return tuple(value.split(","))
    return None if isinstance(value, bool | tuple | list) and not value else value


def test_every_command_has_its_method() -> None:
    assert set(COMMANDS) == set(PROJECT) | set(FUNCTIONS) | SHELL_ONLY


@pytest.mark.parametrize("command", sorted({*PROJECT, *FUNCTIONS}))
def test_parameters_and_defaults_are_those_of_the_command(command: str) -> None:
    shared = SHARED | (set() if command == "init" else {"folder"})
    wanted = {
        p.name: p
        for p in COMMANDS[command].params
        if p.name not in shared and (command, p.name) not in {*OWN_METHOD, *PROCESSES, *FORECASTS}
    }
    given = {n: p for n, p in inspect.signature(method_of(command)).parameters.items() if n not in shared}
    assert set(given) == set(wanted)
    for name, parameter in given.items():
        required = parameter.default is inspect.Parameter.empty
        assert required == wanted[name].required, name
        if not required:
            assert normal(parameter.default) == normal(wanted[name].default), name


@pytest.mark.parametrize(("command", "option"), sorted(OWN_METHOD))
def test_methods_for_dry_runs_take_parameters_of_the_command(command: str, option: str) -> None:
    own = inspect.signature(getattr(kdkit.Project, OWN_METHOD[command, option])).parameters
    full = inspect.signature(method_of(command)).parameters
    planned = {name for name in own if (command, name) in PROCESSES | FORECASTS}  # a method starts no processes
    assert set(own) - planned <= set(full)
    assert all(own[name].default == full[name].default for name in set(own) - planned)


@pytest.mark.parametrize("command", sorted({*PROJECT, *FUNCTIONS}))
def test_options_are_named_as_parameters(command: str) -> None:
    for parameter in COMMANDS[command].params:
        long = [option for option in parameter.opts if option.startswith("--")]
        if long and parameter.name != "folder":
            assert parameter.name in (RENAMED.get(long[0]), long[0][2:].replace("-", "_"))


def test_every_method_is_documented_with_an_example() -> None:
    methods = [method_of(command) for command in (*PROJECT, *FUNCTIONS)]
    methods += [getattr(kdkit.Project, name) for name in OWN_METHOD.values()]
    for method in methods:
        text = inspect.getdoc(method) or ""
        assert ">>>" in text.partition("Example:")[2], method.__name__
        parameters = set(inspect.signature(method).parameters) - SHARED - {"folder"}
        if not method.__name__.startswith("plan") and len(parameters) > 1:
            missing = [name for name in parameters if name not in text]
            assert missing == [], method.__name__


ORDER = (
    "plan_teacher",
    "add_teacher",
    "teachers",
    "teacher_facts",
    "lock",
    "check_lock",
    "check_data",
    "features",
    "extract",
    "plan_extraction",
    "plan_shards",
    "verify_features",
    "trust",
    "align",
    "plan",
    "profile",
    "distill",
    "versions",
    "lineage",
    "load_student",
    "rollback",
    "evaluate",
    "report",
    "bundle",
    "export",
    "remove_teacher",
)
"""Methods whose examples run, one after the other, on one project."""
REGISTRY = """\
version: 1
use: research
student: {family: demo-student}
teachers: {}
data:
  - source: procedural
    path: data
    options: {seed: 0, train: 60, calibration: 60, test: 60, domains: [ct, mri]}
prompts:
  default: ["{domain} showing {label}"]
optimizer: {lr: 0.004, batch_size: 32, epochs: 8}
recipe: kdkit
"""


def test_the_examples_of_all_methods_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = kdkit.Project.create("my-project", reporter=kdkit.Silent())
    (project.root / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    names = {"kdkit": kdkit, "project": project}
    finder, runner = DocTestFinder(recurse=False), DocTestRunner(optionflags=ELLIPSIS)
    for name in ("create", *ORDER):
        (example,) = finder.find(getattr(kdkit.Project, name), name, globs=names)
        assert runner.run(example).failed == 0, name
    methods = {name for name, _ in inspect.getmembers(kdkit.Project, callable) if not name.startswith("_")}
    skipped = {name for name in methods if "+SKIP" in (inspect.getdoc(getattr(kdkit.Project, name)) or "")}
    assert methods - skipped == {"create", *ORDER}


def test_the_examples_of_all_functions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = DocTestRunner(optionflags=ELLIPSIS)
    for name in FUNCTIONS.values():
        function = getattr(kdkit, name)
        (example,) = DocTestFinder(recurse=False).find(function, name, globs={name: function})
        assert runner.run(example).failed == 0, name


def test_methods_read_the_registry_as_it_is_now(tmp_path: Path) -> None:
    project = kdkit.Project.create(tmp_path, reporter=kdkit.Silent())
    path = tmp_path / "registry.yaml"
    path.write_text("version: 1\nteachers:\n  mine: {from: 'local:x', loader: open_clip}\n", encoding="utf-8")
    assert [row.name for row in project.teachers() if row.chosen] == ["mine"]
    path.write_text("version: 1\n", encoding="utf-8")
    assert [row.name for row in project.teachers() if row.chosen] == []


def test_a_project_is_found_from_a_folder_below_given_as_text_or_path(tmp_path: Path) -> None:
    kdkit.Project.create(tmp_path)
    below = tmp_path / "data" / "ct"
    below.mkdir(parents=True)
    assert kdkit.Project(str(below)) == kdkit.Project(below) == kdkit.Project(tmp_path)
    assert kdkit.Project.create(tmp_path).root == tmp_path


def test_an_unknown_split_is_an_error(tmp_path: Path) -> None:
    with raises_error("KD-API-004", mentions=("'test'",)):
        kdkit.Project.create(tmp_path).evaluate(split="tst")


def test_arguments_of_suites_are_refused_without_one(tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    arguments: dict[str, Any] = {"datasets": ["busi"], "data": tmp_path, "no_teachers": True}
    for name, value in arguments.items():
        with raises_error("KD-API-285", where=name):
            kdkit.Project(tmp_path).evaluate(**{name: value})
