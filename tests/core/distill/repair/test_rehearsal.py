"""Which samples the additional training draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import Silent
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.repair.rehearsal import SHARE, rehearsal_pools
from kdkit.core.distill.run import Options, prepare
from tests.core.distill.toy_runs import recipe
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
