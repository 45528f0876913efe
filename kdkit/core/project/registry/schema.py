"""What a person may write in ``registry.yaml``. Unknown keys are errors."""

from __future__ import annotations

import json
import re
import string
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Use = Literal["research", "commercial"]


def _empty_if_null(value: Any) -> Any:
    """``teachers:`` with nothing (or only comments) under it means: none."""
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
    fields = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    unknown = [name for name in fields if name not in {"label", "domain"}]
    if "label" not in fields or unknown:
        raise ValueError("a prompt template holds {label}, optionally {domain}, and no other braces")
    return text


def valid_name(text: str) -> str:
    """``text``, where it can name a teacher; raises ValueError that says what names may be."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text):
        raise ValueError(f"'{text}' is not a name: lower-case letters, digits, '.', '_' and '-'")
    return text


Name = Annotated[str, AfterValidator(valid_name)]
Options = Annotated[dict[str, Any], BeforeValidator(_empty_if_null), AfterValidator(_json_able)]
Template = Annotated[str, AfterValidator(_template)]


class Part(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TeacherEntry(Part):
    """One chosen teacher. A teacher of the catalogue needs no field at all: its spec is the default."""

    source: str | None = Field(None, alias="from")
    """``hf:ORG/REPO[@REV]``, ``local:DIR`` (relative to the registry) or ``package:PKG/DIR``."""
    loader: str | None = None
    provider: str | None = None
    """Distribution that provides the catalogue entry; needed only when two provide the same name."""
    options: Options = {}
    domains: Annotated[list[str], Field(min_length=1)] | None = None
    """Teach at most these domains; trust decides among them."""
    license: str | None = None
    """What a person asserts; the lock keeps what the files say."""
    signals: Literal["stored", "live"] = "stored"
    """``live``: it is asked about each batch while training; of training samples nothing is stored."""
    device: str | None = None
    """Of a live teacher: ``cpu``, ``cuda:1`` ...; by default where the student is trained."""
    offload: bool = False
    """A live teacher's weights are on its device only while it computes, and the student's step waits for that."""

    @model_validator(mode="after")
    def _device_of_live_ones(self) -> Self:
        if self.signals == "stored" and (self.device is not None or self.offload):
            raise ValueError("'device' and 'offload' are for 'signals: live'")
        return self


class StudentEntry(Part):
    """The student: a family of the catalogue and its architecture.

    In ``config``, a string that starts with ``./`` or ``../`` is a path relative to the registry.
    """

    family: str = ""
    """Needed by every command that trains or evaluates."""
    config: Options = {}


class DataEntry(Part):
    """One source of samples."""

    source: str
    path: str
    """Relative to the registry."""
    options: Options = {}
    license: str | None = None
    """Of the images and texts, where it matters for what the student is published under."""


class TrustEntry(Part):
    """Overrides the recipe's trust policy."""

    policy: str
    options: Options = {}


class OptimizerEntry(Part):
    """Overrides of the recipe's optimizer: rate and length depend on the student and the data, not on the recipe."""

    lr: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give at most one of 'epochs' and 'steps'")
        return self


class GuardEntry(Part):
    """How much a domain may lose in an increment before promotion is refused, in points of accuracy."""

    tolerance: Annotated[float, Field(ge=0, le=100)] = 1.0
    test: Literal["bootstrap", "point"] = "bootstrap"
    """``bootstrap``: a loss counts if its interval lies below 0; ``point``: the point estimate decides."""
    domains: Annotated[dict[str, Annotated[float, Field(ge=0, le=100)]], BeforeValidator(_empty_if_null)] = {}


TeacherEntryOrNull = Annotated[TeacherEntry, BeforeValidator(_empty_if_null)]


class Registry(Part):
    """The whole file."""

    version: Literal[1]
    use: Use = "research"
    """What the student is for; licenses of teachers are judged by it."""
    student: Annotated[StudentEntry, BeforeValidator(_empty_if_null)] = StudentEntry()
    teachers: Annotated[dict[Name, TeacherEntryOrNull], BeforeValidator(_empty_if_null)] = {}
    data: Annotated[list[DataEntry], BeforeValidator(_empty_list_if_null)] = []
    prompts: Annotated[dict[str, list[Template]], BeforeValidator(_empty_if_null)] = {}
    """Domain (or ``default``) -> templates with ``{label}`` and optionally ``{domain}``."""
    recipe: str = "kdkit"
    """A name of the catalogue, or a path to a YAML file."""
    optimizer: OptimizerEntry = OptimizerEntry()
    trust: TrustEntry | None = None
    guard: Annotated[GuardEntry, BeforeValidator(_empty_if_null)] = GuardEntry()

    @property
    def live(self) -> tuple[str, ...]:
        """Teachers with ``signals: live``."""
        return tuple(name for name, entry in self.teachers.items() if entry.signals == "live")
