"""Batches are a pure function of (seed, step), fair to samples and domains."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.core.distill.loop import sampler
from kdkit.core.distill.loop.sampler import BatchSampler, DomainUse, split_batch, use_of_domains
from kdkit.core.distill.plan.types import SamplePool
from kdkit.core.features.store.shard import BLOCK_ROWS


def pool(sizes: list[int], offset: int = 0, **options: object) -> SamplePool:
    domain = np.repeat(np.arange(len(sizes)), sizes)
    return SamplePool(offset + np.arange(len(domain)), domain, **options)  # type: ignore[arg-type]


@given(shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=5), batch=st.integers(1, 200))
def test_split_batch_sums_and_stays_near(shares: list[float], batch: int) -> None:
    sizes = split_batch(shares, batch)
    assert sum(sizes) == batch
    assert all(abs(size - share / sum(shares) * batch) < 1 for size, share in zip(sizes, shares, strict=True))


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    batch=st.integers(1, 40),
    seed=st.integers(0, 5),
    power=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_step_can_be_asked_for_alone(sizes: list[int], batch: int, seed: int, power: float) -> None:
    def schedule() -> BatchSampler:
        return BatchSampler([pool(sizes, domain_power=power)], batch_size=batch, steps=12, seed=seed)

    in_order = [row.tolist() for row in map(schedule().__getitem__, range(12))]
    backwards = schedule()
    assert [backwards[step].tolist() for step in reversed(range(12))] == in_order[::-1]
    assert all(len(row) == batch for row in in_order)


def test_a_domain_repeats_no_sample_before_all_were_seen() -> None:
    schedule = BatchSampler([pool([7, 13])], batch_size=10, steps=40, seed=3)
    seen = np.concatenate([schedule[step] for step in range(40)])
    for members in (range(7), range(7, 20)):
        stream = seen[np.isin(seen, list(members))]
        size = len(members)
        for start in range(0, len(stream) - size + 1, size):
            assert sorted(stream[start : start + size]) == list(members)


def test_domain_power_zero_makes_domains_equal() -> None:
    schedule = BatchSampler([pool([10, 1000], domain_power=0.0)], batch_size=50, steps=200, seed=0)
    small = np.mean([(schedule[step] < 10).mean() for step in range(200)])
    assert small == pytest.approx(0.5, abs=0.02)


def test_domains_per_batch_bounds_the_mixture() -> None:
    schedule = BatchSampler([pool([20, 20, 20, 20], domains_per_batch=2)], batch_size=10, steps=30, seed=0)
    counts = {len(np.unique(schedule[step] // 20)) for step in range(30)}
    assert counts == {2}


def test_shares_of_two_pools() -> None:
    pools = [pool([30], share=0.75), pool([30], offset=100, share=0.25)]
    schedule = BatchSampler(pools, batch_size=16, steps=5, seed=0)
    assert all((schedule[step] >= 100).sum() == 4 for step in range(5))


def test_a_pool_without_a_place_in_the_batch_is_left_out() -> None:
    schedule = BatchSampler([pool([5], share=1.0), pool([5], offset=50, share=1e-9)], batch_size=4, steps=3, seed=0)
    assert all((schedule[step] < 50).all() for step in range(3))


def test_no_group_exceeds_its_limit_in_a_pass_and_all_samples_are_seen_in_time() -> None:
    groups = np.array([0] * 20 + [1] * 5 + [2, 3, 4] + [5, 5, 6])
    limited = pool([28, 3], group=groups, max_per_group=4)
    assert limited.pass_sizes() == {0: 4 + 4 + 3, 1: 3}
    schedule = BatchSampler([limited], batch_size=7, steps=200, seed=1)
    seen = np.concatenate([schedule[step] for step in range(200)])
    for members, size in ((np.arange(28), 11), (np.arange(28, 31), 3)):
        stream = seen[np.isin(seen, members)]
        for start in range(0, len(stream) - size + 1, size):
            one_pass = stream[start : start + size]
            assert len(set(one_pass.tolist())) == size
            assert np.bincount(groups[one_pass]).max() <= 4
            assert len(set(groups[one_pass].tolist())) == len(set(groups[members].tolist()))
    assert set(seen.tolist()) == set(range(31))
    counts = np.bincount(seen, minlength=31)
    assert counts[:20].max() < counts[25:28].min()  # of the large group each is seen less often
    backwards = BatchSampler([limited], batch_size=7, steps=200, seed=1)
    assert backwards[150].tolist() == schedule[150].tolist()
    assert backwards[3].tolist() == schedule[3].tolist()


def test_without_large_groups_a_limit_changes_nothing() -> None:
    plain = BatchSampler([pool([10, 4])], batch_size=5, steps=20, seed=2)
    limited = BatchSampler([pool([10, 4], group=np.arange(14), max_per_group=1)], batch_size=5, steps=20, seed=2)
    assert all(plain[step].tolist() == limited[step].tolist() for step in range(20))


def test_how_often_domains_are_drawn_is_known_before() -> None:
    pools = [pool([30, 10], domain_power=0.5, share=0.75), pool([0, 12, 6], offset=40, share=0.25)]
    schedule = BatchSampler(pools, batch_size=8, steps=50, seed=0)
    domain = np.concatenate([one.domain for one in pools])
    rows = np.concatenate([schedule[step] for step in range(50)])
    drawn = {number: int((domain[rows] == number).sum()) for number in range(3)}
    assert schedule.drawn() == drawn
    settings_ = SimpleNamespace(steps=50, seed=0)
    plan = SimpleNamespace(pools=pools, batch_size=8, settings=settings_, domains=("ct", "mr", "us"))
    assert use_of_domains(plan) == {  # type: ignore[arg-type]
        name: DomainUse(samples, drawn[number], drawn[number] / samples)
        for number, (name, samples) in enumerate({"ct": 30, "mr": 22, "us": 6}.items())
    }


def test_a_pass_takes_one_caption_of_each_image_at_random() -> None:
    """Domain 0: images of 3, 2 and 1 captions; domain 1: one of 2 captions. An image counts once."""
    images = np.array([7, 7, 7, 8, 8, 9, 7, 7])
    captioned = pool([6, 2], image=images)
    assert captioned.pass_sizes() == {0: 3, 1: 1}
    schedule = BatchSampler([captioned], batch_size=4, steps=300, seed=5)
    seen = np.concatenate([schedule[step] for step in range(300)])
    stream = seen[seen < 6]
    passes = stream[: len(stream) // 3 * 3].reshape(-1, 3)
    assert (np.sort(images[passes], axis=1) == [7, 8, 9]).all()
    first = np.bincount(passes.reshape(-1), minlength=6) / len(passes)
    assert first == pytest.approx([1 / 3] * 3 + [1 / 2] * 2 + [1], abs=0.1)
    again = BatchSampler([captioned], batch_size=4, steps=300, seed=5)
    assert again[250].tolist() == schedule[250].tolist()  # computed alone, as after an interruption
    other = BatchSampler([captioned], batch_size=4, steps=300, seed=6)
    assert any(other[step].tolist() != schedule[step].tolist() for step in range(10))


def test_captions_and_groups_are_limited_together() -> None:
    """One patient with three images of two captions each, of which a pass takes two images."""
    images, groups = np.array([0, 0, 1, 1, 2, 2, 3]), np.array([0] * 6 + [1])
    both = pool([7], image=images, group=groups, max_per_group=2)
    assert both.pass_sizes() == {0: 3}
    schedule = BatchSampler([both], batch_size=3, steps=200, seed=0)
    for step in range(200):
        assert len(set(images[schedule[step]].tolist())) == 3
        assert sorted(groups[schedule[step]].tolist()) == [0, 0, 1]
    assert {row for step in range(200) for row in schedule[step].tolist()} == set(range(7))
    part = both.part(images < 2, 0.5)
    assert part.pass_sizes() == {0: 2}


def test_turns_of_a_conversation_follow_each_other() -> None:
    """A pass still has each sample once, in another order each time; a batch border may cut a conversation."""
    turns = np.array([0, 1, 0, 2, 1, 0, 3, 2])
    plain = SamplePool(np.arange(8), np.zeros(8, dtype=np.int64))
    pool = SamplePool(np.arange(8), np.zeros(8, dtype=np.int64), conversation=turns)
    sampler = BatchSampler([pool], batch_size=8, steps=6, seed=3)
    passes = [sampler[step] for step in range(6)]
    for rows in passes:
        assert sorted(rows.tolist()) == list(range(8))
        changes = int((np.diff(turns[rows]) != 0).sum())
        assert changes == 3  # four conversations in a row each
    assert len({tuple(rows.tolist()) for rows in passes}) > 1
    mixed = BatchSampler([plain], batch_size=8, steps=6, seed=3)
    assert any(int((np.diff(turns[mixed[step]]) != 0).sum()) > 3 for step in range(6))
    part = pool.part(np.arange(8) % 2 == 0, 0.5)
    assert part.conversation is not None
    assert part.conversation.tolist() == [0, 0, 1, 3]


def test_blocks_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "MIXED_BLOCKS", 4)
    monkeypatch.setattr(sampler, "MIXED_BATCHES", 0)
    size = 40 * BLOCK_ROWS
    schedule = BatchSampler([pool([size], blocks=True)], batch_size=128, steps=size // 128, seed=0)
    batches = [schedule[step] for step in range(size // 128)]
    order = np.concatenate(batches)
    assert sorted(order) == list(range(size))
    last_use: dict[int, int] = {}
    visits = 0
    for step, batch in enumerate(batches):
        used = np.unique(batch // BLOCK_ROWS).tolist()
        assert len(used) <= 4 + 2
        visits += sum(step - last_use.get(block, -1000) > 12 for block in used)  # not in the last 12 steps: read again
        last_use |= dict.fromkeys(used, step)
    assert 40 <= visits <= 40 + 4 + 1  # those at the end of the circle are read twice
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.01  # and their samples are mixed


def test_few_blocks_are_in_random_order() -> None:
    order = sampler.mix_blocks(np.arange(4 * BLOCK_ROWS) // BLOCK_ROWS, 64, np.random.default_rng(0))
    assert sorted(order) == list(range(4 * BLOCK_ROWS))
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.1


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_read_disjoint_ranges(world: int) -> None:
    """The batches are the same for any number of processes, and each draws from its own part of every domain."""
    cut = [pool([400, 80], ranges=4), pool([200], offset=480, share=0.5, ranges=4)]
    schedule = BatchSampler(cut, batch_size=32, steps=60, seed=1)
    seen: list[set[int]] = [set() for _ in range(world)]
    for step in range(60):
        for rank, rows in enumerate(np.split(schedule[step], world)):
            seen[rank] |= set(rows.tolist())
    assert sum(len(part) for part in seen) == len(set().union(*seen)) == 680
    assert [sum(row < 400 for row in part) for part in seen] == [400 // world] * world
    assert schedule[7].tolist() == BatchSampler(cut, batch_size=32, steps=9, seed=1)[7].tolist()


def test_a_group_is_in_one_range() -> None:
    groups = np.repeat(np.arange(30), 3)
    cut = pool([90], group=groups, max_per_group=1, image=np.arange(90) // 2, ranges=4)
    ranges = cut.range_of_each()
    assert np.unique(ranges).tolist() == [0, 1, 2, 3]
    assert all(len(np.unique(ranges[groups == number])) == 1 for number in range(30))
    schedule = BatchSampler([cut], batch_size=4, steps=20, seed=0)
    assert all(len(np.unique(groups[schedule[step]])) == 4 for step in range(20))


def test_more_ranges_than_samples() -> None:
    schedule = BatchSampler([pool([2], ranges=4)], batch_size=4, steps=3, seed=0)
    assert all(set(schedule[step]) <= {0, 1} and len(schedule[step]) == 4 for step in range(3))
