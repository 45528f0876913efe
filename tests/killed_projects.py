"""Projects whose commands are killed by :mod:`tests.kills`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kdkit.core.plugin_system.catalogue import Catalogue
from tests.core.sharing.release.projects import publishable
from tests.journeys.test_generating_student import add_vlm, generating_project, reopened
from tests.toy_project import CLASSES, RECIPE, make_project, train_teacher

COMMANDS = (
    "add-teacher radio --from local:models/radio --license mit",
    "features extract",
    "trust",
    "distill --cpu",
    "evaluate",
    "add-teacher xr --from local:models/xr --license mit",
    "distill --cpu --incremental",
    "evaluate",
    "rollback v1",
    "export v2 --to ../out",
    "push lab/student --version v1",
    "push lab/student --version v2",
    "features push lab/features",
    "pull lab/student --to ../pulled --features lab/features",
    "bundle --to ../p.tar",
    "unbundle ../p.tar --to ../there",
    "lock radio",
    "remove-teacher xr",
)
ANSWERING_COMMANDS = (
    "distill --cpu",
    "answer --split train --to answers.jsonl",
    "correct --to corrected.jsonl --threshold 1 --corrector first",
    "pseudo-label --teacher first --to labels.jsonl",
)
RANK_COMMANDS = (
    "add-teacher radio --from local:models/radio --license mit",
    "2x features extract",
    "add-teacher xr --from local:models/xr --license mit",
    "2x distill --cpu --shard --checkpoint-every 0",
    "data shards --rows-per-shard 10 --to ../shards",
)
"""``2x``: in two processes."""


@dataclass(frozen=True)
class Life:
    """The life of a project: each command starts from what those before it left.

    Attributes:
        make: writes the project into a new folder.
        needs_hub: some commands talk to the Hub.
        block_rows: of the feature store; None for its own.
    """

    make: Callable[[Path], None]
    commands: tuple[str, ...]
    needs_hub: bool = False
    block_rows: int | None = None

    def catalogue(self) -> Catalogue:
        """All plugins that the project needs."""
        return reopened(Path()).catalogue

    def only(self, *commands: str) -> Life:
        """Some of its commands."""
        return replace(self, commands=commands)


def make_toy(project: Path) -> None:
    """A toy student, which trains fast, and two teachers to add."""
    make_project(project, teachers={}, domains=tuple(CLASSES), train=4, held_out=4)
    recipe = RECIPE.replace("steps: 40", "steps: 12").replace("replay: 0.5", "previous: {weight: 1.0}, replay: 0.5")
    (project / "toy.yaml").write_text(recipe, encoding="utf-8")
    for name, known, width in (("radio", ("ct", "mri"), 8), ("xr", ("xray",), 12)):
        train_teacher(known, width=width, seed=width).save(project / "models" / name)
    registry = project / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("tolerance: 10", "tolerance: 100")
    registry.write_text(text, encoding="utf-8")


def make_encoders(project: Path) -> None:
    """A dual encoder that can be published, and two teachers to add."""
    make_toy(project)
    publishable(project)


def make_answering(project: Path) -> None:
    """An answering student with a teacher, and questions that have no answer."""
    generating_project(project, ("ct",), held_out=4)
    recipe = (
        "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
        "optimizer: {lr: 0.01, batch_size: 16, steps: 12}\n"
    )
    (project / "toy.yaml").write_text(recipe, encoding="utf-8")
    add_vlm(project, "first", seed=0, sureness=30.0)
    manifest = project / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    extra = {"task": "vqa", "messages": [{"role": "user", "content": "<image>What is it?"}]}
    rows += [
        {"id": f"open-{row['id']}", "image": row["image"], "domain": "ct", "split": "train", "extra": extra}
        for row in rows
        if row["split"] == "train"
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


ENCODERS = Life(make_encoders, COMMANDS, needs_hub=True)
ANSWERING = Life(make_answering, ANSWERING_COMMANDS)
RANKS = Life(make_toy, RANK_COMMANDS, block_rows=16)
