"""The loss curve of a run in TensorBoard, trackio, W&B or MLflow, through the trackers of Accelerate."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import Reporter

if TYPE_CHECKING:
    from kdkit.core.distill.plan.types import Plan

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
}
"""Tracker -> packages of which one must be installed."""
RUN_ID = "mlflow-run.json"
"""File of an unfinished run with the id that MLflow gave it."""
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.I)

OnPoint = Callable[[Mapping[str, float]], None]


def require_trackers(names: Sequence[str]) -> None:
    """Check names before a run.

    Raises:
        KdkitError: an unknown tracker, or one whose package is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            raise KdkitError(
                "KD-DIST-250", f"there is no tracker '{name}'", where="--track", fix=did_you_mean(name, list(PACKAGES))
            )
        if not any(find_spec(package) for package in PACKAGES[name]):
            raise KdkitError(
                "KD-DIST-251",
                f"the tracker '{name}' is not installed",
                where="--track",
                fix=f"pip install {PACKAGES[name][0]}",
                code=ExitCode.MISSING,
            )


@contextmanager
def tracked(names: Sequence[str], plan: Plan, reports: Path, run: Path, reporter: Reporter) -> Iterator[OnPoint | None]:
    """Trackers that receive each logged point of a run; None without any.

    A tracker that fails is left out with a warning: it never ends the run. A run that continues has the same name and
    id, so its curve continues.

    Args:
        reports: folder of TensorBoard's files, in ``tracking/``.
        run: folder of the unfinished run.
    """
    made = [tracker for name in names if (tracker := _Tracker.start(name, plan, reports, run, reporter)) is not None]

    def log(point: Mapping[str, float]) -> None:
        for tracker in made:
            tracker.log(point)

    try:
        yield log if made else None
    finally:
        for tracker in made:
            tracker.finish()


class _Tracker:
    """One tracker of Accelerate, whose errors are warnings."""

    def __init__(self, name: str, own: Any, reporter: Reporter) -> None:
        self._name, self._own, self._reporter, self._failed = name, own, reporter, False

    @classmethod
    def start(cls, name: str, plan: Plan, reports: Path, run: Path, reporter: Reporter) -> _Tracker | None:
        made = cls(name, None, reporter)
        made._guarded(lambda: made._begin(plan, reports, run))
        return None if made._failed else made

    def _begin(self, plan: Plan, reports: Path, run: Path) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        project, label = reports.parent.resolve().name, f"{plan.recipe.name}-{plan.digest[:12]}"
        given: dict[str, Any]
        if self._name == "tensorboard":
            # The file is named by the second it begins in: a run that continues within that second would replace it.
            given = {"run_name": label, "logging_dir": reports / "tracking", "filename_suffix": f".{time_ns()}"}
        elif self._name == "mlflow":
            given = {"experiment_name": project, "run_name": label, "run_id": _saved_id(run)}
        else:
            more = {"id": label} if self._name == "wandb" else {}
            given = {"run_name": project, "name": label, "resume": "allow", **more}
        self._own = LOGGER_TYPE_TO_CLASS[self._name](**given)
        self._own.start()
        if self._name == "mlflow":
            run.mkdir(parents=True, exist_ok=True)
            write_atomically(run / RUN_ID, json.dumps(self._own.tracker.info.run_id).encode())
        if self._name != "tensorboard":  # its files of settings would be written again by each continued run
            self._own.store_init_configuration(settings_of(plan))

    def log(self, point: Mapping[str, float]) -> None:
        """Send one point, unless this tracker has failed."""
        if not self._failed:
            values = {f"loss/{name}" if name != "loss" else name: x for name, x in point.items() if name != "step"}
            self._guarded(lambda: self._own.log(values, step=int(point["step"])))

    def finish(self) -> None:
        """Send what is left."""
        if not self._failed:
            self._guarded(self._own.finish)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # a tracker raises anything: no network, no account, a full disk
            self._failed = True
            text = hide_secrets(" ".join(f"{type(error).__name__}: {error}".split())[:300])
            self._reporter.warn(f"the tracker '{self._name}' failed, and the run continues without it: {text}")


def settings_of(plan: Plan) -> dict[str, str | int | float]:
    """What a tracker stores about a run: nothing of the environment, and no path."""
    settings = plan.settings
    return {
        "recipe": plan.recipe.name,
        "steps": settings.steps,
        "batch_size": plan.batch_size,
        "lr": settings.lr,
        "seed": settings.seed,
        "parent": plan.parent or "",
        "teachers": ", ".join(teacher.name for teacher in plan.teachers),
        "samples": len(plan.samples),
        "plan": plan.digest,
    }


def hide_secrets(text: str) -> str:
    """The text without values of environment variables that hold secrets."""
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET.search(name):
            text = text.replace(value, "***")
    return text


def _saved_id(run: Path) -> str | None:
    with suppress(OSError, ValueError):
        found = json.loads((run / RUN_ID).read_text(encoding="utf-8"))
        return found if isinstance(found, str) else None
    return None
