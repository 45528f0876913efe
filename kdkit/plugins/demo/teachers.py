"""The five specialists of the demo world: who they are and where their weights lie. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""The folder of the shipped teachers, one subfolder each, ready for ``open_clip``'s ``local-dir:`` scheme."""


@dataclass(frozen=True, slots=True)
class Specialist:
    """A teacher that has seen pictures of ``domains`` only; its features have ``embed_dim`` numbers.

    ``steps`` is how long it was trained: some specialists are better than others.
    """

    name: str
    domains: tuple[str, ...]
    embed_dim: int
    seed: int
    steps: int = 1400


SPECIALISTS: tuple[Specialist, ...] = (
    Specialist("radio", ("ct", "mri", "xray"), 96, 101),
    Specialist("eye", ("ultrasound", "fundus", "oct"), 128, 102),
    Specialist("tissue", ("dermoscopy", "histology", "endoscopy"), 64, 113),
    Specialist("point", ("ct", "xray", "ultrasound"), 64, 104, steps=800),
    Specialist("surface", ("fundus", "dermoscopy", "endoscopy"), 96, 105, steps=800),
)
"""They overlap: six domains have a second, less trained teacher; mri, histology and oct have only one."""


def find_specialist(name: str) -> Specialist:
    """The specialist of that name."""
    for specialist in SPECIALISTS:
        if specialist.name == name:
            return specialist
    raise ValueError(f"no demo teacher {name!r}; there are {', '.join(one.name for one in SPECIALISTS)}")


def teacher_folder(name: str) -> Path:
    """Where the shipped weights of a specialist lie."""
    return WEIGHTS / find_specialist(name).name
