"""A recipe: how to distil, apart from the data, the teachers and the student. It is a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.yaml_model import read_model
from kdkit.core.contracts import LossSpec, RecipeSpec
from kdkit.core.project.registry.schema import Name, OptimizerEntry, Part, TrustEntry

if TYPE_CHECKING:
    from kdkit.core.plugin_system.discovery import Catalogue


Normalize = Literal["none", "unit", "standardize", "phi-s"]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class NamedPart(Part):
    """Something of the catalogue, as ``name`` or ``distribution:name``, with options for its factory."""

    name: str
    options: Mapping[str, Any] = Field(default_factory=dict)


class LossPart(NamedPart):
    """One term of the sum that is minimized."""

    weight: Positive = 1.0


class TargetsPart(Part):
    """What is done to every teacher's features before anything is compared with them."""

    normalize: Normalize = "unit"


class SamplingPart(Part):
    """How a batch is put together."""

    domain_power: Fraction = 1.0
    """Domains are drawn with probability ~ (their size) ** domain_power: 1 as they come, 0 all alike."""
    domains_per_batch: Annotated[int, Field(ge=1)] | None = None
    """How many domains one batch mixes; null for all of them, 1 for domain-pure batches."""


class OptimizerPart(Part):
    """Optimizer, schedule and length of a run from scratch."""

    name: Literal["adamw"] = "adamw"
    lr: Positive
    weight_decay: NonNegative = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    warmup: Fraction = 0.05
    """Share of the steps in which the learning rate rises linearly from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    batch_size: Annotated[int, Field(ge=1)]
    epochs: Positive | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    clip_norm: Positive | None = None
    """Upper bound of the gradient's norm; null for none."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, which is then what is kept; null for none."""

    @model_validator(mode="after")
    def _one_length(self) -> OptimizerPart:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of 'epochs' and 'steps'")
        return self


class PreviousPart(Part):
    """The previous version as one more teacher, in its own space, of the replayed samples (all, without replay)."""

    weight: NonNegative = 0.0
    loss: str = "crd"
    options: Mapping[str, Any] = Field(default_factory=dict)


class IncrementPart(Part):
    """What ``distill --incremental`` does differently from a run from scratch."""

    replay: Annotated[float, Field(ge=0, lt=1)] = 0.75
    """Share of every batch drawn from samples of the domains that the previous version already knew, at least."""
    oversample: Annotated[float, Field(ge=1)] = 1.0
    """How many times as often as in a run from scratch a new sample may be shown. It caps the share of new samples in
    a batch, below ``1 - replay`` where they are few."""
    steps: Positive = 0.5
    """Length as a fraction of the run from scratch."""
    lr_factor: Positive = 1.0
    """Learning rate, as a fraction of that of the run from scratch."""
    previous: PreviousPart = PreviousPart()
    without_replay: PreviousPart = PreviousPart()
    """In the place of ``previous`` where that has no weight, none of the samples that the previous version was taught
    is here to be replayed, and some of its domains have no teacher here: it then speaks for itself on all samples."""
    pull: NonNegative = 0.0
    """Weight of the squared distance to the previous version's parameters (L2; ZSCL, PRIMED)."""
    interpolate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Kept weights = (1 - a) previous + a trained (WiSE-FT); 1 keeps the trained ones."""


class CorrectionPart(Part):
    """Reflective correction: between epochs the student answers what it is taught, and what it gets wrong is shown to
    it, corrected, beside the rest of the data. For students that answer."""

    every: Positive | None = None
    """Epochs between two corrections; null, without ``steps``, for 1."""
    steps: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = None
    """After these steps instead; those that a run does not reach are left out."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Answers that score lower by the project's evaluation task are wrong."""
    accept: Annotated[float, Field(gt=0, le=1)] | None = None
    """Least score of a corrector's text against the reference; null for the threshold."""
    corrector: str = "reference"
    """Who rewrites: ``reference``, or a teacher of the registry that answers."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Of the evaluation task."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the training samples that the student is asked about each time, drawn anew."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Samples at most, each time."""

    @model_validator(mode="after")
    def _one_rhythm(self) -> CorrectionPart:
        if self.every is not None and self.steps is not None:
            raise ValueError("give one of 'every' and 'steps'")
        return self


class Recipe(Part):
    """The whole file.

    ``space: heads`` puts the student's outputs into each teacher's own space through linear or orthogonal heads;
    ``space: shared`` brings the teachers into the student's space through fitted aligners.
    """

    name: Name
    summary: str
    source: str = ""
    """The paper or code that it follows."""
    space: Literal["heads", "shared"] = "heads"
    heads: Literal["linear", "orthogonal"] = "linear"
    """``orthogonal``: heads stay orthogonal while they are trained, so that the student's own geometry must become the
    teacher's (V_kD)."""
    shared_towers: bool = False
    """One head per teacher for all outputs (image and text) instead of one per output."""
    aligner: NamedPart | None = None
    targets: TargetsPart = TargetsPart()
    losses: Annotated[tuple[LossPart, ...], Field(min_length=1)]
    teachers_per_sample: Literal["all", "one"] = "all"
    """``one``: each sample draws, at every step, one of the teachers that may teach it. The previous version
    (``increment.previous``) is not drawn: it speaks of every sample that it knows."""
    trust: TrustEntry
    sampling: SamplingPart = SamplingPart()
    optimizer: OptimizerPart
    increment: IncrementPart = IncrementPart()
    correction: CorrectionPart | None = None

    @model_validator(mode="after")
    def _space_and_aligner(self) -> Recipe:
        if self.space == "shared" and self.aligner is None:
            raise ValueError("'space: shared' needs an 'aligner'")
        if self.space == "heads" and self.aligner is not None:
            raise ValueError("'aligner' belongs to 'space: shared'; 'space: heads' has none")
        if self.space == "shared" and (self.shared_towers or self.heads != "linear"):
            key = "shared_towers" if self.shared_towers else "heads"
            raise ValueError(f"'{key}' belongs to 'space: heads'; 'space: shared' has no heads")
        return self

    def with_optimizer(self, changes: OptimizerEntry) -> Recipe:
        """The recipe with the registry's learning rate, length or batch size."""
        given = {key: value for key, value in changes.model_dump().items() if value is not None}
        if not given:
            return self
        if "steps" in given or "epochs" in given:
            given = {"steps": None, "epochs": None, **given}
        optimizer = OptimizerPart.model_validate({**self.optimizer.model_dump(), **given})
        return self.model_copy(update={"optimizer": optimizer})


@dataclass(frozen=True)
class RecipeFile:
    """The text of a recipe, and where it lies (for people, in messages)."""

    origin: str
    text: str


def recipe_file(name_or_path: str, catalogue: Catalogue, root: Path | str = ".") -> RecipeFile:
    """The file behind a recipe of the catalogue, or behind a path (relative to ``root``).

    A path is what contains a slash or ends in ``.yaml`` or ``.yml``.

    Raises:
        KdkitError: unknown name, or no readable text file at the path.
    """
    if not is_path(name_or_path):
        spec = catalogue.spec(RecipeSpec, name_or_path)
        package, _, file = spec.resource.partition(":")
        resource = files(package) / file
        return RecipeFile(str(resource), resource.read_text(encoding="utf-8"))
    path = Path(root) / name_or_path
    try:
        return RecipeFile(name_or_path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise KdkitError(
            "KD-PROJ-003",
            "this recipe cannot be read",
            where=str(path),
            why=str(error),
            fix="'kdkit recipes' lists those that have a name",
            code=ExitCode.MISSING,
        ) from None


def load_recipe(name_or_path: str, catalogue: Catalogue, root: Path | str = ".") -> Recipe:
    """Read and check a recipe.

    Args:
        name_or_path: a name of the catalogue, or the path of a YAML file.
        catalogue: says which losses, aligners and trust policies exist.
        root: what a path is relative to: the folder of ``registry.yaml``.

    Raises:
        KdkitError: with ``file:line``, for anything in the file that is not understood.
    """
    file = recipe_file(name_or_path, catalogue, root)
    recipe, located = read_model(Recipe, file.text, file.origin)
    for number, loss in enumerate(recipe.losses):
        _known("loss", loss.name, catalogue, located.where(("losses", number, "name")))
    if recipe.aligner:
        _known("aligner", recipe.aligner.name, catalogue, located.where(("aligner", "name")))
    for key, part in (("previous", recipe.increment.previous), ("without_replay", recipe.increment.without_replay)):
        _known("loss", part.loss, catalogue, located.where(("increment", key, "loss")))
    _known("policy", recipe.trust.policy, catalogue, located.where(("trust", "policy")))
    return recipe


def signals_read(recipe: Recipe, catalogue: Catalogue) -> frozenset[str]:
    """The teachers' signals that the recipe's losses read; empty: it learns from the samples alone."""
    specs = (catalogue.spec(LossSpec, part.name) for part in recipe.losses)
    return frozenset(signal for spec in specs for signal in spec.signals)


def learns_alone(recipe: Recipe, catalogue: Catalogue) -> bool:
    """Whether some loss reads no teacher: it learns from the text of every sample."""
    return any(not catalogue.spec(LossSpec, part.name).signals for part in recipe.losses)


def is_path(name_or_path: str) -> bool:
    """Whether a registry's ``recipe`` is a file rather than a name of the catalogue."""
    return "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))


def _known(family: str, name: str, catalogue: Catalogue, where: str) -> None:
    try:
        catalogue.get(family, name)
    except KdkitError as error:
        raise error.at(where) from None
