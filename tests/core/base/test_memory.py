"""Free memory of the machine and of a container."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdkit.core.base.memory import free_memory

CPU = torch.device("cpu")


def test_the_machine_has_some_and_a_container_no_more(tmp_path: Path) -> None:
    import psutil

    assert 0 < free_memory(CPU) <= psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 500\nactive_file 100\n")
    assert free_memory(CPU, tmp_path) == 600


@pytest.mark.parametrize("limit", ["max\n", ""])
def test_a_container_without_a_limit(limit: str, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("900\n")
    assert free_memory(CPU, tmp_path) > 1000
