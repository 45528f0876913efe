"""``kdkit profile``: parts that add up to the step, one advice, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.contracts import Silent
from kdkit.core.distill.loop.stopwatch import PARTS
from kdkit.core.distill.options import Options
from kdkit.core.distill.profiling import advise, profile
from tests.errors import raises_error
from tests.toy_project import open_project


def files(folder: Path) -> set[str]:
    """All but the index of the samples, which every command keeps."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith(".kdkit/index")}


def test_the_parts_of_real_steps(folder: Path) -> None:
    before = files(folder)
    found = profile(open_project(folder), Options(cpu=True), 6, Silent())
    assert found is not None
    assert tuple(found.seconds) == PARTS
    assert (found.steps, found.processes, found.device) == (4, 1, "cpu")
    assert all(found.seconds[part] > 0 for part in ("forward", "losses", "backward", "optimizer"))
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert 0 < sum(found.seconds.values()) < 2 * found.step_seconds
    assert found.advice in str(found)
    assert files(folder) == before


def test_too_few_steps(folder: Path) -> None:
    with raises_error("KD-DIST-406", where="--steps"):
        profile(open_project(folder), Options(cpu=True), 2, Silent())


@pytest.mark.parametrize(
    ("part", "settings", "word"),
    [
        ("data", {}, "cache: uint8"),
        ("data", {"cached": True}, "faster disk"),
        ("losses", {}, "--gpus"),
        ("optimizer", {}, "batch_size"),
        ("sync", {}, "wait for each other"),
        ("backward", {"micro": True, "gpu": True}, "micro_batch"),
        ("forward", {"gpu": True}, "--precision bf16"),
        ("forward", {"gpu": True, "bf16": True}, "student itself"),
        ("backward", {}, "student itself"),
    ],
)
def test_the_advice_is_about_the_largest_part(part: str, settings: dict[str, bool], word: str) -> None:
    seconds = {**dict.fromkeys(PARTS, 0.1), part: 5.0}
    assert word in advise(seconds, settings)
