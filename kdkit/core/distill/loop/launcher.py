"""What a launcher, such as ``accelerate launch``, chose for a run: followed, or refused with kdkit's equivalent."""

from __future__ import annotations

import os

from kdkit.core.base.errors import KdkitError
from kdkit.core.distill.loop.sharding import Sharding

_FSDP, _MESH = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM_CONFIG"
_KEPT = "KDKIT_"
"""Prefix of the variables where a choice is kept for the next run of this process. Accelerate must not see it: it would
drop it on a CPU, and transformers would load weights on the first process alone."""
_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
_STRATEGIES = ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "HYBRID_SHARD_ZERO2")
"""Of FSDP; accelerate also numbers them from 1."""
_UNSUPPORTED = {
    "FSDP_OFFLOAD_PARAMS": "set fsdp_offload_params: false; optimizer.micro_batch saves memory",
    "FSDP_ACTIVATION_CHECKPOINTING": "set it to false; optimizer.micro_batch, or gradient_checkpointing of the student",
}


def launched_sharding() -> Sharding | None:
    """How ``accelerate launch`` wants weights to be shared; None if it does not.

    Raises:
        KdkitError: settings that a run cannot follow.
    """
    hide_sharding()
    fsdp = _is_set(_KEPT + _FSDP)
    for variable, fix in _UNSUPPORTED.items() if fsdp else ():
        if _is_set(variable):
            raise KdkitError("KD-DIST-404", "this is not supported with FSDP", where=variable, fix=fix)
    if _is_set(_KEPT + _MESH):
        return _of_mesh()
    if not fsdp:
        return None
    strategy = os.environ.get("FSDP_SHARDING_STRATEGY") or os.environ.get("FSDP_RESHARD_AFTER_FORWARD") or ""
    strategy = _STRATEGIES[int(strategy) - 1] if strategy in list("12345") else strategy.upper()
    if strategy == "NO_SHARD":
        return None
    return Sharding(_machines() if strategy.startswith("HYBRID") else 1)


def hide_sharding() -> None:
    """Take the launcher's choice out of sight of other libraries."""
    for variable in (_FSDP, _MESH):
        if variable in os.environ:
            os.environ[_KEPT + variable] = os.environ.pop(variable)


def check_settings(precision: str) -> None:
    """Raises: KdkitError: settings of accelerate's launcher that would change the run or be ignored."""
    if _is_set(_DEEPSPEED):
        raise KdkitError(
            "KD-DIST-012", "DeepSpeed is not supported", where=_DEEPSPEED, why=_zero(), fix=f"run {_like_deepspeed()}"
        )
    if _is_set("ACCELERATE_USE_MEGATRON_LM"):
        raise KdkitError(
            "KD-DIST-526",
            "Megatron-LM is not supported",
            where="ACCELERATE_USE_MEGATRON_LM",
            fix="use torchrun or accelerate's multi-GPU, with --shard for sharded weights (FSDP2); LoRA, "
            "gradient checkpointing, optimizer.micro_batch and --precision bf16 save memory too",
        )
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed not in ("no", precision):
        raise KdkitError(
            "KD-DIST-013",
            f"accelerate has mixed precision '{mixed}', kdkit has --precision {precision}",
            where="ACCELERATE_MIXED_PRECISION",
            fix="add --precision bf16" if mixed == "bf16" else "set both to no, or both to bf16",
        )
    if os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise KdkitError(
            "KD-DIST-014",
            "gradient accumulation is not used",
            where="ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
            why="losses between samples (clip, icl, crd) need their whole batch at once",
            fix="set it to 1; optimizer.micro_batch in the recipe or registry saves the same memory, exactly",
        )


def _of_mesh() -> Sharding | None:
    """Of accelerate's ``ParallelismConfig``: replicas and parts of the weights, and nothing else."""
    prefix = "PARALLELISM_CONFIG_"
    sizes = {
        name.removeprefix(prefix): int(value)
        for name, value in os.environ.items()
        if name.startswith(prefix) and name.endswith("_SIZE") and value.isdigit()
    }
    replicas, parts = sizes.pop("DP_REPLICATE_SIZE", 1), sizes.pop("DP_SHARD_SIZE", 1)
    for name, size in sizes.items():
        if size == 1:
            continue
        raise KdkitError(
            "KD-DIST-521",
            f"{size} processes cannot share a layer or a text",
            where=prefix + name,
            why="they share samples and weights",
            fix="set it to 1, and dp_shard_size to the number of processes, as --shard does",
        )
    return Sharding(replicas) if parts > 1 else None


def _zero() -> str:
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
    return f"its ZeRO stage {stage} shards what --shard shards" if stage in ("1", "2", "3") else ""


def _like_deepspeed() -> str:
    """The command for what a configuration of DeepSpeed wants."""
    words = ["kdkit distill", f"--gpus {os.environ.get('WORLD_SIZE', 'N')}"]
    if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") != "0":
        words.append("--shard")
    if os.environ.get("ACCELERATE_MIXED_PRECISION") in ("bf16", "fp16"):
        words.append("--precision bf16")
    command = f"'{' '.join(words)}'"
    devices = ("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE")
    if any(os.environ.get(device, "none") not in ("none", "") for device in devices):
        command += "; nothing is offloaded: optimizer.micro_batch, LoRA and gradient checkpointing save memory"
    return command


def _machines() -> int:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return max(1, processes // int(os.environ.get("LOCAL_WORLD_SIZE", processes)))


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1")
