"""``python -m kdkit``, and so ``torchrun -m kdkit distill``.

Python itself imports modules of the current folder before this one; ``python -P`` or ``PYTHONSAFEPATH=1`` prevents it.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]  # from here on, no file of the current folder is imported as a library

    from kdkit.cli.main import run

    run()
