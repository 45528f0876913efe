"""The additional training: which samples it draws, and which weights it leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import Silent
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.loop.checkpoint_state import task_tensors
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.repair.rehearsal import SHARE, Rehearsal, rehearsal_pools
from tests.core.distill.building import build_prepared
from tests.core.distill.toy_runs import assert_equal, recipe
from tests.toy_project import open_project


def test_half_of_each_batch_is_of_the_lost_domains(with_xray: Path) -> None:
    prepared = prepare(open_project(with_xray), Options(incremental=True), Silent())
    plan, index = prepared.plan, prepared.inventory.index
    pools = rehearsal_pools(plan, index, ["mri"])
    assert [pool.share for pool in pools] == pytest.approx([SHARE, *(SHARE * pool.share for pool in plan.pools)])
    assert sum(pool.share for pool in pools) == pytest.approx(1)
    batches = BatchSampler(pools, batch_size=24, steps=50, seed=3)
    domains = np.array([[index.domains[number] for number in index.domain_index[batches[n]]] for n in range(50)])
    assert ((domains[:, :12] == "mri").all(), (domains == "xray").mean()) == (True, pytest.approx(0.25, abs=0.02))


def test_without_their_samples_there_is_nothing_to_rehearse(with_xray: Path) -> None:
    recipe(with_xray, ("replay: 0.5", "replay: 0.0"))
    prepared = prepare(open_project(with_xray), Options(incremental=True), Silent())
    assert rehearsal_pools(prepared.plan, prepared.inventory.index, ["ct", "mri"]) == ()


def test_a_moving_average_of_the_run_does_not_hold_the_weights_back(with_xray: Path, tmp_path: Path) -> None:
    project, ends = open_project(with_xray), []
    for ema in (None, 0.999):
        prepared = prepare(project, Options(incremental=True), Silent())
        made = build_prepared(project, prepared)
        plan = replace(prepared.plan, settings=replace(prepared.plan.settings, ema=ema))
        place = make_accelerator("no", cpu=True)
        rehearsal = Rehearsal(plan, made, prepared.inventory.index, place, tmp_path / str(ema), 60.0, Silent())
        assert rehearsal.train(["mri"], 0.2) == 4
        ends.append(task_tensors(made.task))
        made.inputs.close()
    assert_equal(*ends)
