"""A project with a tiny answering student that is corrected during training, and a teacher behind a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file

from kdkit.api.reporter import Lines
from kdkit.core.contracts import Silent
from kdkit.core.distill.correction.loader import CorrectedDataLoader
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.loop.dataloader import DistillBatch, DistillDataLoader
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.model.build import Build
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import Prepared, prepare
from kdkit.core.distill.promotion import Outcome
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.building import build_prepared
from tests.local_endpoint import Reply
from tests.plugins.students.clinkd.tiny import make

WORDS = ["left", "right", "top", "Where", "is", "it", "It"]
SIZES = {"hidden": 32, "heads": 2, "kv_heads": 1, "layers": 1, "vision_layers": 1, "words": WORDS}
BOX = "<box>(0,0),(250,250)</box>"
EPOCH = 6
"""Steps: 24 samples in batches of 4."""
STUDENT = {"sizes": SIZES, "max_tokens": 112, "max_answer": 36, "max_pixels": 3136, "system": ""}
REGISTRY = f"""\
version: 1
student: {{family: clinkd, config: {json.dumps(STUDENT)}}}
teachers: {{}}
data:
  - {{source: jsonl, path: data/samples.jsonl}}
recipe: ./corrected.yaml
"""
RECIPE = """\
name: corrected
summary: quick
losses: [{name: answer-ce}, {name: token-kd}]
trust: {policy: all, options: {unmeasured: true}}
optimizer: {lr: 0.003, batch_size: 4, steps: %d}
"""


def make_project(root: Path, correction: Mapping[str, Any] | None, *, steps: int = 14, train: int = 24) -> Project:
    """``train`` training samples, every fourth one about a box; its teacher ``first`` is another tiny model."""
    (root / "data").mkdir(parents=True)
    rows = [_row(root / "data", number, "train") for number in range(train)]
    rows += [_row(root / "data", train + number, "calibration") for number in range(4)]
    write_samples(root, rows)
    (root / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    set_correction(root, correction, steps=steps)
    make(seed=1, sizes=SIZES, max_tokens=112, max_answer=36, system="").save(root / "models" / "first")
    add_teacher(
        Project(root), "first", {"from": "local:models/first", "loader": "image-text-to-text", "license": "mit"}
    )
    return Project(root)


def set_correction(root: Path, correction: Mapping[str, Any] | None, *, steps: int = 14) -> None:
    part = "" if correction is None else f"correction: {json.dumps(correction)}\n"
    (root / "corrected.yaml").write_text(RECIPE % steps + part, encoding="utf-8")


def add_server(root: Path, url: str, **settings: Any) -> None:
    """The teacher ``remote``, which only answers."""
    folder = root / "models" / "remote"
    folder.mkdir(parents=True)
    content = {"endpoint": url, "model": "big", "tries": 2, **settings}
    (folder / "endpoint.json").write_text(json.dumps(content), encoding="utf-8")
    add_teacher(Project(root), "remote", {"from": "local:models/remote", "license": "mit"})


def reference_of(body: Mapping[str, Any]) -> str:
    """The reference in a request to a corrector; empty for the request of the probe."""
    text = str(body["messages"][-1]["content"])
    return text.partition("right answer is: ")[2].partition("\n")[0]


def number_of(body: Mapping[str, Any]) -> int:
    """Number of the sample of a request to a corrector."""
    return int(str(body["messages"][0]["content"][-1]["text"]).rpartition(" ")[2])


def _row(folder: Path, number: int, split: str) -> dict[str, Any]:
    name = f"{number}.png"
    Image.new("RGB", (56, 56), (8 * number, 255 - 8 * number, 99)).save(folder / name)
    task, text = ("vg", BOX) if number % 4 == 3 else ("vqa", WORDS[number % 3])
    extra = {"task": task, "messages": [{"role": "user", "content": f"<image>Where is it {number}"}]}
    return {"id": f"s{number:02}", "image": name, "text": text, "domain": f"{task}/ct", "split": split, "extra": extra}


def in_other_words(body: Mapping[str, Any]) -> Reply:
    """A valid correction: ``It is`` does not change the score."""
    return [(f"It is {reference_of(body)}.", [])]


def run(root: Path) -> Outcome:
    outcome = distill(Project(root), Options(cpu=True))
    assert outcome is not None
    return outcome


def weights(root: Path, version: str) -> dict[str, torch.Tensor]:
    """The student's weights."""
    saved: dict[str, torch.Tensor] = load_file(root / "versions" / version / "student" / "model.safetensors")
    return saved


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    """The version's corrections."""
    text = (outcome.version.folder / "corrections.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def samples(root: Path) -> list[dict[str, Any]]:
    """The project's manifest."""
    return [json.loads(line) for line in (root / "data" / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def write_samples(root: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "data" / "samples.jsonl").write_text(text, encoding="utf-8")


class Course:
    """The batches of a run without training: the student does not change."""

    def __init__(self, root: Path, folder: Path, at: Any = None) -> None:
        project, options = Project(root), Options(cpu=True)
        self.prepared: Prepared = prepare(project, options, Silent())
        self.built: Build = build_prepared(project, self.prepared)
        place, plan = at or make_accelerator(options.precision, cpu=options.cpu), self.prepared.plan
        self.steps = plan.settings.steps
        schedule = BatchSampler(plan.pools, batch_size=plan.batch_size, steps=self.steps, seed=plan.settings.seed)
        plain = self.built.dataloader(self.prepared.plan, schedule, place)
        assert isinstance(plain, DistillDataLoader)
        self.plain = plain
        self.loader = CorrectedDataLoader(
            project,
            plan,
            self.prepared.inventory.index,
            self.built,
            schedule,
            accelerator=place,
            folder=folder,
            reporter=Silent(),
        )

    def batches(self, start: int = 0) -> dict[int, DistillBatch]:
        return dict(self.loader.batches(start))

    def answers(self, batch: DistillBatch) -> list[str]:
        """The texts of a batch."""
        tokens = self.built.task.student.preparation.tokens  # type: ignore[union-attr]
        return [tokens.decode([t for t in row.tolist() if t >= 0]) for row in batch.inputs["answer_ids"]]  # type: ignore


def main() -> None:
    """``python -m tests.core.distill.corrected FOLDER SECONDS``: distill the project in a process of its own;
    SECONDS between checkpoints."""
    options = Options(cpu=True, checkpoint_seconds=float(sys.argv[2]))
    distill(Project(Path(sys.argv[1])), options, reporter=Lines(every=0.0))


if __name__ == "__main__":
    main()
