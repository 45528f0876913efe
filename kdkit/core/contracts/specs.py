"""Specs: frozen data that plugins declare. Import from ``kdkit.core.contracts``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kdkit.core.contracts.facts import TeacherFacts

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Fields of every spec. ``name`` matches ``[a-z0-9][a-z0-9._-]*``."""

    name: str
    """Name in registries and recipes; ``distribution:name`` if several distributions provide it."""
    summary: str
    """One line, for lists."""


@dataclass(frozen=True, kw_only=True)
class FactorySpec(Spec):
    """A spec with a factory for its object."""

    factory: str
    """Import string ``"package.module:callable"``; imported on first use."""
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
    weights: bool = False
    """Fetch the whole model, as a teacher's own source is: the base of adapters. Its license counts too."""
    purpose: str = ""
    """What a user can put there instead, for messages: ``the tokenizer as tokenizer.json``."""


@dataclass(frozen=True, kw_only=True)
class LoaderSpec(FactorySpec):
    """How a folder of files becomes a teacher: ``factory(folder: Path, **options) -> Teacher``."""

    marks: tuple[str, ...] = ()
    """File names that identify a folder of this kind, e.g. ``my_model.json``."""
    unless: tuple[str, ...] = ()
    """File names with which a folder is of another kind, although it has the marks."""
    model_types: tuple[str, ...] = ()
    """Values of ``model_type`` in ``config.json`` that identify a folder of this kind without any mark."""
    config_keys: tuple[str, ...] = ()
    """Keys that a ``config.json`` without ``model_type`` has in a folder of this kind."""
    weight_keys: tuple[tuple[str, ...], ...] = ()
    """Names of weights that only a folder of this kind has; all names of one tuple identify it. For weights that come
    without a config."""
    asks_network: bool = False
    """Its teachers send samples to an address in the folder; such a folder must be ``local:``."""
    companions: str = ""
    """Import string: ``companions(folder: Path) -> Iterator[Companion]`` yields files that a fetched folder lacks.
    kdkit adds each companion before it requests the next."""


@dataclass(frozen=True, kw_only=True)
class TeacherSpec(Spec, TeacherFacts):
    """A published teacher: how to load it, and what is known about it. ``kdkit teachers`` shows it without loading."""

    source: str
    """``hf:ORG/REPO[@REV]``, ``local:DIR``, ``package:PKG/DIR`` (files inside an installed package) or
    ``https://HOST/FILE.zip[#sha256=HEX]``."""
    loader: str
    """Name of a loader; empty if no plugin provides the architecture (see ``unavailable``)."""
    options: Options = field(default_factory=dict)
    """Options of the loader."""
    extra_sources: Mapping[str, str] = field(default_factory=dict)
    """Other repositories a working folder needs, e.g. ``{"text": "hf:ORG/TEXT-TOWER"}``."""
    notes: str = ""
    """Further information for ``kdkit teachers``."""
    unavailable: str = ""
    """Why it cannot be added by its name; empty if it can."""
    remedy: str = ""
    """What would change that."""


@dataclass(frozen=True, kw_only=True)
class StudentSpec(FactorySpec):
    """``factory(**config) -> Student`` makes a new student, ``loader(folder: Path) -> Student`` loads a saved one."""

    loader: str
    """Import string; loads a folder written by ``Student.save``."""
    max_aspect: float | None = None
    """Images with a side longer than this times the other are unreadable to the family."""
    task: str = "zero-shot"
    """Name of the evaluation task for trust, guard, retention and ``kdkit evaluate``."""
    task_without_labels: str = ""
    """Name of the task that ``kdkit evaluate`` takes where the split has no label; empty for none."""
    default: bool = False
    """The family of a registry that names none; for the built-in family of dual encoders."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Keys of its config that name a plugin -> its family: ``{"rope": "rope"}``; the value is a name, or a mapping
    with ``name``. The project pins these names; a factory gets them from ``discovery.current_catalogue``."""
    weights: tuple[str, ...] = ()
    """Keys of its config that name initial weights: a folder, or a mapping of keys to folders. Where they hold the name
    of a teacher of the project or of the catalogue, kdkit fetches it, pins it and puts its folder in its place."""
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
    """``factory(**options) -> Loss``, an ``nn.Module``; its parameters are trained and checkpointed."""

    signals: tuple[str, ...] = ("image", "text")
    """Teacher signals that it reads; batches hold the signals of all losses of the recipe. Empty for a supervised loss,
    which needs no teacher."""
    per_sample: bool = False
    """It is a sum over samples, divided by a ``LossInput.total``. Each rank then computes its own samples only."""
    by_rows: bool = False
    """It is a sum over samples, each compared with the whole batch. Each rank then computes ``LossInput.rows`` only;
    losses that are neither ``per_sample`` nor ``by_rows`` compute the gathered global batch on every rank."""
    needs_all_signals: bool = False
    """It compares a teacher's signals with each other, so it skips teachers that lack one of ``signals``. Other losses
    read the signals that a teacher has."""
    least_batch: int = 1
    """Samples that a batch must have for the loss to teach anything: 2 if it compares samples with each other."""
    same_tokens: bool = False
    """It compares student and teacher token by token, so kdkit rejects teachers with another tokenizer before
    extraction."""
    outputs: tuple[str, ...] = ()
    """Student outputs that it always reads, so kdkit rejects students without them before extraction. Empty: those
    named as the signals that teachers give."""
    together: str = ""
    """Import string of a ``JointLosses``, for ``per_sample`` losses that share work, such as a student's logits. The
    losses of a recipe that name the same one are computed by one call; a single one by its own."""


@dataclass(frozen=True, kw_only=True)
class RopeSpec(FactorySpec):
    """``factory(**options) -> RopeVariant``."""


@dataclass(frozen=True, kw_only=True)
class SourceSpec(FactorySpec):
    """``factory(location: Path, **options) -> Iterable[Sample | Skipped]``; it reads every file or record, or yields a
    ``Skipped`` for it. A factory with an argument ``cache_folder: Path | None`` gets a folder of the project that it
    may fill, and that people may delete."""

    recognizer: str = ""
    """Import string: ``recognizer(path: Path) -> Recognition | None`` looks at a file or folder without reading all of
    it, for ``kdkit init --from``. It raises ``KdkitError`` for its own format with something missing."""
    remote_ending: str = ""
    """Ending of the files that a URL as location may name, such as ``.tar``: kdkit fetches them, and gives the source
    their folder. Empty: the source reads no URLs."""
    remote_pinned: bool = False
    """A URL of the Hub must name a commit, so that it always means the same files."""
    image_parts: str = ""
    """Import string: ``image_parts(file: BinaryIO) -> Sequence[ImagePart]`` names the parts of a file behind a URL that
    hold images alone: the samples can be listed without them. ``kdkit data shards`` then fetches the rest of each file,
    and one such part after the other. Empty: files are fetched whole."""
    inputs: str = ""
    """Import string: ``inputs(location: Path, **options) -> Iterable[Path]`` names every file and folder whose change
    can change the samples; a folder changes when a file in it is made, renamed or removed. kdkit then keeps the samples
    in an index, and reads the source again after a change alone. Without it each command reads the source."""


@dataclass(frozen=True, kw_only=True)
class ImageReaderSpec(FactorySpec):
    """``factory(**options) -> ImageReader`` for the images that sources describe by ``ImageLocation(reader=name)``."""


@dataclass(frozen=True, kw_only=True)
class TrustPolicySpec(FactorySpec):
    """``factory(**options) -> TrustPolicy``."""

    weighs_captions: bool = False
    """The last row of its table is :data:`CAPTIONS`, where they were measured: it weighs captions like a teacher. Other
    policies give captions the weight 1."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec(FactorySpec):
    """``factory(**options) -> EvaluationTask``.

    A factory with an argument ``prompts`` gets domain -> class -> prompts of the project. One with an argument
    ``training`` gets the training and calibration samples that the task can read, to fit on: ``Sequence[Sample]``.
    ``calibration`` are those of the calibration split alone. ``cache_folder`` is a folder of the project that the task
    may fill and that people may delete, or None. ``findings`` are domain -> finding -> positive and
    negative prompts. ``subgroups`` are column -> sample id -> value, those of ``kdkit evaluate --by``.
    """

    reads: Literal["features", "image", "text", "answers"] = "features"
    """Input of the task: ``features`` of images and texts, one kind alone, or ``answers``. Teachers that lack it are
    left out."""
    truth: Literal["labels", "captions", "findings", "metadata"] = "labels"
    """What the outputs are compared with: the task scores labeled samples, samples with a text, those with
    ``extra["findings"]``, or those with ``metadata``. Tasks that read answers score samples with a text."""
    metadata: tuple[str, ...] = ()
    """Options that name columns of the metadata, such as ``time``: the task scores samples that have them all."""
    headline: str = "accuracy"
    """The metric that stands for the task in tables, in the picture, for the oracle and for retention; ``outcomes``
    should have it."""
    asks_network: bool = False
    """It sends samples to an address. The guard refuses such a task: whether a version is promoted must not depend on a
    server."""


@dataclass(frozen=True, kw_only=True)
class RecipeSpec(Spec):
    """A named recipe: a YAML file inside a package, ``"package.module:file.yaml"``."""

    resource: str
    """The file; docs/reference/recipes.md describes its keys."""


@dataclass(frozen=True, kw_only=True)
class SuiteSpec(Spec):
    """A benchmark suite: a YAML file inside a package, ``"package.module:file.yaml"``."""

    resource: str
    """The file; docs/reference/suites.md describes its keys."""
