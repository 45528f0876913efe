"""Plans of 2.9 million, 100 million and 10 billion pairs with 9 and 50 teachers, for docs/explanation/scaling.md.

    python benchmarks/scaling.py           # the tables of the page
    python benchmarks/scaling.py --write   # puts them into it

All figures come from ``kdkit.core.distill.forecast``, as ``kdkit distill --dry-run --plan-for`` uses it; a test
recomputes the page. What is assumed stands in ``ASSUMED`` and in ``forecast/devices.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdkit.core.base.result import format_size
from kdkit.core.distill.forecast.arithmetic import forecast, format_time
from kdkit.core.distill.forecast.devices import DEVICES, Target
from kdkit.core.distill.forecast.probe import INDEX_BYTES, ROW_BYTES
from kdkit.core.distill.forecast.workload import Forecast, StudentLoad, TeacherLoad, Workload
from kdkit.core.features.store.row_index import KEY_BYTES

IMAGE_FLOPS, TEXT_FLOPS, STEP_FLOPS = 35.127e9, 45.905e9, 242.863e9
"""Forward pass of a ViT-B/16 at 224 x 224, of a BERT-base at 256 tokens, and both with their backward passes, as
FlopCounterMode counts them."""
PARAMETERS = 196_493_824
"""Of both with their projections to 512."""
ACTIVATIONS = 299_264_808
"""Bytes that a sample's forward pass keeps in bf16, as ``activation_bytes`` measures on a CPU."""
WIDTH, SIGNALS, HALF = 512, 2, 2
"""Teachers' features: image and text, fp16."""
BATCH, CHECKPOINTS = 32_768, 3


@dataclass(frozen=True)
class Assumed:
    """Figures that no machine here can measure; change them and run the script again.

    Attributes:
        image_bytes: of a stored image (JPEG, about 256 x 256 pixels).
        decode_seconds: of one processor, for reading, decoding and resizing one image.
        hour: US dollars for one H100 and its share of the host for an hour.
        month: US dollars for a terabyte of object storage for a month.
        disk: bytes of local disk for each GPU.
    """

    image_bytes: int = 30_000
    decode_seconds: float = 0.004
    hour: float = 3.0
    month: float = 23.0
    disk: int = 3_840 * 10**9


ASSUMED = Assumed()


@dataclass(frozen=True)
class Plan:
    """One row."""

    pairs: int
    teachers: int
    devices: int
    epochs: int

    @property
    def work(self) -> Workload:
        """The run as a workload."""
        names = (f"teacher {number + 1}" for number in range(self.teachers))
        row = WIDTH * SIGNALS * HALF
        loads = tuple(TeacherLoad(name, row, self.pairs, self.pairs, IMAGE_FLOPS + TEXT_FLOPS) for name in names)
        heads = self.teachers * SIGNALS * WIDTH * WIDTH
        size = 4 * (PARAMETERS + heads)
        student = StudentLoad(
            parameters=PARAMETERS + heads,
            trained=PARAMETERS + heads,
            parameter_bytes=size,
            trained_bytes=size,
            flops=STEP_FLOPS,
            loss_flops=self.teachers * SIGNALS * 3 * 2 * BATCH**2 * WIDTH,  # similarities, and two gradients of each
            activations=ACTIVATIONS,
            output_bytes=4 * SIGNALS * WIDTH * (1 + self.teachers),
        )
        steps = -(-self.epochs * self.pairs // BATCH)
        return Workload(
            samples=self.pairs,
            steps=steps,
            batch_size=BATCH,
            student=student,
            teachers=loads,
            micro_batch="auto",
            precision="bf16",
            shard=True,
            image_bytes=ASSUMED.image_bytes,
            version_bytes=size,
            checkpoint_bytes=3 * size,
            checkpoints=CHECKPOINTS,
            decode_seconds=ASSUMED.decode_seconds,
            disk_free=ASSUMED.disk * self.devices,
            index_bytes=INDEX_BYTES + (ROW_BYTES + KEY_BYTES) * self.teachers,
        )

    @property
    def forecast(self) -> Forecast:
        """On H100."""
        return forecast(self.work, Target(self.devices, DEVICES["h100"]))


PLANS = tuple(
    Plan(pairs, teachers, devices, epochs)
    for pairs, devices, epochs in ((2_900_000, 8, 32), (100_000_000, 64, 32), (10_000_000_000, 1024, 1))
    for teachers in (9, 50)
)
PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "scaling.md"
BEGIN, END = "<!-- begin: python benchmarks/scaling.py -->", "<!-- end -->"


def tables() -> str:
    """The tables of the page, in Markdown."""
    return "\n\n".join([_time_and_money(), _disk_and_memory(), _limits(), _arithmetic(PLANS[0])])


def _time_and_money() -> str:
    rows = []
    for plan in PLANS:
        found = plan.forecast
        extraction = sum(found.extraction_seconds.values())
        rows.append(
            [
                f"{plan.pairs:,}",
                plan.teachers,
                f"{plan.devices} x H100",
                plan.epochs,
                f"{plan.work.steps:,}",
                format_time(extraction),
                format_time(found.training_seconds),
                f"{found.device_hours:,.0f}",
                f"{found.device_hours * ASSUMED.hour:,.0f}",
            ]
        )
    heads = ("pairs", "teachers", "devices", "epochs", "steps", "extraction", "training", "GPU hours", "US dollars")
    return _markdown(heads, rows)


def _disk_and_memory() -> str:
    rows = []
    for plan in PLANS:
        found, work = plan.forecast, plan.work
        features = sum(size for name, size in found.disk.items() if name.startswith("features"))
        read = work.batch_size * sum(teacher.row_bytes for teacher in work.teachers) / found.step_seconds
        total = sum(found.disk.values())
        rows.append(
            [
                f"{plan.pairs:,}",
                plan.teachers,
                format_size(features),
                format_size(found.disk["images"]),
                f"{total / 1e12 * ASSUMED.month:,.0f}",
                format_size(sum(found.memory.values())),
                format_size(work.index_bytes * plan.pairs),
                f"{format_size(int(read))}/s",
            ]
        )
    heads = ("pairs", "teachers", "features", "images", "US dollars a month", "GPU memory", "index memory", "reading")
    return _markdown(heads, rows)


def _limits() -> str:
    tightest = [(plan, plan.forecast.limits[0]) for plan in PLANS]
    rows = [
        [f"{plan.pairs:,}", plan.teachers, limit.name, f"{100 * limit.share:,.0f} %", limit.knob.rstrip(",")]
        for plan, limit in tightest
    ]
    return _markdown(("pairs", "teachers", "tightest, or breaks first", "used", "what lowers it"), rows)


def _arithmetic(plan: Plan) -> str:
    found = plan.forecast
    kept = [line for line in found.lines if not line.label.endswith(tuple(f"teacher {n}" for n in range(2, 51)))]
    return _markdown(("", "arithmetic", "result"), [[line.label, line.arithmetic, line.value] for line in kept])


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def page_with_tables(text: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main() -> None:
    """Print the tables, or write them into the page."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--write", action="store_true")
    if options.parse_args().write:
        PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(tables())


if __name__ == "__main__":
    main()
