"""The complete plugin of docs/howto/write-plugin.md, installed into a folder."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.conftest import write_facts

PAGE = Path(__file__).parents[1] / "docs/howto/write-plugin.md"
FILES = {"pyproject.toml", "kdkit_huber/__init__.py", "kdkit_huber/loss.py"}


def install_documented_plugin(site: Path) -> None:
    """Write what ``pip install`` would leave in ``site``."""
    files = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S))
    assert set(files) == FILES
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for path, text in files.items():
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_text(text, encoding="utf-8")
    points = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["kdkit"].items())
    write_facts(site, project["name"], project["version"], f"[kdkit]\n{points}")
