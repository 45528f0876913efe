"""Claims: one worker per block, and none that a dead worker keeps."""

from __future__ import annotations

import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from kdkit.core.contracts import Silent
from kdkit.core.features.extract.claims import Claims
from kdkit.core.features.extract.workers import Workers
from tests.errors import raises_error


def test_a_block_belongs_to_one_worker_until_it_is_released(tmp_path: Path) -> None:
    with Workers(tmp_path / "w", {}) as first, Workers(tmp_path / "w", {}) as second:
        one, two = Claims(first, Silent()), Claims(second, Silent())
        assert one.take("a")
        assert not two.take("a")
        assert two.take("b")
        assert [record.id for record in two.free_abandoned()] == [first.id]
        assert not two.take("a")
        one.release("a")
        assert two.take("a")
        two.release_all()
        assert one.take("a")
        assert one.take("b")


def test_claims_of_nobody_are_freed(tmp_path: Path) -> None:
    with Workers(tmp_path / "w", {}) as worker:
        claims = Claims(worker, Silent())
        (worker.folder / "a.claim").write_text("gone")
        (worker.folder / "b.claim").write_text("")  # killed before it wrote its id
        assert not claims.take("a")
        claims.free_abandoned()
        assert claims.take("a")
        assert claims.take("b")


def test_a_worker_that_lost_its_claim_does_not_release_that_of_another(tmp_path: Path) -> None:
    with Workers(tmp_path / "w", {}) as worker:
        claims = Claims(worker, Silent())
        assert claims.take("a")
        (worker.folder / "a.claim").write_text("another")
        claims.release("a")
        assert not claims.take("a")
        shutil.rmtree(worker.folder)  # the others have finished and left
        assert claims.take("c")
        claims.release("c")


@pytest.mark.parametrize("run", ["", "mine", "another"])
def test_a_lost_process_ends_its_own_run_alone(tmp_path: Path, run: str) -> None:
    with Workers(tmp_path / "w", {}, run="mine") as worker:
        claims = Claims(worker, Silent())
        with suppress(OSError), Workers(tmp_path / "w", {}, run=run) as other:
            assert Claims(other, Silent()).take("a")
            raise OSError("no space left")
        with raises_error("KD-FEAT-630", mentions=("no space left",)) if run == "mine" else nullcontext():
            assert claims.free_abandoned() == []
        assert claims.take("a") == (run != "mine")
