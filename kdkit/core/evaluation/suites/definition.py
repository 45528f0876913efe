"""The definition of a suite: a YAML file with one entry per data set."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.base.yaml_model import read_model
from kdkit.core.contracts import Split, SuiteSpec
from kdkit.core.project.registry.schema import Name, Part

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue

Positive = Annotated[int, Field(ge=1)]
FACTS = ("home", "license", "access", "classes", "splits", "files", "size", "overlap", "data")
"""Keys of a data set that need a source, or a mark that they are not verified."""


class SuiteFile(Part):
    """What is known about a file, or about a folder of images, of a data set."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    """For publishers that state no better one."""
    images: Positive | None = None
    """Number of image files below a folder."""


class SuiteData(Part):
    """How the data set is read: a data entry of the registry. ``path`` is relative to the folder of the data set."""

    source: str
    path: str = "."
    options: dict[str, Any] = Field(default_factory=dict)
    alternatives: list[str] = Field(default_factory=list)
    """Other paths, such as larger versions of a file; the first that exists is read, ``path`` first."""


class SuiteDataset(Part):
    """One public data set."""

    title: str
    home: str
    """Address of the publisher's page."""
    license: str = "not stated"
    access: Literal["open", "account", "registration", "agreement", "unknown"] = "unknown"
    modality: str
    classes: Annotated[dict[str, str], Field(min_length=2)]
    """Label in the data -> its words in a prompt."""
    templates: Annotated[list[str], Field(min_length=1)]
    """Prompts, with ``{label}`` for the words of a class."""
    splits: dict[Split, Positive] = Field(default_factory=dict)
    """Official numbers of samples, of those that the entry reads."""
    group: str | None = None
    """Column of the data that names the patient."""
    overlap: dict[str, str] = Field(default_factory=dict)
    """Teacher -> what of the data it has seen in training."""
    files: dict[str, SuiteFile] = Field(default_factory=dict)
    """Path in the folder of the data set -> what it must be."""
    size: str = ""
    """Of the download, such as ``13 GB``."""
    data: SuiteData
    place: str = ""
    """How the files must be placed, where that is more than unpacking them."""
    sources: Annotated[dict[str, str], Field(min_length=1)]
    """Fact -> where it was read."""
    unverified: list[str] = Field(default_factory=list)
    """Facts that no source confirms."""

    @model_validator(mode="after")
    def _every_fact_has_a_source(self) -> Self:
        given = [fact for fact in FACTS if fact in self.model_fields_set]
        known = {name for key in self.sources for name in key.replace(",", " ").split()}
        lacking = [fact for fact in given if fact not in known and fact not in self.unverified]
        if lacking:
            raise ValueError(f"no source of {', '.join(lacking)}: name it in 'sources', or list it in 'unverified'")
        if wrong := [text for text in self.templates if "{label}" not in text]:
            raise ValueError(f"the template {wrong[0]!r} lacks {{label}}")
        return self

    def prompts(self) -> dict[str, list[str]]:
        """Label -> prompts."""
        return {
            label: [text.replace("{label}", words) for text in self.templates] for label, words in self.classes.items()
        }


class Suite(Part):
    """A suite: data sets by name. ``parts`` are further files beside this one, whose data sets are added."""

    summary: str
    parts: list[Annotated[str, Field(pattern=r"^[\w.-]+\.yaml$")]] = Field(default_factory=list)
    datasets: dict[Name, SuiteDataset] = Field(default_factory=dict)


def load_suite(name: str, catalogue: Catalogue) -> Suite:
    """Read and check a suite of the catalogue.

    Raises:
        KdkitError: an unknown suite, or a mistake in its file, with ``file:line``.
    """
    package, _, file = catalogue.spec(SuiteSpec, name).resource.partition(":")
    folder = files(package)
    suite, _ = read_model(Suite, folder.joinpath(file).read_text(encoding="utf-8"), file)
    found: dict[str, SuiteDataset] = dict(suite.datasets)
    for part in suite.parts:
        more, located = read_model(Suite, folder.joinpath(part).read_text(encoding="utf-8"), part)
        if twice := sorted(set(found) & set(more.datasets)):
            raise KdkitError(
                "KD-EVAL-251",
                f"the data set '{twice[0]}' is defined twice",
                where=located.where(("datasets", twice[0])),
                fix="rename one of the two",
            )
        found.update(more.datasets)
    return suite.model_copy(update={"datasets": found})


def chosen(suite: Suite, names: tuple[str, ...]) -> Mapping[str, SuiteDataset]:
    """The data sets of these names; all without names.

    Raises:
        KdkitError: an unknown name.
    """
    for name in names:
        if name not in suite.datasets:
            raise KdkitError(
                "KD-EVAL-252", f"the suite has no data set '{name}'", fix=did_you_mean(name, list(suite.datasets))
            )
    return {name: item for name, item in suite.datasets.items() if not names or name in names}
