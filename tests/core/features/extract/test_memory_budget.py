"""Groups of teachers that fit into memory together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from kdkit.core.contracts import Silent
from kdkit.core.features.extract import memory_budget
from kdkit.core.features.extract.memory_budget import default_budget, teachers_at_once
from kdkit.core.project.registry.lock import Lock


def lock_of(**sizes: int) -> Lock:
    teachers = {
        name: SimpleNamespace(files={"a": SimpleNamespace(size=size - 1), "b": SimpleNamespace(size=1)})
        for name, size in sizes.items()
    }
    return cast(Lock, cast(Any, SimpleNamespace(teacher=teachers.__getitem__)))


@pytest.mark.parametrize(
    ("budget", "groups"),
    [
        (1000, [["a", "b", "c", "d"]]),
        (130, [["a", "b", "c", "d"]]),
        (129, [["a", "b", "c"], ["d"]]),
        (60, [["a", "b"], ["c"], ["d"]]),
        (10, [["a"], ["b"], ["c"], ["d"]]),
    ],
)
def test_groups_hold_what_fits(budget: int, groups: list[list[str]]) -> None:
    lock = lock_of(a=20, b=30, c=60, d=20)
    assert teachers_at_once(["a", "b", "c", "d"], lock, budget, Silent()) == groups


def test_processes_of_one_machine_divide_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "free_memory", lambda _: 1000)
    assert default_budget(torch.device("cpu")) == 800
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_budget(torch.device("cpu")) == 200
