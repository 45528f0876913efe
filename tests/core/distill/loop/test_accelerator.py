"""The Accelerator of a run: timeout, and launcher settings that it accepts or refuses."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kdkit.core.distill.loop.accelerator import make_accelerator
from tests.errors import raises_error


def test_ranks_wait_longer_than_a_day() -> None:
    """By default ranks on GPUs give up after ten minutes, while the main one may extract for hours."""
    handler = make_accelerator("no", cpu=True).init_handler
    assert handler is not None
    assert handler.timeout > timedelta(days=1)


@pytest.mark.parametrize(
    ("variable", "value", "precision", "id"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "True", "no", "KD-DIST-012"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "no", "KD-DIST-012"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "no", "KD-DIST-012"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "no", "KD-DIST-013"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "bf16", "KD-DIST-013"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "no", "KD-DIST-014"),
    ],
)
def test_unsupported_launcher_settings_are_errors(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, precision: str, id: str
) -> None:
    monkeypatch.setenv(variable, value)
    with raises_error(id, where=variable):
        make_accelerator(precision, cpu=True)


def test_default_launcher_settings_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    }.items():
        monkeypatch.setenv(variable, value)
    assert make_accelerator("no", cpu=True).num_processes == 1
