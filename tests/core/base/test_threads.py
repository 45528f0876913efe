"""Affinity, quotas of cgroups, and the user's own variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdkit.core.base import threads
from kdkit.core.base.threads import settle_threads, usable_processors


def cgroups(folder: Path, *limits: str) -> tuple[Path, Path]:
    """A tree of cgroups with these ``cpu.max``, the outermost first, and the file that names the innermost."""
    place = folder / "cgroup"
    for number, limit in enumerate(limits):
        place = place / f"g{number}" if number else place
        place.mkdir(parents=True)
        if limit:
            (place / "cpu.max").write_text(f"{limit} 100000\n", encoding="utf-8")
    own = folder / "own"
    own.write_text(f"0::/{place.relative_to(folder / 'cgroup')}\n", encoding="utf-8")
    return folder / "cgroup", own


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (("", "max"), 8),
        (("", "350000"), 3),
        (("200000", "350000"), 2),
        (("", "50000"), 1),
        (("", "nonsense"), 8),
        (("", "9900000"), 8),
    ],
)
def test_the_smallest_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: tuple[str, ...], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_processors(*cgroups(tmp_path, *limits)) == expected


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_processors(tmp_path, tmp_path / "none") == len(os.sched_getaffinity(0))


def test_a_quota_limits_the_threads_unless_the_user_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for usable, before, after in (
        (3, {}, {"OMP_NUM_THREADS": "3"}),
        (8, {}, {}),
        (3, {"OMP_NUM_THREADS": "5"}, {"OMP_NUM_THREADS": "5"}),
    ):
        monkeypatch.setattr(threads, "usable_processors", lambda usable=usable: usable)
        found = dict(before)
        settle_threads(found)
        assert found == after
