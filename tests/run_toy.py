"""``python -m tests.run_toy FOLDER [--incremental] [--every SECONDS] [--wait-at STEP]``: distill a toy project in a
process of its own, which waits after a step until its stdin is closed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from kdkit.api.reporter import Lines
from kdkit.core.distill.run import Options, distill
from tests.toy_project import open_project


class Waiting(Lines):
    """It comes no further than one step of the training before it is told to."""

    def __init__(self, step: int | None) -> None:
        super().__init__(every=0.0)
        self.step = step

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        super().progress(label, done, total, note)
        if label == "distill" and done == self.step:
            sys.stdin.read()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--incremental", action="store_true")
    parser.add_argument("--every", type=float, default=60.0)
    parser.add_argument("--wait-at", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = Options(incremental=arguments.incremental, cpu=True, checkpoint_seconds=arguments.every)
    distill(open_project(arguments.folder), options, reporter=Waiting(arguments.wait_at))


if __name__ == "__main__":
    main()
