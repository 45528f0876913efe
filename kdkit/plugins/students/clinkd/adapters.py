"""Low-rank adapters (PEFT) in the towers of a student."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.settings import WHERE, Lora


def with_adapters(network: Any, lora: Lora, family: FamilySpec) -> Any:
    """``network`` with adapters in the towers that ``lora`` names; only they are trained.

    Raises:
        KdkitError: a tower without a linear layer, or names that match none; peft is not installed.
    """
    peft = import_peft()
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules(network, lora, family),
        task_type="CAUSAL_LM",
    )
    try:
        with quiet():
            return peft.get_peft_model(network, config)
    except ValueError as error:
        raise KdkitError(
            "KD-STUD-013",
            "the adapters match no module",
            where=f"{WHERE}.lora",
            why=str(error),
            fix="name modules of the language tower in lora.targets, such as q_proj",
        ) from error


def target_modules(network: Any, lora: Lora, family: FamilySpec) -> str:
    """What PEFT matches names of modules with: ``targets`` in the language tower, all linear layers of the others.

    Raises:
        KdkitError: a tower without a linear layer.
    """
    patterns = []
    for tower in lora.towers:
        if tower == "language":
            patterns.append(rf".*{family.language}\..*\.({'|'.join(lora.targets)})")
            continue
        names = [name for name in _linear_layers(network) if _tower(name, family) == tower]
        if not names:
            raise KdkitError(
                "KD-STUD-434",
                f"the {tower} of {family.name} has no linear layer for adapters",
                where=f"{WHERE}.lora.towers",
                fix=f"remove {tower} from lora.towers",
            )
        patterns += [re.escape(name) for name in names]
    return "|".join(patterns)


def _linear_layers(network: Any) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]


def _tower(name: str, family: FamilySpec) -> str:
    """Which part of the network a module belongs to: ``language``, ``vision``, ``projector``, or none."""
    place = name.removeprefix("model.")
    if place.startswith(f"{family.vision}."):
        return (
            "projector" if place.removeprefix(f"{family.vision}.").startswith(family.trained or ("\0",)) else "vision"
        )
    if place.startswith(f"{family.language}."):
        return "language"
    return "projector" if name.startswith("model.") else ""


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress transformers' deprecation of a name that peft reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`?is_gradient_checkpointing", FutureWarning)
        yield


def import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise KdkitError(
            "KD-STUD-014",
            "adapters need the library peft",
            where=f"{WHERE}.lora",
            why=str(error),
            fix="pip install 'kdkit[clinkd]'",
            code=ExitCode.MISSING,
        ) from None
    return peft
