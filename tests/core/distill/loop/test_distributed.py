"""Losses that are sums over samples: each process computes its own share, and the gradients are those of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from kdkit.core.contracts import LossInput
from kdkit.core.contracts.token_signals import HIDDEN, compress
from kdkit.core.distill.model.projection import TeacherProjection, make_heads
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.plan.types import PREVIOUS
from kdkit.plugins.losses.tokens.losses import AnswerCrossEntropy, TokenDistillation
from kdkit.plugins.losses.vkd import AnswerOrthogonalDistillation

BATCH, PLACES, WIDTH, VOCABULARY, WORLD = 6, 5, 4, 11, 2
LENGTHS = ((5, 1, 3, 2, 0, 4), (3, 5, 2, 0, 0, 0))
"""Of the answers; of the second batch, the second process has none."""


class Teller(nn.Module):
    """What a generating student gives, from the numbers of its inputs."""

    outputs: Mapping[str, int] = {}

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Linear(3, PLACES * WIDTH)
        self.embedding = nn.Parameter(torch.randn(VOCABULARY, WIDTH))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        hidden = self.see(inputs["pixels"]).reshape(-1, PLACES, WIDTH).tanh()
        return {"answer_hidden": hidden, "answer_ids": inputs["ids"], "output_embedding": self.embedding}


class Spread(nn.Module):
    """A loss of the whole batch: how far apart its samples are."""

    def forward(self, batch: LossInput) -> Tensor:
        assert len(batch.domain) == len(batch.student["answer_hidden"]) == BATCH
        return torch.pdist(batch.student["answer_hidden"].flatten(1)).mean()


class Counted(AnswerCrossEntropy):
    """Cross entropy that notes how many samples it saw."""

    seen = 0

    def forward(self, batch: LossInput) -> Tensor:
        self.seen = len(batch.student["answer_ids"])
        assert {len(view.weight) for view in batch.teachers} == {len(batch.domain)} == {self.seen}
        return super().forward(batch)


def make_task() -> DistillTask:
    torch.manual_seed(0)
    terms = [
        Term("ce", 0.5, Counted(), per_sample=True),
        Term("kd", 2.0, TokenDistillation(), per_sample=True),
        Term("states", 1.5, AnswerOrthogonalDistillation(), per_sample=True),
        Term("keep", 1.0, TokenDistillation(divergence="jsd"), previous=True, per_sample=True),
        Term("spread", 0.3, Spread()),
    ]
    heads = make_heads({HIDDEN: WIDTH}, {HIDDEN: WIDTH + 2}, shared_towers=False, orthogonal=True)
    return DistillTask(Teller(), {"teacher": TeacherProjection(heads), PREVIOUS: TeacherProjection()}, terms)


def make_batch(lengths: tuple[int, ...]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (BATCH, PLACES), generator=generator)
    ids[torch.arange(PLACES) >= torch.tensor(lengths)[:, None]] = -100
    targets = {}
    for name in ("teacher", PREVIOUS):
        stored = compress(torch.randn(BATCH * PLACES, VOCABULARY, generator=generator), 3)
        parts = zip(("topk_ids", "topk", "tail"), stored, strict=True)
        targets[name] = {"tokens": ids, **{key: x.reshape(BATCH, PLACES, -1) for key, x in parts}}
    targets["teacher"][HIDDEN] = torch.randn(BATCH, PLACES, WIDTH + 2, generator=generator)
    weight = torch.rand(BATCH, generator=generator)
    known = torch.tensor([1.0, 0, 0, 0, 1, 0])
    return {
        "inputs": {"pixels": torch.randn(BATCH, 3, generator=generator), "ids": ids},
        "targets": targets,
        "weights": {"teacher": weight, PREVIOUS: known},
        "domain": torch.zeros(BATCH, dtype=torch.int64),
    }


def step(model: nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
    """What is logged, and the gradients."""
    model.zero_grad()
    parts = model(**batch)
    parts["loss"].backward()
    task = getattr(model, "module", model)
    found = {name: x.detach().clone() for name, x in parts.items()}
    return found | {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def _worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/barrier", rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    model = nn.parallel.DistributedDataParallel(make_task(), find_unused_parameters=True)
    share, found = BATCH // WORLD, []
    assert model.module.local_teachers == {PREVIOUS}, "a loss of the whole batch reads the other teacher"
    for lengths in LENGTHS:
        batch = make_batch(lengths)
        for part in (batch["inputs"], batch["targets"][PREVIOUS]):
            part |= {name: x[rank * share :][:share] for name, x in part.items()}
        found.append(step(model, batch))
        assert cast(Counted, model.module.losses[0]).seen == share
    torch.save(found, f"{folder}/{rank}")
    dist.barrier()
    dist.destroy_process_group()


def test_each_process_computes_its_own_samples_and_the_gradients_are_those_of_one(tmp_path: Path) -> None:
    mp.spawn(_worker, args=(str(tmp_path),), nprocs=WORLD)  # type: ignore[attr-defined,no-untyped-call]
    task = make_task()
    for number, lengths in enumerate(LENGTHS):
        expected = step(task, make_batch(lengths))
        for rank in range(WORLD):
            found = torch.load(tmp_path / str(rank), weights_only=True)[number]
            assert found.keys() == expected.keys()
            for name, x in expected.items():
                torch.testing.assert_close(found[name], x, rtol=1e-5, atol=1e-7, msg=f"{name}, process {rank}")
