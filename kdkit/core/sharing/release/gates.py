"""The decisions of ``kdkit best-of-n`` about a version, in a release or an export and out of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kdkit.core.evaluation.answering.gate_file import GATES as IN_VERSION
from kdkit.core.evaluation.answering.gate_file import gate_bytes, is_gate_name, read_gates
from kdkit.core.project.versions import Version
from kdkit.core.sharing.release.layout import GATES
from kdkit.core.sharing.release.redact import without_paths


def write_gates(version: Version, to: Path) -> None:
    """Write the gates of ``version`` into ``to``, without paths; their names stay those of the settings with paths."""
    for name, gate in read_gates(version.folder).items():
        (to / GATES).mkdir(parents=True, exist_ok=True)
        (to / GATES / name).write_bytes(gate_bytes(replace(gate, settings=without_paths(gate.settings))))


def gates_among(paths: Iterable[str]) -> list[str]:
    """Of the paths of a release, those of gates."""
    return [path for path in paths if path.startswith(f"{GATES}/") and is_gate_name(path.removeprefix(f"{GATES}/"))]


def keep_gates(release: Path, names: Iterable[str], version: Path) -> None:
    """Copy the gates ``names`` of a release into the folder of a version."""
    for name in names:
        place = version / IN_VERSION / Path(name).name
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(release / name, place)
