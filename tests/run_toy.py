"""``python -m tests.run_toy FOLDER [--incremental] [--every SECONDS]``: distil a toy project in its own process."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from kdkit.cli.console import Lines
from kdkit.core.distill.run import Options, distill
from tests.toy_project import open_project


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--incremental", action="store_true")
    parser.add_argument("--every", type=float, default=60.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = Options(incremental=arguments.incremental, cpu=True, checkpoint_seconds=arguments.every)
    distill(open_project(arguments.folder), options, reporter=Lines(every=0.0))


if __name__ == "__main__":
    main()
