"""A recipe: a YAML file that defines losses, trust policy, optimizer and increments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from kdkit.core.contracts import LossSpec
from kdkit.core.project.registry.schema import Name, OptimizerEntry, Part, Registry, TrustEntry

if TYPE_CHECKING:
    from kdkit.core.plugin_system.discovery import Catalogue


Normalize = Literal["none", "unit", "standardize", "phi-s"]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
STAGED_KEYS = ("name", "summary", "source", "stages")
"""Keys of a recipe with stages."""


class NamedPart(Part):
    """A plugin object, as ``name`` or ``distribution:name``, with options for its factory."""

    name: str
    options: Mapping[str, Any] = Field(default_factory=dict)


class LossPart(NamedPart):
    """One term of the loss."""

    weight: Positive = 1.0


class TargetsPart(Part):
    """Normalization of every teacher's features."""

    normalize: Normalize = "unit"


class SamplingPart(Part):
    """How batches are sampled."""

    domain_power: Fraction = 1.0
    """Domains are drawn with probability ~ size ** domain_power: 1 proportional to size, 0 uniform."""
    domains_per_batch: Annotated[int, Field(ge=1)] | None = None
    """Domains per batch; null for all, 1 for domain-pure batches."""
    max_per_group: Annotated[int, Field(ge=1)] | None = None
    """Samples of a group (patient), at most, in one pass over its domain, drawn anew in each; null for all. A domain's
    size, and an epoch, count no more of them."""
    conversations: Literal["apart", "together"] = "apart"
    """``together``: turns of a conversation follow each other, so that a batch has them together, and a student that
    answers computes their image and text once. ``apart``: each sample is drawn for itself, for more variety in a
    batch."""
    order: Literal["random", "blocks"] = "random"
    """``blocks``: neighbors in the data are drawn in neighboring steps, so that features and images on a slow disk are
    read block by block."""
    ranges: Annotated[int, Field(ge=1)] = 1
    """Each fills an equal share of a batch from its own range of the data. Processes whose number divides it read
    disjoint ranges."""

    @model_validator(mode="after")
    def _mixed_in_each_range(self) -> SamplingPart:
        if self.ranges > 1 and self.domains_per_batch is not None:
            raise ValueError("'domains_per_batch' chooses domains for a whole batch: with it, 'ranges' is 1")
        return self


class OptimizerPart(Part):
    """Optimizer, schedule and length of a run from scratch."""

    name: Literal["adamw"] = "adamw"
    lr: Positive
    weight_decay: NonNegative = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    warmup: Fraction = 0.05
    """Share of the steps with linear warmup of the learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    batch_size: Annotated[int, Field(ge=1)]
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """Samples that the student computes at a time on each process; losses and gradients stay those of ``batch_size``.
    Less memory for one more forward pass. ``auto`` fills half of the free memory; null for whole batches."""
    pack_tokens: Annotated[int, Field(ge=32)] | None = None
    """Tokens of a sequence into which a generating student puts several samples, instead of padding them; each attends
    to itself alone, and the result stays the same. Null for a sequence per sample."""
    epochs: Positive | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    min_steps: Annotated[int, Field(ge=1)] | None = None
    """Fewest steps: few samples then take more epochs, but no more than ``max_epochs``. Null for none."""
    max_epochs: Positive | None = None
    clip_norm: Positive | None = None
    """Maximum gradient norm; null for none."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, which becomes the version; null for none."""
    on_nan: Literal["stop", "skip"] = "stop"
    """A step whose loss or gradient is not a finite number ends the run, or changes nothing and is counted."""
    max_skipped: Annotated[int, Field(ge=1)] = 5
    """With ``on_nan: skip``, so many skipped steps in a row end the run."""

    @model_validator(mode="after")
    def _one_length(self) -> OptimizerPart:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of 'epochs' and 'steps'")
        if self.steps is not None and (self.min_steps or self.max_epochs):
            raise ValueError("'min_steps' and 'max_epochs' belong to 'epochs'")
        if self.max_epochs is not None and (self.min_steps is None or self.max_epochs < (self.epochs or 0)):
            raise ValueError("'max_epochs' limits 'min_steps', and is not below 'epochs'")
        return self

    def length(self, samples: int) -> int:
        """Steps of a run from scratch over so many training samples.

        Example:
            >>> part = OptimizerPart(lr=1e-3, batch_size=64, epochs=12, min_steps=900, max_epochs=60)
            >>> [part.length(samples) for samples in (100, 2_000, 100_000)]
            [94, 900, 18750]
        """
        if self.steps is not None:
            return self.steps
        epoch = samples / min(self.batch_size, samples)
        longest = math.inf if self.max_epochs is None else self.max_epochs * epoch
        return max(1, math.ceil(max((self.epochs or 1) * epoch, min(self.min_steps or 1, longest))))


class PreviousPart(Part):
    """How the previous version protects what it knows: as an extra teacher, in its own space, on the replayed samples
    (else on all) or on altered inputs, and by its weights, which need no sample."""

    weight: NonNegative = 0.0
    """Of the extra teacher's loss; 0 for none."""
    loss: str = "crd"
    options: Mapping[str, Any] = Field(default_factory=dict)
    altered: NonNegative = 0.0
    """Weight of the squared distance to its outputs at randomly altered inputs of each batch; 0 for none."""
    frozen_energy: Fraction = 0.0
    """The strongest singular directions of every weight matrix, with this share of its squared singular values, stay
    as they are (NuSA-CL); 0 for none."""

    @property
    def protects(self) -> bool:
        """Whether anything is switched on."""
        return bool(self.weight or self.altered or self.frozen_energy)


class RepairPart(Part):
    """What is tried with a student that breaks the guard, before it is refused. All choices are made on the calibration
    split."""

    interpolate: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.75, 0.5, 0.25)
    """Each a gives a candidate with the weights (1 - a) previous + a trained."""
    rehearse: Fraction = 0.2
    """Steps of additional training with more of the domains that broke the guard, as a fraction of the increment's
    steps; 0 for none. Used if interpolation keeps less than 0.9 of what was gained."""

    @model_validator(mode="after")
    def _something(self) -> RepairPart:
        if not self.interpolate and not self.rehearse:
            raise ValueError("this repairs nothing: write 'repair: null'")
        return self


class IncrementPart(Part):
    """Differences of ``distill --incremental`` from a run from scratch."""

    replay: Annotated[float, Field(ge=0, lt=1)] = 0.75
    """Minimum share of every batch that is drawn from domains of the previous version."""
    oversample: Annotated[float, Field(ge=1)] = 1.0
    """Maximum repetition of a new sample, relative to a run from scratch. Few new samples then fill less than
    ``1 - replay`` of a batch."""
    steps: Positive = 0.5
    """Number of steps as a fraction of a run from scratch; with ``exposure`` the largest one."""
    exposure: Positive | None = None
    """How often a fresh sample is shown, relative to a run from scratch. Few fresh samples then take few steps."""
    lr_factor: Positive = 1.0
    """Learning rate as a fraction of that of a run from scratch."""
    previous: PreviousPart = PreviousPart()
    without_replay: PreviousPart = PreviousPart()
    """Replaces ``previous`` if that is off, no sample of the previous version is available for replay, and one of its
    domains has no teacher. With a weight, the previous version is then an extra teacher on all samples."""
    pull: NonNegative = 0.0
    """Weight of the squared distance to the previous version's parameters (L2; ZSCL, PRIMED)."""
    interpolate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Kept weights = (1 - a) previous + a trained (WiSE-FT); 1 keeps the trained ones."""
    repair: RepairPart | None = RepairPart()
    """Repair of a student that breaks the guard; null refuses it at once."""


class AugmentPart(Part):
    """Random views of training images, as in CLIP's training. Samples that a teacher covers keep the plain image, to
    which its features belong; so do those that the previous version teaches."""

    crop: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.9, 1.0)
    """Smallest and largest share of the image's area; the part is resized to the student's input."""
    ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    """Smallest and largest width over height of the part."""
    flip: tuple[str, ...] = ()
    """Domains whose images are mirrored in half of the views; ``*`` for all. Not where left and right matter."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentPart:
        if self.crop[0] > self.crop[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("write the smaller number of 'crop' and 'ratio' first")
        return self


class CorrectionPart(Part):
    """Reflective correction, for generating students: between epochs the student answers training samples, and wrong
    answers are trained again with a corrected text."""

    every: Positive | None = None
    """Epochs between two corrections; null means 1, unless ``steps`` is given."""
    steps: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = None
    """Correct after these steps instead; steps beyond the end of a run are ignored."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Answers with a lower score of the evaluation task are wrong."""
    accept: Annotated[float, Field(gt=0, le=1)] | None = None
    """Minimum score of a corrected text against the reference; null for the threshold."""
    corrector: str = "reference"
    """``reference``, or a generating teacher of the registry that rewrites wrong answers."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Options of the evaluation task."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training samples in each correction, drawn anew."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of samples per correction."""

    @model_validator(mode="after")
    def _one_rhythm(self) -> CorrectionPart:
        if self.every is not None and self.steps is not None:
            raise ValueError("give one of 'every' and 'steps'")
        return self


class OnPolicyPart(Part):
    """On-policy distillation, for generating students: the student answers a part of every batch itself, and live
    teachers give their distributions along its answers (GKD, arXiv 2306.13649, algorithm 1)."""

    share: Fraction = 0.5
    """Probability that a sample has the student's own answer: GKD's lambda. 0 is offline, 1 on-policy distillation, for
    samples that a live teacher may teach; others keep their given answers."""
    temperature: NonNegative = 1.0
    """Of sampling; 0 for greedy answers."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of tokens of an own answer; null for what the student takes."""


class Recipe(Part):
    """The whole file.

    ``space: heads`` projects the student's outputs into each teacher's space through linear or orthogonal heads;
    ``space: shared`` maps the teachers into the student's space through fitted aligners.
    """

    name: Name
    summary: str
    source: str = ""
    """Its paper or code."""
    space: Literal["heads", "shared"] = "heads"
    heads: Literal["linear", "orthogonal"] = "linear"
    """``orthogonal``: heads stay orthogonal during training, so the student learns the teacher's geometry (V_kD)."""
    shared_towers: bool = False
    """One head per teacher for all outputs (image and text) instead of one per output."""
    aligner: NamedPart | None = None
    targets: TargetsPart = TargetsPart()
    losses: Annotated[tuple[LossPart, ...], Field(min_length=1)]
    teachers_per_sample: Literal["all", "one"] = "all"
    """``one``: each sample draws one of its teachers at every step. The previous version (``increment.previous``) is
    always active; otherwise samples that are not drawn would be forgotten."""
    trust: TrustEntry
    sampling: SamplingPart = SamplingPart()
    optimizer: OptimizerPart
    increment: IncrementPart = IncrementPart()
    correction: CorrectionPart | None = None
    on_policy: OnPolicyPart | None = None
    augment: AugmentPart | None = None
    stages: tuple[Recipe, ...] = ()
    """Recipes that run one after the other, each from the student that the one before trained. The keys above are then
    those of the last one, and the file has none of them; see :mod:`kdkit.core.project.recipe_file`."""

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_last_stage(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not data.get("stages"):
            return data
        if others := sorted(set(data) - set(STAGED_KEYS)):
            raise ValueError(f"beside 'stages', a recipe has no '{others[0]}': write it into a stage")
        last = data["stages"][-1]
        settings = dict(last) if isinstance(last, Recipe | Mapping) else {}
        return {**{key: value for key, value in settings.items() if key not in STAGED_KEYS}, **data}

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        if any(stage.stages for stage in self.stages):
            raise ValueError("a stage has no 'stages' of its own")
        if len(self.stages) == 1:
            raise ValueError("give two 'stages' or more; a single one is a recipe without 'stages'")
        if sum(stage.correction is not None for stage in self.stages) > 1:
            raise ValueError("only one stage can have a 'correction'")
        return self

    @model_serializer(mode="wrap")
    def _without_the_settings_of_its_stages(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        if self.stages:
            return {key: data[key] for key in STAGED_KEYS if key in data}
        return {key: value for key, value in data.items() if key != "stages"}

    @property
    def in_order(self) -> tuple[Recipe, ...]:
        """Its stages, or the recipe itself if it has none."""
        return self.stages or (self,)

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

    def changed_by(self, registry: Registry) -> Recipe:
        """The recipe with the optimizer settings and the trust of a registry; all of its stages get them."""
        if self.stages:
            return self.with_stages([stage.changed_by(registry) for stage in self.stages])
        changed = self.with_optimizer(registry.optimizer)
        if registry.trust is None:
            return changed
        return changed.model_copy(update={"trust": registry.trust.applied(self.trust)})

    def with_stages(self, stages: Sequence[Recipe]) -> Recipe:
        """The recipe with other stages."""
        about = {"name": self.name, "summary": self.summary, "source": self.source}
        return Recipe.model_validate({**about, "stages": tuple(stages)})

    def in_every_stage(self, change: Callable[[Recipe], Recipe]) -> Recipe:
        """The recipe with ``change`` made to each of its stages, or to itself if it has none."""
        return self.with_stages([change(stage) for stage in self.stages]) if self.stages else change(self)

    def with_optimizer(self, changes: OptimizerEntry) -> Recipe:
        """The recipe with the optimizer settings of the registry."""
        given = {key: value for key, value in changes.model_dump().items() if value is not None}
        if not given:
            return self
        optimizer = OptimizerPart.model_validate(changed_optimizer(self.optimizer, given))
        return self.model_copy(update={"optimizer": optimizer})


def changed_optimizer(optimizer: OptimizerPart, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``optimizer`` with those that are ``given``; a given length replaces all of its length."""
    if "steps" in given or "epochs" in given:
        given = {"steps": None, "epochs": None, "min_steps": None, "max_epochs": None, **given}
    return {**optimizer.model_dump(), **given}


def signals_read(recipe: Recipe, catalogue: Catalogue) -> frozenset[str]:
    """Teacher signals that the recipe's losses read; empty if all losses are supervised."""
    specs = (catalogue.spec(LossSpec, part.name) for part in recipe.losses)
    return frozenset(signal for spec in specs for signal in spec.signals)


def learns_alone(recipe: Recipe, catalogue: Catalogue) -> bool:
    """Whether a loss is supervised: it reads no teacher, so every sample counts."""
    return any(not catalogue.spec(LossSpec, part.name).signals for part in recipe.losses)


def teaching_stage(recipe: Recipe, catalogue: Catalogue) -> Recipe:
    """The last stage that reads teachers, whose trust decides; the last one if none does."""
    reading = [stage for stage in recipe.in_order if signals_read(stage, catalogue)]
    return (reading or recipe.in_order)[-1]
