"""Ranks share the work of the losses, and the student is that of one process.

Four processes are started once, for all tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from kdkit.core.contracts import CaptionView, LossInput
from kdkit.core.contracts.token_signals import HIDDEN, compress
from kdkit.core.distill.loop.optimizer import make_optimizer
from kdkit.core.distill.model.micro_batches import MicroBatches
from kdkit.core.distill.model.projection import TeacherProjection, make_heads
from kdkit.core.distill.model.target_norm import TargetNorm
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.plan.types import PREVIOUS
from kdkit.plugins.losses.clip import ClipLoss
from kdkit.plugins.losses.crd import RelationalDistillation
from kdkit.plugins.losses.fd import FeatureDistillation
from kdkit.plugins.losses.icl import InteractiveContrast
from kdkit.plugins.losses.tokens.losses import AnswerCrossEntropy, TokenDistillation
from kdkit.plugins.losses.tokens.together import TokenSum, together
from kdkit.plugins.losses.vkd import AnswerOrthogonalDistillation
from tests.core.distill.model.test_task import SETTINGS
from tests.ranks import run_ranks
from tests.toys import LETTERS, SIDE, ToyEncoder

BATCH, PLACES, WIDTH, VOCABULARY, WORLD = 8, 5, 4, 11, 4
LENGTHS = ((5, 1, 3, 2, 0, 4, 1, 1), (3, 5, 2, 0, 0, 0, 0, 0))
"""Of the answers; of the second batch, two processes have none."""
STEPS = {torch.float64: 16, torch.float32: 8}


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

    def token_sum(self, batch: LossInput) -> TokenSum | None:
        self.seen = len(batch.student["answer_ids"])
        assert {len(view.weight) for view in batch.teachers} == {len(batch.domain)} == {self.seen}
        return super().token_sum(batch)


def make_task() -> DistillTask:
    torch.manual_seed(0)
    terms = [
        Term("ce", 0.5, Counted(), per_sample=True, together=together),
        Term("kd", 2.0, TokenDistillation(), per_sample=True, together=together),
        Term("states", 1.5, AnswerOrthogonalDistillation(), per_sample=True),
        Term("keep", 1.0, TokenDistillation(divergence="jsd"), previous=True, per_sample=True, together=together),
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
    known = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 1])
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


class Rows(nn.Module):
    """A student without matrix products, so that counted flops are those of the losses."""

    outputs: Mapping[str, int] = {"image": 24, "text": 24}

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        scale = self.log_scale.exp()
        return {"image": inputs["image"] * scale, "text": inputs["text"] * scale, "logit_scale": scale}


def pair_task(student: nn.Module, size: int | None = None) -> DistillTask:
    """All losses of pairs, and one that each rank computes for the whole batch."""
    torch.manual_seed(0)
    terms = [
        Term("clip", 0.5, ClipLoss(positives="similar", similarity=0.1), by_rows=True),
        Term("icl", 0.7, InteractiveContrast(), by_rows=True),
        Term("crd", 0.4, RelationalDistillation(targets="ensemble", average_over="samples"), by_rows=True),
        Term("fd", 0.8, FeatureDistillation(average_over="teachers"), per_sample=True),
        Term("keep", 0.9, RelationalDistillation(within_domain=True, chunk=1), previous=True, by_rows=True),
        Term("scores", 0.2, Scores()),
    ]
    outputs = cast(Any, student).outputs
    projections = {
        "wide": TeacherProjection(make_heads(outputs, {"image": 32, "text": 32}, shared_towers=True)),
        "rare": TeacherProjection(
            make_heads(outputs, {"image": 24, "text": 24}, shared_towers=False),
            norms={"image": TargetNorm(24, "unit")},
        ),
        PREVIOUS: TeacherProjection(norms={"text": TargetNorm(outputs["text"], "unit")}),
    }
    return DistillTask(student, projections, terms, pull=0.01, micro_batches=MicroBatches(size))


class Scores(nn.Module):
    """A loss of the whole batch, with a parameter, that reads a teacher's images only."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch: LossInput) -> Tensor:
        total = torch.pdist(batch.student["image"]).mean()
        for view in batch.teachers:
            assert len(view.weight) == len(view.target["image"]) == len(view.student["image"])
            scores = self.scale * F.normalize(view.student["image"], dim=-1) @ F.normalize(view.target["image"]).T
            rows = F.cross_entropy(scores, torch.arange(len(scores)), reduction="none")
            total = total + (rows * view.weight).sum() / view.weight.sum().clamp(min=1)
        return total


def pair_batch(step: int, inputs: Mapping[str, tuple[int, ...]], size: int = BATCH) -> dict[str, Any]:
    """The teacher ``rare`` covers samples of one rank, every fourth step none."""
    generator = torch.Generator().manual_seed(step)

    def rows(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator)

    weights = {name: torch.rand(size, generator=generator) for name in ("wide", "rare", PREVIOUS)}
    weights["wide"][1::3] = 0
    weights["rare"] *= torch.arange(size) // (size // WORLD) == step % WORLD - 1
    widths = {"wide": 32, "rare": 24, PREVIOUS: next(iter(inputs.values()))[-1] if "image" in inputs else 16}
    said = torch.rand(size, generator=generator)
    said[step % size] = 0
    return {
        "inputs": {name: rows(*shape) for name, shape in inputs.items()},
        "targets": {
            name: {signal: torch.where(weights[name][:, None] > 0, rows(width), 0) for signal in ("image", "text")}
            for name, width in widths.items()
        },
        "weights": weights,
        "domain": torch.arange(size) % 3,
        "captions": CaptionView(said, torch.arange(size) * 2 // 3),
    }


def shard(batch: dict[str, Any], rank: int) -> dict[str, Any]:
    share = len(batch["domain"]) // WORLD
    for part in (batch["inputs"], *batch["targets"].values()):
        part |= {name: x[rank * share :][:share] for name, x in part.items()}
    return batch


TOY = {"pixels": (3, SIDE, SIDE), "letters": (LETTERS,)}


def in_double(batch: dict[str, Any]) -> dict[str, Any]:
    def change(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.double() if x.is_floating_point() else x
        if isinstance(x, CaptionView):
            return CaptionView(x.weight.double(), x.text)
        return {name: change(part) for name, part in x.items()}

    return {name: change(x) for name, x in batch.items()}


def train(precision: torch.dtype, rank: int | None = None) -> dict[str, Tensor]:
    """The curve and the weights of a short run; in micro-batches of one from the middle on."""
    torch.manual_seed(1)
    task = pair_task(ToyEncoder()).to(precision)
    model = task if rank is None else nn.parallel.DistributedDataParallel(task, find_unused_parameters=True)
    optimizer, curve = make_optimizer(task, SETTINGS), []
    for number in range(STEPS[precision]):
        batch = pair_batch(number, TOY)
        batch = in_double(batch) if precision == torch.float64 else batch
        task.micro_batches = MicroBatches(1 if number >= STEPS[precision] // 2 else None)
        found = model(**(batch if rank is None else shard(batch, rank)))
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        curve.append(torch.stack([value.detach() for value in found.values()]))
    return {"curve": torch.stack(curve), **{name: x.detach() for name, x in task.named_parameters()}}


class Quiet(nn.Module):
    """A loss of a plugin: a constant, without a graph, on ranks whose rows have no teacher."""

    def forward(self, batch: LossInput) -> Tensor:
        (view,) = batch.teachers
        weight = view.weight[batch.rows]
        if not weight.any():
            return torch.zeros(())
        return (weight * (view.student["image"] @ batch.student["image"].T).square().mean(-1)).sum()


def quiet_step(rank: int | None = None) -> dict[str, Tensor]:
    """With a teacher that one of four ranks has samples of."""
    task = DistillTask(Rows(), {"rare": TeacherProjection()}, [Term("quiet", 1.0, Quiet(), by_rows=True)])
    model = task if rank is None else nn.parallel.DistributedDataParallel(task, find_unused_parameters=True)
    batch = pair_batch(2, {"image": (24,), "text": (24,)})
    return step(model, batch if rank is None else shard(batch, rank))


class Weighted(nn.Module):
    """A loss of the whole batch that reads the teachers' weights."""

    def forward(self, batch: LossInput) -> Tensor:
        (view,) = batch.teachers
        return (view.weight * batch.student["answer_hidden"].square().mean((1, 2))).sum() / view.weight.sum()


def own_answers_step(rank: int | None = None) -> dict[str, Tensor]:
    """Of answers of the student, a rank knows the weights of its own alone."""
    torch.manual_seed(0)
    task = DistillTask(Teller(), {"teacher": TeacherProjection()}, [Term("whole", 1.0, Weighted())])
    batch = make_batch(LENGTHS[0])
    batch |= {"targets": {"teacher": {}}, "weights": {"teacher": batch["weights"]["teacher"]}}
    own = torch.arange(BATCH) % 2 == 0
    if rank is None:
        return step(task, batch | {"own": own})
    batch, mine = shard(batch, rank), torch.arange(BATCH) // (BATCH // WORLD) == rank
    batch["weights"] = {"teacher": batch["weights"]["teacher"] * (mine | ~own)}
    model = nn.parallel.DistributedDataParallel(task, find_unused_parameters=True)
    return step(model, batch | {"own": own[mine]})


class Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts by torch's formulas; torch's own ``FlopCounterMode`` follows modules too, and stops at autograd.grad."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def loss_flops(rank: int | None = None) -> int:
    """Of the losses that ranks share, forward and backward."""
    task = pair_task(Rows())
    task.terms = task.terms[:-1]
    batch = pair_batch(1, {"image": (24,), "text": (24,)}, size=32)
    with Flops() as counter:  # type: ignore[no-untyped-call]  # torch's
        task(**(batch if rank is None else shard(batch, rank)))["loss"].backward()
    return int(counter.total)


def _worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/barrier", rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    model = nn.parallel.DistributedDataParallel(make_task(), find_unused_parameters=True)
    found = []
    for lengths in LENGTHS:
        found.append(step(model, shard(make_batch(lengths), rank)))
        assert cast(Counted, model.module.losses[0]).seen == BATCH // WORLD
    runs = {str(precision): train(precision, rank) for precision in STEPS}
    parts = {"quiet": quiet_step(rank), "own": own_answers_step(rank)}
    torch.save({"answers": found, "runs": runs, "flops": loss_flops(rank), **parts}, f"{folder}/{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(_worker, str(folder), world=WORLD)
    return [torch.load(folder / str(rank), weights_only=True) for rank in range(WORLD)]


def test_each_process_computes_its_own_answers_and_the_gradients_are_those_of_one(ranks: list[dict[str, Any]]) -> None:
    task = make_task()
    for number, lengths in enumerate(LENGTHS):
        expected = step(task, make_batch(lengths))
        for rank, parts in enumerate(ranks):
            found = parts["answers"][number]
            assert found.keys() == expected.keys()
            for name, x in expected.items():
                torch.testing.assert_close(found[name], x, rtol=1e-5, atol=1e-7, msg=f"{name}, process {rank}")


def test_four_processes_train_the_student_of_one(ranks: list[dict[str, Any]]) -> None:
    """All terms, the learnable scales, heads and student; teachers that most ranks have no sample of."""
    expected = train(torch.float64)
    for parts in ranks:
        found = parts["runs"]["torch.float64"]
        for name, x in expected.items():
            torch.testing.assert_close(found[name], x, rtol=1e-9, atol=1e-9, msg=name)
    curve = train(torch.float32)["curve"]
    torch.testing.assert_close(ranks[0]["runs"]["torch.float32"]["curve"], curve, rtol=1e-4, atol=1e-4)


def test_four_processes_share_the_work_of_the_losses(ranks: list[dict[str, Any]]) -> None:
    alone = loss_flops()
    for parts in ranks:
        assert parts["flops"] <= 0.3 * alone, (parts["flops"], alone)


def test_a_loss_of_the_whole_batch_sees_the_weights_of_all_own_answers(ranks: list[dict[str, Any]]) -> None:
    expected = {name: x for name, x in own_answers_step().items() if not name.startswith("own/")}
    for parts in ranks:
        for name, x in expected.items():
            torch.testing.assert_close(parts["own"][name], x, rtol=1e-5, atol=1e-7, msg=name)


def test_a_loss_that_has_nothing_to_say_on_most_ranks(ranks: list[dict[str, Any]]) -> None:
    expected = quiet_step()
    assert expected["quiet"] > 0
    for parts in ranks:
        for name, x in expected.items():
            torch.testing.assert_close(parts["quiet"][name], x, rtol=1e-5, atol=1e-7, msg=name)
