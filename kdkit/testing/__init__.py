"""The conformance kit: contract classes for the authors of plugins (docs/howto/test-plugin.md).

Subclass the contract of a family in a test module and name the entry; pytest then runs its checks::

    from kdkit.testing import LossContract


    class TestHuber(LossContract):
        name = "kdkit-huber:huber"

Everything here is imported on first use: checking a trust policy needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "AlignerContract": "contracts.aligner",
    "Contract": "contract",
    "ImageReaderContract": "contracts.reader",
    "LoaderContract": "contracts.loader",
    "LossContract": "contracts.loss",
    "PluginContract": "contracts.plugin",
    "RecipeContract": "contracts.recipe",
    "RopeContract": "contracts.rope",
    "SourceContract": "contracts.source",
    "StudentContract": "contracts.student",
    "SuiteContract": "contracts.suite",
    "TaskContract": "contracts.task",
    "TeacherContract": "contracts.teacher",
    "TrustPolicyContract": "contracts.policy",
    "checks": "contract",
    "offline": "network",
    "once": "contract",
    "pictures": "examples",
    "samples": "examples",
    "skip": "contract",
}

__all__ = [
    "AlignerContract",
    "Contract",
    "ImageReaderContract",
    "LoaderContract",
    "LossContract",
    "PluginContract",
    "RecipeContract",
    "RopeContract",
    "SourceContract",
    "StudentContract",
    "SuiteContract",
    "TaskContract",
    "TeacherContract",
    "TrustPolicyContract",
    "checks",
    "offline",
    "once",
    "pictures",
    "samples",
    "skip",
]

if TYPE_CHECKING:
    from kdkit.testing.contract import Contract, checks, once, skip
    from kdkit.testing.contracts.aligner import AlignerContract
    from kdkit.testing.contracts.loader import LoaderContract
    from kdkit.testing.contracts.loss import LossContract
    from kdkit.testing.contracts.plugin import PluginContract
    from kdkit.testing.contracts.policy import TrustPolicyContract
    from kdkit.testing.contracts.reader import ImageReaderContract
    from kdkit.testing.contracts.recipe import RecipeContract
    from kdkit.testing.contracts.rope import RopeContract
    from kdkit.testing.contracts.source import SourceContract
    from kdkit.testing.contracts.student import StudentContract
    from kdkit.testing.contracts.suite import SuiteContract
    from kdkit.testing.contracts.task import TaskContract
    from kdkit.testing.contracts.teacher import TeacherContract
    from kdkit.testing.examples import pictures, samples
    from kdkit.testing.network import offline


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'kdkit.testing' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
