"""Keep one student; keep adding teachers.

The public face: everything here is imported on first use, so that ``import kdkit`` imports no torch.
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
    "LoaderSpec",
    "LossInput",
    "LossSpec",
    "RecipeSpec",
    "RopeSpec",
    "Sample",
    "SignalSpec",
    "SourceSpec",
    "StudentSpec",
    "TaskSpec",
    "TeacherSpec",
    "TeacherView",
    "TrustPolicySpec",
    "TrustTable",
)
_WHERE = {
    "hookimpl": "kdkit.core.contracts.hookspecs",
    "KdkitError": "kdkit.core.base.errors",
    "Project": "kdkit.core.project.project",
    "load_student": "kdkit.core.project.versions",
    **dict.fromkeys(_CONTRACTS, "kdkit.core.contracts"),
}

__all__ = [
    "AlignerSpec",
    "Answer",
    "Decoding",
    "DomainScore",
    "KdkitError",
    "LoaderSpec",
    "LossInput",
    "LossSpec",
    "Project",
    "RecipeSpec",
    "RopeSpec",
    "Sample",
    "SignalSpec",
    "SourceSpec",
    "StudentSpec",
    "TaskSpec",
    "TeacherSpec",
    "TeacherView",
    "TrustPolicySpec",
    "TrustTable",
    "__version__",
    "hookimpl",
    "load_student",
]

if TYPE_CHECKING:
    from kdkit.core.base.errors import KdkitError
    from kdkit.core.contracts import (
        AlignerSpec,
        Answer,
        Decoding,
        DomainScore,
        LoaderSpec,
        LossInput,
        LossSpec,
        RecipeSpec,
        RopeSpec,
        Sample,
        SignalSpec,
        SourceSpec,
        StudentSpec,
        TaskSpec,
        TeacherSpec,
        TeacherView,
        TrustPolicySpec,
        TrustTable,
    )
    from kdkit.core.contracts.hookspecs import hookimpl
    from kdkit.core.project.project import Project
    from kdkit.core.project.versions import load_student


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'kdkit' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)
