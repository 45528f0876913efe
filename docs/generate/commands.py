"""The page of all commands, made by Typer from the application itself."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from kdkit.cli.main import STORY, app

INTRODUCTION = """\
# Commands

*This page is generated from the command line itself.* [The command line](cli.md) has conventions, exit codes and
environment variables.

## Global options

Global options stand before the command: `kdkit --no-plugins teachers`.

"""


def page() -> str:
    """Every command with its arguments and options, in the order of ``kdkit --help``."""
    group: Any = get_command(app)
    context = typer.Context(group, info_name="kdkit")
    text = INTRODUCTION + _options(get_docs_for_click(obj=group, ctx=context, name="kdkit"))
    for heading, names in STORY.items():
        text += f"\n## {heading}\n"
        for name in names:
            command = group.commands[name]
            documented = get_docs_for_click(obj=command, ctx=context, name=name, call_prefix="kdkit")
            text += "\n" + re.sub(r"^(#+) ", r"##\1 ", _without_command_list(documented), flags=re.M).strip() + "\n"
    return text


def _options(documented: str) -> str:
    """The options of the application alone."""
    return documented.partition("**Options**:\n\n")[2].partition("\n\n")[0] + "\n"


def _without_command_list(documented: str) -> str:
    """Without the list of a group's commands, whose sections follow."""
    return re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", documented)
