"""Keep one student; keep adding teachers.

The public names are imported on first use: ``import kdkit`` imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_CONTRACTS = (
    "AlignerSpec",
    "Answer",
    "Decoding",
    "DomainScore",
    "ImageLocation",
    "ImageReaderSpec",
    "LoaderSpec",
    "LossInput",
    "LossSpec",
    "RecipeSpec",
    "RopeSpec",
    "Sample",
    "SignalSpec",
    "Skipped",
    "SourceSpec",
    "StudentSpec",
    "SuiteSpec",
    "TaskSpec",
    "TeacherSpec",
    "TeacherView",
    "TrustPolicySpec",
    "TrustTable",
)
_FUNCTIONS = ("freeze_plugins", "list_plugins", "new_plugin", "recipes", "show_recipe", "verify_plugin")
_WHERE = {
    "hookimpl": "kdkit.core.contracts.hookspecs",
    "KdkitError": "kdkit.core.base.errors",
    "Project": "kdkit.api.project",
    "Silent": "kdkit.core.contracts",
    "load_student": "kdkit.core.project.versions",
    **dict.fromkeys(_FUNCTIONS, "kdkit.api.plugins"),
    **dict.fromkeys(("show_suite", "suites"), "kdkit.api.suites"),
    **dict.fromkeys(_CONTRACTS, "kdkit.core.contracts"),
}

__all__ = [
    "AlignerSpec",
    "Answer",
    "Decoding",
    "DomainScore",
    "ImageLocation",
    "ImageReaderSpec",
    "KdkitError",
    "LoaderSpec",
    "LossInput",
    "LossSpec",
    "Project",
    "RecipeSpec",
    "RopeSpec",
    "Sample",
    "SignalSpec",
    "Silent",
    "Skipped",
    "SourceSpec",
    "StudentSpec",
    "SuiteSpec",
    "TaskSpec",
    "TeacherSpec",
    "TeacherView",
    "TrustPolicySpec",
    "TrustTable",
    "__version__",
    "freeze_plugins",
    "hookimpl",
    "list_plugins",
    "load_student",
    "new_plugin",
    "recipes",
    "show_recipe",
    "show_suite",
    "suites",
    "verify_plugin",
]

if TYPE_CHECKING:
    from kdkit.api.plugins import freeze_plugins, list_plugins, new_plugin, recipes, show_recipe, verify_plugin
    from kdkit.api.project import Project
    from kdkit.api.suites import show_suite, suites
    from kdkit.core.base.errors import KdkitError
    from kdkit.core.contracts import (
        AlignerSpec,
        Answer,
        Decoding,
        DomainScore,
        ImageLocation,
        ImageReaderSpec,
        LoaderSpec,
        LossInput,
        LossSpec,
        RecipeSpec,
        RopeSpec,
        Sample,
        SignalSpec,
        Silent,
        Skipped,
        SourceSpec,
        StudentSpec,
        SuiteSpec,
        TaskSpec,
        TeacherSpec,
        TeacherView,
        TrustPolicySpec,
        TrustTable,
    )
    from kdkit.core.contracts.hookspecs import hookimpl
    from kdkit.core.project.versions import load_student


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'kdkit' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)
