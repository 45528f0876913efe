"""What a person may write in ``registry.yaml``. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Use = Literal["research", "commercial"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


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
    options: dict[str, Any] = {}
    domains: list[str] | None = None
    """Teach at most these domains; trust decides among them."""
    license: str | None = None
    """What a person asserts; the lock keeps what the files say."""


class StudentEntry(Part):
    """The student: a family of the catalogue and its architecture."""

    family: str = "open_clip"
    config: dict[str, Any] = {}


class DataEntry(Part):
    """One source of samples."""

    source: str
    path: str
    """Relative to the registry."""
    options: dict[str, Any] = {}


class TrustEntry(Part):
    """Overrides the recipe's trust policy."""

    policy: str
    options: dict[str, Any] = {}


class GuardEntry(Part):
    """How much a domain may lose in an increment before promotion is refused, in points of accuracy."""

    tolerance: float = Field(1.0, ge=0, le=100)
    domains: dict[str, Annotated[float, Field(ge=0, le=100)]] = {}


class Registry(Part):
    """The whole file."""

    version: Literal[1]
    use: Use = "research"
    student: StudentEntry = StudentEntry()
    teachers: dict[Name, TeacherEntry] = {}
    data: list[DataEntry] = []
    prompts: dict[str, list[str]] = {}
    """Domain (or ``default``) -> templates with ``{label}`` and optionally ``{domain}``."""
    recipe: str = "kdkit"
    """A name of the catalogue, or a path to a YAML file."""
    trust: TrustEntry | None = None
    guard: GuardEntry = GuardEntry()
