"""Plugins as ``pip install`` would leave them, and the processor time of commands that load them."""

from __future__ import annotations

import resource
from pathlib import Path

GOOD = """
from kdkit import LossSpec, TeacherSpec, hookimpl

@hookimpl
def kdkit_teachers():
    return [
        TeacherSpec(name=f"teacher-{number}-{{n}}", summary="Fake.", source="hf:nobody/nothing", loader="open_clip")
        for n in range(5)
    ]

@hookimpl
def kdkit_losses():
    yield LossSpec(name="loss-{number}", summary="Fake.", factory="builtins:dict")
"""


def install(site: Path, name: str, source: str, requires: str = "") -> None:
    """What ``pip install`` would leave of a plugin."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(source)
    facts = site / f"{module}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}")
    (facts / "entry_points.txt").write_text(f"[kdkit]\n{name.removeprefix('kdkit-')} = {module}\n")


def cpu_of_children() -> float:
    """Processor seconds of the processes that have ended: what a busy machine hardly changes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
