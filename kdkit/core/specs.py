"""Specs: what plugins declare. Frozen, pure data; ``contracts`` is where everybody imports them from.

A spec names its factory as ``"package.module:callable"``, which is imported only when the object is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Distillation = Literal["allowed", "non-commercial", "forbidden", "unknown"]
Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every family declares. ``name`` matches ``[a-z0-9][a-z0-9._-]*``."""

    name: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class FactorySpec(Spec):
    """A spec whose object is made by ``factory``, an import string ``"package.module:callable"``."""

    factory: str
    options: Options = field(default_factory=dict)
    """Defaults of the factory's keyword arguments; a recipe or the registry may override them."""


@dataclass(frozen=True, kw_only=True)
class LoaderSpec(FactorySpec):
    """How a folder of files becomes a teacher: ``factory(folder: Path, **options) -> Teacher``."""

    marks: tuple[str, ...] = ()
    """File names by which a folder of this kind is recognised, e.g. ``open_clip_config.json``."""


@dataclass(frozen=True, kw_only=True)
class TeacherSpec(Spec):
    """The facts of a published teacher. Everything here shows in ``kdkit teachers`` without loading it."""

    source: str
    """``hf:ORG/REPO[@REV]``, ``local:DIR`` or ``package:PKG/DIR`` (files inside an installed package)."""
    loader: str
    """Name of a loader; empty while no plugin provides the architecture (then ``unavailable`` says so)."""
    options: Options = field(default_factory=dict)
    image_dim: int | None = None
    text_dim: int | None = None
    image_size: int | None = None
    context_length: int | None = None
    domains: tuple[str, ...] = ()
    """Domains for which it was made, as its authors say; trust is measured, not taken from here."""
    license: str = "unknown"
    distillation: Distillation = "unknown"
    """Whether training a student on its outputs is allowed, and why the licence says so in ``notes``."""
    gated: bool = False
    extra_sources: Mapping[str, str] = field(default_factory=dict)
    """Other repositories a working folder needs, e.g. ``{"text": "hf:ORG/TEXT-TOWER"}``."""
    paper: str = ""
    notes: str = ""
    unavailable: str = ""


@dataclass(frozen=True, kw_only=True)
class StudentSpec(FactorySpec):
    """``factory(**config) -> Student`` makes a new one, ``loader(folder: Path) -> Student`` reads a saved one."""

    loader: str


@dataclass(frozen=True, kw_only=True)
class AlignerSpec(FactorySpec):
    """``factory(in_dim: int, out_dim: int, **options) -> Aligner``."""


@dataclass(frozen=True, kw_only=True)
class LossSpec(FactorySpec):
    """``factory(**options) -> Loss`` (an ``nn.Module``: its parameters are trained and checkpointed)."""

    signals: tuple[str, ...] = ("image", "text")
    """The teachers' signals that it reads; a recipe's batches hold those of its losses. Empty: it needs no teacher
    and learns from the samples themselves."""


@dataclass(frozen=True, kw_only=True)
class RopeSpec(FactorySpec):
    """``factory(**options) -> RopeVariant``."""


@dataclass(frozen=True, kw_only=True)
class SourceSpec(FactorySpec):
    """``factory(location: Path, **options) -> Iterable[Sample]``."""


@dataclass(frozen=True, kw_only=True)
class TrustPolicySpec(FactorySpec):
    """``factory(**options) -> TrustPolicy``."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec(FactorySpec):
    """``factory(**options) -> EvaluationTask``."""


@dataclass(frozen=True, kw_only=True)
class RecipeSpec(Spec):
    """A named recipe: a YAML file inside a package, ``"package.module:file.yaml"``."""

    resource: str
