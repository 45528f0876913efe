# mypy: disable-error-code="empty-body"
# Hookspecs are declarations, never called.
"""The hooks. Every one returns an iterable of frozen specs; none may import torch or do any work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from kdkit.core.contracts import specs as c

PROJECT = "kdkit"
PLUGIN_API = 1
"""A plugin module may set ``KDKIT_API``; one that asks for more than this is reported and skipped."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def kdkit_loaders() -> Iterable[c.LoaderSpec]:
    """How folders of files become teachers."""


@hookspec
def kdkit_teachers() -> Iterable[c.TeacherSpec]:
    """Teachers that can be added by name."""


@hookspec
def kdkit_students() -> Iterable[c.StudentSpec]:
    """Families of students."""


@hookspec
def kdkit_aligners() -> Iterable[c.AlignerSpec]:
    """Maps between feature spaces."""


@hookspec
def kdkit_losses() -> Iterable[c.LossSpec]:
    """Losses that recipes can name."""


@hookspec
def kdkit_rope_variants() -> Iterable[c.RopeSpec]:
    """Rotary position designs for vision-language students."""


@hookspec
def kdkit_sources() -> Iterable[c.SourceSpec]:
    """Where samples come from."""


@hookspec
def kdkit_trust_policies() -> Iterable[c.TrustPolicySpec]:
    """Rules that turn trust scores into weights."""


@hookspec
def kdkit_tasks() -> Iterable[c.TaskSpec]:
    """Evaluation tasks."""


@hookspec
def kdkit_recipes() -> Iterable[c.RecipeSpec]:
    """Complete, named ways to distil."""
