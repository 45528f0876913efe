"""``python -m kdkit``, and so ``torchrun -m kdkit distill``."""

from __future__ import annotations

from kdkit.cli.main import run

if __name__ == "__main__":
    run()
