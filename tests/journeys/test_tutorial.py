"""The commands of the tutorial print what it shows; its files are written and its changes applied."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from tests.conftest import clean_environment, start
from tests.core.plugin_system.scaffold.fresh import OFFLINE, FreshEnvironment

TUTORIAL = Path(__file__).parents[2] / "docs/start/teacher-plugin.md"
WARM = {
    "kdkit": ["-m", "kdkit"],
    "pytest": ["-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"],
}
"""Commands of Python in the fresh environment, which find the libraries imported."""


def blocks() -> Iterator[tuple[str, str]]:
    """(language, text) of every code block."""
    yield from re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands(block: str) -> Iterator[tuple[str, str]]:
    """(command, output) of every line that begins with ``$``."""
    for part in block.removeprefix("$ ").split("\n$ "):
        command, _, output = part.partition("\n")
        yield command, output


def steady(text: str) -> str:
    """Without what differs from run to run: progress, seconds, milliseconds."""
    text = re.sub(r"^.+: \d+/\d+  .*\n", "", text, flags=re.M)
    text = re.sub(r"\d+\.\d+ ?s\b", "# s", text)
    return re.sub(r"( ok +)\d+", r"\1#", text)


class Shell:
    """Remembers the folder. Output is stdout and stderr, as a person sees it."""

    def __init__(self, environment: FreshEnvironment, folder: Path) -> None:
        self.folder = folder
        self.python = environment.executable
        path = os.pathsep.join([str(self.python.parent), os.environ["PATH"]])
        self.variables = {**clean_environment(), **OFFLINE, "PATH": path, "COLUMNS": "80"}

    def __call__(self, command: str, text: str = "") -> str:
        name, *words = shlex.split(command)
        if name == "cd":
            self.folder = (self.folder / words[0]).resolve()
            return ""
        with TemporaryFile("w+") as out:
            if name in WARM or words[:1] == ["-m"]:
                streams: dict[str, Any] = {"out": out, "err": out}
                arguments = (*WARM.get(name, ()), *words)
                start(*arguments, folder=self.folder, environment=self.variables, python=self.python, **streams).wait(
                    300
                )
            else:
                subprocess.run(
                    ["bash", "-c", command],
                    cwd=self.folder,
                    env=self.variables,
                    input=text,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=300,
                    check=False,
                )
            out.seek(0)
            return out.read()


def test_every_command_prints_what_is_shown(tmp_path: Path) -> None:
    shell = Shell(FreshEnvironment(tmp_path / "venv"), tmp_path)
    for language, block in blocks():
        if language == "console":
            for command, wanted in commands(block):
                found = shell(command)
                assert same(wanted, found), f"$ {command}\n{found}\n--- but the page shows:\n{wanted}"
        elif language == "diff":
            assert shell("git apply --verbose -", block).startswith("Checking patch"), block
        else:
            name = re.match(r"# ([\w.]+)\n", block)
            assert name, f"a block without a file's name:\n{block}"
            (shell.folder / name[1]).write_text(block, encoding="utf-8")


def same(wanted: str, found: str) -> bool:
    options = ELLIPSIS | NORMALIZE_WHITESPACE
    return OutputChecker().check_output(steady(wanted), steady(found), options)


@pytest.mark.parametrize(
    ("wanted", "found", "equal"),
    [
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("3 passed in 0.9 s\n", "3 passed in 17.25s\n", True),
        ("3 passed in 0.9 s\n", "2 passed in 0.9 s\n", False),
        ("", "error\n", False),
    ],
)
def test_outputs_are_compared_exactly_but_for_seconds(wanted: str, found: str, equal: bool) -> None:
    assert same(wanted, found) == equal
