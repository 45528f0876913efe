"""Teachers that are asked while training: what they say is what their columns would hold, and none of it is stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from kdkit.api.student import DistillPlan
from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import SPLITS, Silent
from kdkit.core.data import load_index
from kdkit.core.distill.cost_estimate import PlannedStage, dry_run
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.dataloader import PREFETCH_STEPS
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.promotion import Outcome
from kdkit.core.distill.run import distill
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.missing import extract_missing
from kdkit.core.features.extract.status import column_statuses
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.building import build_prepared
from tests.core.distill.pseudo_labels import project as asking
from tests.core.distill.pseudo_labels.project import Oracle
from tests.errors import raises_error
from tests.journeys.test_generating_student import reopened
from tests.local_endpoint import local_endpoint
from tests.plugins.students.clinkd.tiny import SIZES, SMALL, make
from tests.toy_project import RECIPE, make_project, open_project

DROPOUT = "config: {width: 12, dropout: 0.3}"
"""A student that draws random numbers at each step: a teacher that drew some as well would change them."""


@pytest.fixture(scope="module")
def without_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two teachers that were never asked."""
    root = tmp_path_factory.mktemp("live") / "project"
    make_project(root, teachers={"one": ("ct", "mri"), "two": ("xray",)}, domains=("ct", "mri", "xray"), train=8)
    change(root, ("config: {width: 12}", DROPOUT))
    return root


def change(root: Path, *edits: tuple[str, str]) -> None:
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    registry.write_text(text, encoding="utf-8")


def two(base: Path, folder: Path, entry: str = "", recipe: str = RECIPE) -> tuple[Path, Path]:
    """The project with stored and, a copy, with live teachers, whose entries have ``entry`` too."""
    stored, live = (Path(shutil.copytree(base, folder / name)) for name in ("stored", "live"))
    for root in (stored, live):
        (root / "toy.yaml").write_text(recipe, encoding="utf-8")
    change(live, ("license: mit", "license: mit\n    signals: live" + (f"\n    {entry}" if entry else "")))
    return stored, live


def run(root: Path, **options: Any) -> Outcome:
    outcome = distill(open_project(root), Options(cpu=True, **options))
    assert outcome is not None
    return outcome


def weights(outcome: Outcome) -> dict[str, Tensor]:
    folder = outcome.version.folder
    return {**load_file(folder / "student" / "toy.safetensors"), **load_file(folder / "task.safetensors")}


def assert_equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]


def assert_same_curves(one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> None:
    """Every number, to 1e-4 and 1e-5 of it: a teacher's last bits may depend on the batch that it computes in."""
    assert [point.keys() for point in one] == [point.keys() for point in other]
    for name in one[0]:
        curve, again = ([point[name] for point in log] for log in (one, other))
        assert curve[0] != curve[-1]
        np.testing.assert_allclose(again, curve, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("entry", "recipe"),
    [
        ("", RECIPE),
        ("offload: true", RECIPE + "teachers_per_sample: one\n"),
        ("device: cpu", RECIPE.replace("space: heads", "space: heads\ntargets: {normalize: phi-s}")),
        ("", RECIPE.replace("space: heads", "space: shared\naligner: {name: procrustes}")),
    ],
    ids=["plain", "offload, one teacher a sample", "normalized targets", "a shared space"],
)
def test_a_dual_encoder_teaches_live_what_it_teaches_stored(
    without_features: Path, tmp_path: Path, entry: str, recipe: str
) -> None:
    stored, live = (run(root) for root in two(without_features, tmp_path, entry, recipe))
    training = [outcome.version.lineage.training for outcome in (stored, live)]
    assert_same_curves(*(part.log for part in training))
    assert training[0].digest == training[1].digest
    for name, x in weights(stored).items():
        torch.testing.assert_close(weights(live)[name], x, rtol=1e-3, atol=1e-4, msg=name)
    signals = [{t.signals for t in outcome.version.lineage.teachers} for outcome in (stored, live)]
    assert signals == [{"stored"}, {"live"}]
    same = [[t.fingerprint for t in outcome.version.lineage.teachers] for outcome in (stored, live)]
    assert same[0] == same[1]


def test_features_of_training_samples_are_not_stored_for_a_live_teacher(without_features: Path, tmp_path: Path) -> None:
    _, root = two(without_features, tmp_path, "offload: true")
    change(root, (STORED_TWO + "\n    signals: live\n    offload: true", STORED_TWO))
    heard = Heard()
    done = {one.teacher: one.new for one in extract_missing(open_project(root), load_index(open_project(root)))}
    assert done == {"one": 9 * 20, "two": 9 * 28}
    assert extract_missing(open_project(root), load_index(open_project(root)), reporter=heard) == ()
    assert [line.split(";")[0] for line in heard.lines] == ["one: live"]
    table = load_index(open_project(root))
    here = FeatureStore(root / "features").column("one").locate(table) >= 0
    assert np.array_equal(here, table.split_index != SPLITS.index("train"))
    status = {one.teacher: one for one in column_statuses(open_project(root), table)}
    assert (status["one"].live, status["one"].complete, status["one"].domains["ct"]) == (True, True, (60, 60))
    assert (status["two"].live, status["two"].complete, status["two"].domains["ct"]) == (False, True, (84, 84))
    plan, estimate, _ = dry_run(open_project(root), Options(cpu=True), heard)[-1]
    assert any(line.startswith("one: live") and {"cpu,", "offloaded"} <= set(line.split()) for line in heard.lines)
    assert [(t["name"], t["live"]) for t in plan.to_json()["teachers"]] == [("one", True), ("two", False)]
    rows = [line.split() for line in str(DistillPlan((PlannedStage(plan, estimate),))).splitlines()]
    assert ["one", "new,", "live"] in [row[:3] for row in rows]


STORED_TWO = "from: local:models/two\n    loader: toy\n    license: mit"


class Heard(Silent):
    """Records messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Stopped(Silent):
    """A reporter that stops a run after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        if label == "distill" and done == self.steps:
            raise RuntimeError("killed")


@pytest.mark.parametrize("entry", ["", "offload: true"])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(
    without_features: Path, tmp_path: Path, entry: str
) -> None:
    _, live = two(without_features, tmp_path, entry)
    whole = run(Path(shutil.copytree(live, tmp_path / "whole")))
    with pytest.raises(RuntimeError, match="killed"):
        distill(open_project(live), Options(cpu=True, checkpoint_seconds=0.0), reporter=Stopped(PREFETCH_STEPS + 3))
    assert list((live / ".kdkit" / "runs").glob("*/step-*"))
    assert_equal(weights(run(live)), weights(whole))


def test_a_generating_teacher_teaches_live_what_it_teaches_stored(tmp_path: Path) -> None:
    """Top-k logits of a ``image-text-to-text`` teacher, into a ``clinkd`` student."""
    root = tmp_path / "base"
    make_project(root, teachers={}, domains=("ct",), train=6, held_out=2)
    config: dict[str, Any] = {"sizes": SIZES, **SMALL, "max_tokens": 128, "max_answer": 40}
    (root / "models").mkdir()
    make(**config, seed=3).save(root / "models" / "qwen")
    student = json.dumps({"family": "clinkd", "config": {**config, "rope": "clinkd-repo"}})
    change(root, ("{family: toy, config: {width: 12}}", student))
    entry = {"from": "local:models/qwen", "loader": "image-text-to-text", "license": "mit", "options": {"k": 8}}
    add_teacher(open_project(root), "qwen", entry)
    logs = [curve(folder) for folder in two(root, tmp_path, recipe=SPEAKING)]
    assert len(logs[0]) == 8
    assert "token-kd" in logs[0][0]
    assert_same_curves(*logs)
    table = load_index(open_project(tmp_path / "live"))
    here = FeatureStore(tmp_path / "live" / "features").column("qwen").locate(table) >= 0
    assert not here[table.select(split="train")].any()


def curve(root: Path) -> list[dict[str, float]]:
    """What a run logs, without its evaluation: the toy project asks no questions."""
    project = open_project(root)
    prepared = prepare(project, Options(), Silent())
    made = build_prepared(project, prepared)
    accelerator, plan = Accelerator(cpu=True), prepared.plan
    schedule = BatchSampler(plan.pools, batch_size=plan.batch_size, steps=plan.settings.steps, seed=0)
    feed = made.dataloader(prepared.plan, schedule, accelerator)
    checkpoints = Checkpoints(root / "run")
    progress = train(
        made.task, feed, plan.settings, accelerator=accelerator, checkpoints=checkpoints, reporter=Silent()
    )
    made.inputs.close()
    prepared.inventory.close()
    return progress.log


SPEAKING = """\
name: speaking
summary: "ClinKD's eq. 16"
losses: [{name: answer-ce, weight: 0.6667}, {name: token-kd, weight: 0.3333, options: {temperature: 0.5}}]
trust: {policy: all, options: {unmeasured: true}}
optimizer: {lr: 0.003, batch_size: 6, steps: 8}
"""


# ------------------------------------------------------------------------------------ what can be wrong


def test_a_device_that_does_not_exist(without_features: Path, tmp_path: Path) -> None:
    _, root = two(without_features, tmp_path, "device: cuda:99")
    for ask in (run, lambda root: extract_missing(open_project(root), load_index(open_project(root)))):
        with raises_error("KD-FEAT-004", mentions=("'cuda:99'",)) as caught:
            ask(root)
        assert all(word in caught.value.fix for word in ("'device'", "'one'", "registry.yaml"))
    assert not (root / "features").exists(), "refused before extraction"


def test_a_device_of_a_stored_teacher(without_features: Path, tmp_path: Path) -> None:
    root, _ = two(without_features, tmp_path)
    change(root, ("license: mit", "license: mit\n    offload: true"))
    with raises_error("KD-BASE-007", where="registry.yaml:4", mentions=("'device'", "'offload'", "'signals: live'")):
        run(root)


def test_a_live_teacher_that_is_gone(without_features: Path, tmp_path: Path) -> None:
    stored, _ = two(without_features, tmp_path)
    extract_missing(open_project(stored), load_index(open_project(stored)))
    shutil.rmtree(stored / "models" / "one")
    shutil.rmtree(stored / ".kdkit" / "artifacts" / "one")
    change(stored, ("license: mit", "license: mit\n    signals: live"))
    with raises_error("KD-DIST-016", where="local:models/one", mentions=("'one'",)) as caught:
        run(stored)
    assert caught.value.code is ExitCode.MISSING
    change(stored, ("\n    signals: live", ""))
    assert run(stored).version.name == "v1"


def test_a_teacher_that_only_answers(tmp_path: Path) -> None:
    oracle = Oracle()
    with local_endpoint(oracle) as endpoint:
        asking.make(tmp_path / "p", endpoint, oracle)
        registry = tmp_path / "p" / "registry.yaml"
        text = registry.read_text(encoding="utf-8").replace("license: mit", "license: mit\n    signals: live")
        registry.write_text(text, encoding="utf-8")
        project = reopened(tmp_path / "p")
        with raises_error("KD-FEAT-006", mentions=("'remote'",)):
            extract_missing(project, load_index(project))


def test_unreadable_images(without_features: Path, tmp_path: Path) -> None:
    stored, live = two(without_features, tmp_path)
    for root in (stored, live):
        (root / "images" / "ct-mass-0-0.png").write_bytes(b"no image")
    with raises_error("KD-DATA-001", mentions=("'ct-mass-0-0'",)):
        run(live)
    for root in (stored, live):
        change(root, ("path: images/samples.jsonl", "path: images/samples.jsonl, options: {skip_unreadable: true}"))
    outcomes = [run(root) for root in (stored, live)]
    assert sum(outcomes[1].version.lineage.data.samples.values()) == 9 * 8 - 1
    assert_same_curves(*(outcome.version.lineage.training.log for outcome in outcomes))
