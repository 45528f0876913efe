"""``python -m tests.run_toy FOLDER STEP``: distill a toy project in a process of its own, with a checkpoint at every
step, and wait after STEP for a signal."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from kdkit.api.reporter import Lines
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from tests.toy_project import open_project


class Waiting(Lines):
    """Waits for a signal after a step."""

    def __init__(self, step: int) -> None:
        super().__init__(every=0.0)
        self.step = step
        self.arrived, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)  # a signal that arrives before the wait ends it too

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        super().progress(label, done, total, note)
        if label == "distill" and done == self.step:
            os.read(self.arrived, 1)


def main() -> None:
    torch.set_num_threads(1)
    options = Options(cpu=True, checkpoint_seconds=0.0)
    distill(open_project(Path(sys.argv[1])), options, reporter=Waiting(int(sys.argv[2])))


if __name__ == "__main__":
    main()
