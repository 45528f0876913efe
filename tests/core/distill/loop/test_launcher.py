"""Settings of launchers: followed in every run of a process, or refused with what kdkit has instead."""

from __future__ import annotations

import os

import pytest

from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.loop.launcher import launched_sharding
from kdkit.core.distill.loop.sharding import Sharding, chosen_sharding, require_groups
from tests.errors import raises_error

EIGHT = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
FSDP = {"ACCELERATE_USE_FSDP": "true"}
MESH = {"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}
SIZE = "PARALLELISM_CONFIG_{}_SIZE"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the choice of another test, and without leaving one."""
    for name in (*FSDP, *MESH):
        monkeypatch.setenv(f"KDKIT_{name}", "")
        monkeypatch.delenv(f"KDKIT_{name}")


def with_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"ACCELERATE_USE_FSDP": "false"}, None),
        (FSDP, Sharding()),
        (FSDP | {"FSDP_SHARDING_STRATEGY": "2"}, Sharding()),
        (FSDP | {"FSDP_RESHARD_AFTER_FORWARD": "true"}, Sharding()),
        (FSDP | {"FSDP_SHARDING_STRATEGY": "NO_SHARD"}, None),
        (FSDP | EIGHT | {"FSDP_SHARDING_STRATEGY": "4"}, Sharding(2)),
        (FSDP | EIGHT | {"FSDP_RESHARD_AFTER_FORWARD": "hybrid_shard_zero2"}, Sharding(2)),
        (FSDP | {"FSDP_SHARDING_STRATEGY": "HYBRID_SHARD"}, Sharding()),
        (MESH | {SIZE.format("DP_SHARD"): "8", SIZE.format("TP"): "1"}, Sharding()),
        (MESH | {SIZE.format("DP_SHARD"): "4", SIZE.format("DP_REPLICATE"): "2"}, Sharding(2)),
        (MESH | {SIZE.format("DP_REPLICATE"): "8", SIZE.format("DP_SHARD"): "1"}, None),
    ],
)
def test_the_choice_of_a_launcher_is_followed_by_each_run_of_a_process(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: Sharding | None
) -> None:
    with_variables(monkeypatch, variables)
    assert launched_sharding() == expected
    assert not {*FSDP, *MESH} & set(os.environ), "accelerate and transformers would act on it"
    assert launched_sharding() == expected


@pytest.mark.parametrize(
    ("variables", "id", "where"),
    [
        (FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, "KD-DIST-404", "FSDP_OFFLOAD_PARAMS"),
        (FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "KD-DIST-404", "FSDP_ACTIVATION_CHECKPOINTING"),
        (MESH | FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, "KD-DIST-404", "FSDP_OFFLOAD_PARAMS"),
        (MESH | {SIZE.format("TP"): "2"}, "KD-DIST-521", SIZE.format("TP")),
    ],
)
def test_sharding_that_a_run_cannot_follow(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], id: str, where: str
) -> None:
    with_variables(monkeypatch, variables)
    with raises_error(id, where=where):
        launched_sharding()


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ({}, "'kdkit distill --gpus N --shard'"),
        ({"WORLD_SIZE": "8", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "'kdkit distill --gpus 8'"),
        (
            {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_MIXED_PRECISION": "fp16"},
            "'kdkit distill --gpus N --shard --precision bf16'",
        ),
        ({"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"}, "nothing is offloaded"),
    ],
)
def test_deepspeed_is_refused_with_the_command_that_does_the_same(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], command: str
) -> None:
    with_variables(monkeypatch, settings | {"ACCELERATE_USE_DEEPSPEED": "True"})
    with raises_error("KD-DIST-012", where="ACCELERATE_USE_DEEPSPEED") as caught:
        make_accelerator("no", cpu=True)
    assert command in caught.value.fix


@pytest.mark.parametrize(
    ("variable", "value", "precision", "id"),
    [
        ("ACCELERATE_USE_MEGATRON_LM", "true", "no", "KD-DIST-526"),
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
    settings = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"}
    with_variables(monkeypatch, settings | {"ACCELERATE_USE_FSDP": "false"})
    assert make_accelerator("no", cpu=True).num_processes == 1


def test_replicas_that_cannot_be() -> None:
    assert chosen_sharding(shard=False, replicas=1) is None
    with raises_error("KD-DIST-522", where="--replicas"):
        chosen_sharding(shard=False, replicas=2)
    for groups, processes in ((3, 8), (4, 4), (8, 4)):
        with raises_error("KD-DIST-523", where="--replicas"):
            require_groups(Sharding(groups), processes)
    for groups, processes in ((1, 8), (2, 8), (4, 8), (1, 2)):
        require_groups(Sharding(groups), processes)
