"""Every ``kdkit`` line in the README, the documentation and the messages is a command with these options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from docs.generate import written_by_hand
from kdkit.cli.main import app

ROOT = Path(__file__).parents[1]
KDKIT: Any = get_command(app)


def shown() -> Iterator[tuple[str, str]]:
    """(file, line) of each command in a code block or between backticks."""
    pages = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    for path in [*pages, *written_by_hand()]:
        text = path.read_text(encoding="utf-8")
        blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, flags=re.S)
        lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
        inline = re.findall(r"`(kdkit [^`\n]+)`", text)
        for line in [*lines, *inline]:
            if line.startswith("kdkit "):
                yield str(path.relative_to(ROOT)), re.split(r"[#|>;]", line.replace("\\", ""))[0].strip()


@pytest.mark.parametrize(("file", "line"), sorted(set(shown())))
def test_a_shown_command_exists_with_its_options(file: str, line: str) -> None:
    command = KDKIT
    words = [word for word in shlex.split(line)[1:] if word not in ("COMMAND", "--debug", "--no-plugins")]
    known: set[str] = set()
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command = command.commands[words.pop(0)]
        known |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {option for parameter in KDKIT.params for option in parameter.opts}
    used = {word.split("=")[0] for word in words if word.startswith("-")}
    named = [word for word in words if not word.startswith(("-", "NAME", "..."))]
    assert not hasattr(command, "commands") or not named, f"{file}: there is no command as in '{line}'"
    assert used <= known | {"-h", "--help"}, f"{file}: '{line}'"


def advised() -> Iterator[tuple[str, str]]:
    """(file, line) of each command in single quotes in the source, as messages have it."""
    for path in sorted((ROOT / "kdkit").rglob("*.py")):
        for line in re.findall(r"'(kdkit [a-z][^'{}\n]*)'", path.read_text(encoding="utf-8")):
            yield str(path.relative_to(ROOT)), line


def test_a_command_in_a_message_can_be_run() -> None:
    """Not a group that only prints its usage: 'kdkit data check', not 'kdkit data'."""
    found = list(advised())
    assert found
    for file, line in found:
        command = KDKIT
        for word in line.split()[1:]:
            if not hasattr(command, "commands") or word.startswith("-"):
                break
            command = command.commands.get(word)
            assert command is not None, f"{file}: there is no command as in '{line}'"
        assert not hasattr(command, "commands") or command.invoke_without_command, f"{file}: '{line}' is a group"
