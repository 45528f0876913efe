"""A flipped bit in any file that kdkit wrote is reported, or changes no result."""

from __future__ import annotations

import random
from pathlib import Path

from tests.flipped import EDITED, Flips


def test_no_damage_is_silent(tmp_path: Path) -> None:
    """A seeded sample: the files whose values would all be valid, and some others."""
    flips, rng = Flips(tmp_path), random.Random(7)
    pristine = flips.pristine
    assert not [answer for answer in flips.usual.values() if isinstance(answer, Exception)]
    chosen = ["reports/evaluation-v2-test.json", "versions/current", "versions/v2/lineage.json", "registry.lock"]
    others = [path.relative_to(pristine).as_posix() for path in pristine.rglob("*") if path.is_file()]
    chosen += [name for name in others if name.startswith(".kdkit/explain/") and name.endswith(".json")][:1]
    chosen += rng.sample(sorted(name for name in others if not name.startswith((*EDITED, "images/"))), 1)
    for name in chosen:
        size = (pristine / name).stat().st_size
        if size:
            place, bit = rng.randrange(size), rng.randrange(8)
            found = flips.outcome(name, place, bit)
            assert found in ("reported", "irrelevant"), (name, place, bit)
