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
    """What registries and recipes write; ``distribution:name`` where several distributions have it."""
    summary: str
    """One line, for lists."""


@dataclass(frozen=True, kw_only=True)
class FactorySpec(Spec):
    """A spec whose object is made by ``factory``, an import string ``"package.module:callable"``."""

    factory: str
    """Imported when the object is needed, and not before."""
    options: Options = field(default_factory=dict)
    """Defaults of the factory's keyword arguments; a recipe or the registry may override them."""


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Files of another repository that a folder needs to be complete."""

    source: str
    """Such as ``hf:ORG/REPO``."""
    subfolder: str = ""
    """Where the files go; empty for the folder itself."""
    names: tuple[str, ...] = ()
    """Which files; empty for all configs and tokenizer files at the top of the source."""
    purpose: str = ""
    """What a user can put there instead, for messages: ``the tokenizer as tokenizer.json``."""


@dataclass(frozen=True, kw_only=True)
class LoaderSpec(FactorySpec):
    """How a folder of files becomes a teacher: ``factory(folder: Path, **options) -> Teacher``."""

    marks: tuple[str, ...] = ()
    """File names by which a folder of this kind is recognized, e.g. ``my_model.json``."""
    model_types: tuple[str, ...] = ()
    """Values of ``model_type`` in a folder's ``config.json`` by which it is recognized too, whatever its marks."""
    asks_network: bool = False
    """Whether its teachers send samples to an address that the folder names; only a ``local:`` folder may then."""
    companions: str = ""
    """Import string: ``companions(folder: Path) -> Iterator[Companion]`` yields what a fetched folder lacks. kdkit puts
    each companion in place before it asks for the next."""


@dataclass(frozen=True, kw_only=True)
class TeacherSpec(Spec):
    """The facts of a published teacher. Everything here shows in ``kdkit teachers`` without loading it."""

    source: str
    """``hf:ORG/REPO[@REV]``, ``local:DIR`` or ``package:PKG/DIR`` (files inside an installed package)."""
    loader: str
    """Name of a loader; empty while no plugin provides the architecture (then ``unavailable`` says so)."""
    options: Options = field(default_factory=dict)
    """The loader's, over its own defaults."""
    image_dim: int | None = None
    """Width of an image's features."""
    text_dim: int | None = None
    """Width of a text's features."""
    image_size: int | None = None
    """Pixels, height and width alike."""
    context_length: int | None = None
    """Tokens; longer texts are truncated."""
    domains: tuple[str, ...] = ()
    """Domains for which it was made, as its authors say; trust is measured, not taken from here."""
    license: str = "unknown"
    """SPDX, or the name that the Hub uses."""
    distillation: Distillation = "unknown"
    """Whether training a student on its outputs is allowed, and why the license says so in ``notes``."""
    gated: bool = False
    """Whether the Hub asks to accept terms first."""
    extra_sources: Mapping[str, str] = field(default_factory=dict)
    """Other repositories a working folder needs, e.g. ``{"text": "hf:ORG/TEXT-TOWER"}``."""
    paper: str = ""
    """Where it is described."""
    notes: str = ""
    """What else a reader of ``kdkit teachers`` should know."""
    unavailable: str = ""
    """Why no loader can make it yet; empty when one can."""


@dataclass(frozen=True, kw_only=True)
class StudentSpec(FactorySpec):
    """``factory(**config) -> Student`` makes a new one, ``loader(folder: Path) -> Student`` reads a saved one."""

    loader: str
    """Import string; reads the folder that the student's ``save`` wrote."""
    task: str = "zero-shot"
    """Name of the evaluation task that trust, the guard, retention and ``kdkit evaluate`` judge models by."""
    publisher: str = ""
    """Import string of the function that lays a saved student out for stock libraries:
    ``publisher(folder: Path, to: Path, name: str, *, merged: bool, skip: Mapping[str, str]) -> Published``. ``folder``
    is what ``save`` wrote; ``to`` is new or empty. ``name`` is the repository that ``to`` becomes, or ``str(to)`` for a
    folder that is loaded by its path. ``merged`` requests whole weights where the student has adapters. ``skip`` maps
    libraries to leave out to the reason. Students of a family without a publisher cannot be pushed or exported."""


@dataclass(frozen=True, kw_only=True)
class AlignerSpec(FactorySpec):
    """``factory(in_dim: int, out_dim: int, **options) -> Aligner``."""


@dataclass(frozen=True, kw_only=True)
class LossSpec(FactorySpec):
    """``factory(**options) -> Loss`` (an ``nn.Module``: its parameters are trained and checkpointed)."""

    signals: tuple[str, ...] = ("image", "text")
    """The teachers' signals that it reads; a recipe's batches hold those of its losses. Empty: it needs no teacher
    and learns from the samples themselves."""
    per_sample: bool = False
    """Whether it is a sum over samples, divided by ``LossInput.total`` of something: each of several processes then
    computes its own samples' share, where it would compute the whole batch's."""
    same_tokens: bool = False
    """Whether it compares student and teacher at the same tokens of an answer, so that a teacher with another tokenizer
    is told of, or refused, before it is asked."""


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

    reads: Literal["features", "answers"] = "features"
    """What it scores: ``features`` (its factory then takes ``prompts`` too) or ``answers``."""


@dataclass(frozen=True, kw_only=True)
class RecipeSpec(Spec):
    """A named recipe: a YAML file inside a package, ``"package.module:file.yaml"``."""

    resource: str
    """The file; what it may say is in docs/reference/recipes.md."""
