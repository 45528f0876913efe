"""A run's place among processes: what its launcher asks for is done, or refused in words."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.distill.loop.accelerator import accelerate


def test_processes_wait_for_the_one_that_extracts() -> None:
    """For hours; by default those of a GPU give up after ten minutes."""
    handler = accelerate("no", cpu=True).init_handler
    assert handler is not None
    assert handler.timeout > timedelta(days=1)


@pytest.mark.parametrize(
    ("variable", "value", "precision", "what", "fix"),
    [
        ("ACCELERATE_USE_FSDP", "true", "no", "shared by FSDP", "torchrun"),
        ("ACCELERATE_USE_DEEPSPEED", "True", "no", "shared by DeepSpeed", "torchrun"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "no", "shared by Megatron-LM", "torchrun"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "no", "parallelism configuration", "torchrun"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "no", "'bf16' is asked of accelerate", "--precision bf16"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "bf16", "'fp16' is asked of accelerate", "bf16 in both"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "no", "not accumulated", "optimizer.batch_size"),
    ],
)
def test_what_a_launcher_asks_for_and_a_run_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, precision: str, what: str, fix: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(KdkitError, match=what) as caught:
        accelerate(precision, cpu=True)
    assert caught.value.where == variable
    assert fix in caught.value.fix


def test_what_a_launcher_sets_by_default_is_no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    }.items():
        monkeypatch.setenv(variable, value)
    assert accelerate("no", cpu=True).num_processes == 1
