"""Runs public commands for the demos."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from kdkit.cli import console
from kdkit.core.base.errors import KdkitError


@dataclass(frozen=True)
class Steps:
    """Runs commands in one project and in this process: importing torch for each would double the demo's time.

    Attributes:
        root: the project's folder.
        command: the root command of the command line.
    """

    root: Path
    command: Any

    @classmethod
    def in_new_folder(cls, folder: str, context: typer.Context) -> Steps:
        """Make the project's folder.

        Raises:
            KdkitError: a folder that exists.
        """
        root = Path(folder)
        if root.exists():
            raise KdkitError(
                "KD-CLI-003",
                f"'{folder}' exists already",
                fix="name another folder: 'kdkit demo DIR'; or remove it to start again",
            )
        root.mkdir(parents=True)
        return cls(root, context.find_root().command)

    def run(self, *arguments: str, allowed: Sequence[int] = (0,)) -> None:
        """Run ``kdkit ARGUMENTS`` and end the demo unless its exit code is ``allowed``."""
        console.say(f"\n$ kdkit {' '.join(arguments)}")
        code = self.command.main([*arguments, "--project", str(self.root)], prog_name="kdkit", standalone_mode=False)
        if isinstance(code, int) and code not in allowed:
            raise typer.Exit(code)

    def capture(self, *arguments: str) -> str:
        """Standard output of a command, which is not shown."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.run(*arguments)
        return out.getvalue()

    def write_registry(self, text: str) -> None:
        (self.root / "registry.yaml").write_text(text, encoding="utf-8")
        console.say(f"\nwrote {self.root / 'registry.yaml'}")

    def add_data(self, entry: str, before: str) -> None:
        """Insert a data entry into ``registry.yaml``, before the line that starts with ``before``."""
        path = self.root / "registry.yaml"
        head, tail = path.read_text(encoding="utf-8").split(f"\n{before}", 1)
        path.write_text(f"{head.rstrip()}\n{entry}\n{before}{tail}", encoding="utf-8")
        console.say(f"added to {path}:\n{entry.rstrip()}")


def heading(text: str) -> None:
    console.say(f"\n== {text}")
