"""The schema of ``registry.yaml``. Unknown keys are errors."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from kdkit.core.contracts import TrustBasis
from kdkit.core.project.licenses import Use


def _empty_if_null(value: Any) -> Any:
    """``teachers:`` without a value is an empty mapping."""
    return {} if value is None else value


def _empty_list_if_null(value: Any) -> Any:
    return [] if value is None else value


def _json_able(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"only strings, numbers, true/false, lists and mappings ({error})") from None
    return value


def _template(text: str) -> str:
    parts = list(string.Formatter().parse(text))
    fields = [f"{name}{spec}{conversion or ''}" for _, name, spec, conversion in parts if name is not None]
    unknown = [name for name in fields if name not in {"label", "domain"}]
    if "label" not in fields or unknown:
        raise ValueError("a prompt template holds {label}, optionally {domain}, and no other braces")
    return text


def _prompt(text: str) -> str:
    """A prompt of one class: a text, or a template."""
    if any(name is not None for _, name, _, _ in string.Formatter().parse(text)):
        return _template(text)
    return text


def valid_name(text: str) -> str:
    """``text``, if it is a valid teacher name; else ValueError with the rule."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text):
        raise ValueError(f"'{text}' is not a name: lower-case letters, digits, '.', '_' and '-'")
    return text


Name = Annotated[str, AfterValidator(valid_name)]
Options = Annotated[dict[str, Any], BeforeValidator(_empty_if_null), AfterValidator(_json_able)]
Template = Annotated[str, AfterValidator(_template)]
Prompt = Annotated[str, AfterValidator(_prompt)]


class Part(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TeacherEntry(Part):
    """One teacher. Defaults of a catalogue teacher come from its spec."""

    source: str | None = Field(None, alias="from")
    """``hf:ORG/REPO[@REV]``, ``local:DIR`` (relative to the registry), ``package:PKG/DIR`` or ``https://HOST/FILE.zip``."""
    loader: str | None = None
    provider: str | None = None
    """Distribution of the catalogue entry; needed only if two provide the same name."""
    options: Options = {}
    domains: list[str] | None = None
    """It teaches only these domains, as far as trust admits it. ``[]``: no loss reads it; it chooses answers (``kdkit
    best-of-n``) or corrects them alone."""
    license: str | None = None
    """License asserted by the user; the lock records the license in the files."""
    signals: Literal["stored", "live"] = "stored"
    """``live``: its signals of training samples are computed during training, not stored."""
    device: str | None = None
    """Device of a live teacher, e.g. ``cpu`` or ``cuda:1``; by default that of the student."""
    offload: bool = False
    """Keep a live teacher's weights on its device only while it computes; training waits meanwhile."""

    @model_validator(mode="after")
    def _device_of_live_ones(self) -> Self:
        if self.signals == "stored" and (self.device is not None or self.offload):
            raise ValueError("'device' and 'offload' are for 'signals: live'")
        return self

    @property
    def may_teach(self) -> bool:
        """Whether losses may read it in any domain."""
        return self.domains != []


class StudentEntry(Part):
    """The student: its family and architecture.

    In ``config``, strings that start with ``./`` or ``../`` are paths relative to the registry.
    """

    family: str = ""
    """By default the family whose spec says ``default``."""
    config: Options = {}


class DataEntry(Part):
    """One source of samples."""

    source: str
    path: str
    """Relative to the registry."""
    options: Options = {}
    license: str | None = None
    """License of the images and texts; it restricts the license of a published student."""


class TrustBy(Part):
    """What trust is measured by, and what the policy weighs."""

    by: TrustBasis | None = None
    """By default labels, or captions where no domain has labels."""
    per: Literal["domain", "sample"] | None = None
    """Whether the policy weighs teachers per domain (default) or per sample (default of ``by: list``)."""

    @model_validator(mode="after")
    def _lists_are_per_sample(self) -> Self:
        if self.by == "list" and self.per == "domain":
            raise ValueError("'by: list' is per sample: remove 'per'")
        return self

    @property
    def per_sample(self) -> bool:
        """Whether the policy weighs teachers per sample."""
        return self.per == "sample" or self.by == "list"

    @property
    def measured(self) -> str:
        """``by captions, per sample``; empty for labels per domain."""
        words = {"caption": "by captions", "list": "by imported lists"}.get(self.by or "", "by labels")
        return f"{words}, per sample" if self.per_sample else words.replace("by labels", "")


class TrustEntry(TrustBy):
    """Trust of a recipe: its policy, and what the policy reads."""

    policy: str
    options: Options = {}


class TrustChoice(TrustBy):
    """Changes of the recipe's trust."""

    policy: str | None = None
    options: Options = {}

    @model_validator(mode="after")
    def _options_of_a_policy(self) -> Self:
        if self.options and self.policy is None:
            raise ValueError("'options' need 'policy'")
        return self

    def applied(self, entry: TrustEntry) -> TrustEntry:
        """``entry`` with these changes; another policy brings its own options."""
        given = {key: value for key, value in self.model_dump(exclude_unset=True).items() if value is not None}
        if "policy" in given:
            given.setdefault("options", {})
        return TrustEntry.model_validate({**entry.model_dump(), **given})


class FindingPrompts(Part):
    """Prompts of a class that a sample may have beside others: with it, and without it."""

    positive: Annotated[list[Prompt], Field(min_length=1)]
    negative: list[Prompt] = []
    """None: the class is scored by its positive prompts alone."""


def _is_mapping(value: Any) -> str:
    return "<mapping>" if isinstance(value, dict | FindingPrompts) else "<list>"


OneClass = Annotated[
    Annotated[list[Prompt], Field(min_length=1), Tag("<list>")] | Annotated[FindingPrompts, Tag("<mapping>")],
    Discriminator(_is_mapping),
]
DomainPrompts = Annotated[
    Annotated[list[Template], Tag("<list>")] | Annotated[dict[str, OneClass], Tag("<mapping>")],
    Discriminator(_is_mapping),
]


class OptimizerEntry(Part):
    """Overrides of the recipe's optimizer, for this student and data."""

    lr: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    pack_tokens: Annotated[int, Field(ge=32)] | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    on_nan: Literal["stop", "skip"] | None = None
    max_skipped: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give at most one of 'epochs' and 'steps'")
        return self


Points = Annotated[float, Field(ge=0, le=100)]


class GuardTarget(NamedTuple):
    """A metric of a task on a domain; an empty ``metric`` is the task's headline."""

    name: str
    metric: str
    domain: str
    tolerance: float


class GuardEntry(Part):
    """Maximum loss per domain in an increment, in points of accuracy; a larger loss prevents promotion."""

    tolerance: Points = 1.0
    test: Literal["bootstrap", "point"] = "bootstrap"
    """``bootstrap``: a loss counts if its interval lies below 0; ``point``: the point estimate decides."""
    domains: Annotated[dict[str, Points], BeforeValidator(_empty_if_null)] = {}
    by: Annotated[dict[str, Points], BeforeValidator(_empty_if_null)] = {}
    """Column of the data -> points that any of its subgroups may lose."""
    tasks: Annotated[dict[str, Points], BeforeValidator(_empty_if_null)] = {}
    """``retrieval/xray`` or ``linear-probe:auc/xray`` -> points that this metric of another task may lose; such keys
    may stand beside ``tolerance`` too."""

    @model_validator(mode="before")
    @classmethod
    def _gather_tasks(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        named = {key: value for key, value in data.items() if isinstance(key, str) and "/" in key}
        rest = {key: value for key, value in data.items() if key not in named}
        return {**rest, "tasks": {**(data.get("tasks") or {}), **named}} if named else data

    @property
    def targets(self) -> dict[str, list[GuardTarget]]:
        """Task -> what of it the guard compares."""
        found: dict[str, list[GuardTarget]] = {}
        for name, tolerance in self.tasks.items():
            what, _, domain = name.partition("/")
            task, _, metric = what.partition(":")
            found.setdefault(task, []).append(GuardTarget(name, metric, domain, tolerance))
        return found


class ReportEntry(Part):
    """What reports may show."""

    images: bool = False
    """Thumbnails of samples, and the texts of DICOM files, in the pages of evaluations. The page of
    ``kdkit data check --html`` is for the owner of the data, and holds both in any case."""


class InputsEntry(Part):
    """How the student's inputs are read, on this machine; it changes no result."""

    cache: Literal["uint8"] | None = None
    """``uint8``: images are decoded and resized once, and kept in ``.kdkit/inputs``."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads that decode; by default as many as processors, at least 4 and at most 16."""


TeacherEntryOrNull = Annotated[TeacherEntry, BeforeValidator(_empty_if_null)]


class Registry(Part):
    """The whole file."""

    version: Literal[1]
    use: Use = "research"
    """Purpose of the student; licenses of teachers must allow it."""
    student: Annotated[StudentEntry, BeforeValidator(_empty_if_null)] = StudentEntry()
    teachers: Annotated[dict[Name, TeacherEntryOrNull], BeforeValidator(_empty_if_null)] = {}
    data: Annotated[list[DataEntry], BeforeValidator(_empty_list_if_null)] = []
    prompts: Annotated[dict[str, DomainPrompts], BeforeValidator(_empty_if_null)] = {}
    """Domain (or ``default``) -> templates with ``{label}`` and optionally ``{domain}``, or class -> its prompts."""
    recipe: str = "kdkit"
    """A name of the catalogue, or a path to a YAML file."""
    optimizer: OptimizerEntry = OptimizerEntry()
    trust: TrustChoice | None = None
    inputs: Annotated[InputsEntry, BeforeValidator(_empty_if_null)] = InputsEntry()
    guard: Annotated[GuardEntry, BeforeValidator(_empty_if_null)] = GuardEntry()
    report: Annotated[ReportEntry, BeforeValidator(_empty_if_null)] = ReportEntry()

    def with_student(self, family: str, options: Mapping[str, Any]) -> Registry:
        """The same registry with another student family; ``options`` are the config's where it leaves a key out."""
        update = {"family": family, "config": {**options, **self.student.config}}
        return self.model_copy(update={"student": self.student.model_copy(update=update)})

    @property
    def live(self) -> tuple[str, ...]:
        """Teachers with ``signals: live``."""
        return tuple(name for name, entry in self.teachers.items() if entry.signals == "live")
