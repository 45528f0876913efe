"""Trackers get the loss curve of a run, and never cost it."""

from __future__ import annotations

import struct
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.distill.loop.tracking import hide_secrets
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from tests.core.distill.loop.test_train import Stopped
from tests.core.distill.toy_runs import Heard
from tests.errors import raises_error
from tests.toy_project import open_project

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboardX") is None, reason="needs tensorboardX")


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, from TensorBoard's event files: records of a length, a checksum, a message, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.rglob("events.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found[value.tag][event.step] = value.simple_value
            at += 16 + length
    return found


@needs_tensorboard
def test_the_curve_of_a_resumed_run_is_whole(folder: Path) -> None:
    options = Options(cpu=True, seed=3, checkpoint_seconds=0.0, track=("tensorboard",))
    with pytest.raises(InterruptedError):
        distill(open_project(folder), options, reporter=Stopped())
    (own,) = (folder / "reports" / "tracking").iterdir()
    assert 0 < max(read_scalars(own)["loss"]) < 39
    outcome = distill(open_project(folder), options, reporter=Heard())
    assert outcome is not None
    assert list((folder / "reports" / "tracking").iterdir()) == [own]  # the same run
    scalars, log = read_scalars(own), outcome.version.lineage.training.log
    assert {step: pytest.approx(x, rel=1e-6) for step, x in scalars["loss"].items()} == {
        int(point["step"]): point["loss"] for point in log
    }
    assert set(scalars) == {"loss", *(f"loss/{name}" for name in log[0] if name not in ("step", "loss"))}


@needs_tensorboard
def test_a_tracker_that_fails_costs_no_run_and_shows_no_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "reports" / "tracking").write_text("no folder")
    monkeypatch.setenv("SOME_API_TOKEN", "reports/tracking")
    heard = Heard()
    outcome = distill(open_project(folder), Options(cpu=True, seed=4, track=("tensorboard",)), reporter=heard)
    assert outcome is not None
    (warning,) = [text for text in heard.warnings if "tracker" in text]
    assert "***" in warning
    assert "reports/tracking" not in warning


def test_a_tracker_that_cannot_work_is_refused_before_the_run(folder: Path) -> None:
    with raises_error("KD-DIST-250") as caught:
        distill(open_project(folder), Options(cpu=True, track=("tensorbord",)))
    assert "tensorboard" in caught.value.fix
    if find_spec("mlflow") is None:
        with raises_error("KD-DIST-251", code=ExitCode.MISSING):
            distill(open_project(folder), Options(cpu=True, track=("mlflow",)))


def test_short_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SORT_KEY", "a")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    assert hide_secrets("a name and hf_abcdef") == "a name and ***"
