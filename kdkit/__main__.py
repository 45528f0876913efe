"""``python -m kdkit``, and so ``torchrun -m kdkit distill``."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]  # ``-m`` puts the current folder there: a file of a project would be imported as a library

    from kdkit.cli.main import run

    run()
