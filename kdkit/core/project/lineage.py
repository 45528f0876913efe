"""The lineage of a version: a typed, frozen record of where its knowledge comes from. JSON exists only at the edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import PlainSerializer, PlainValidator

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.json_record import JsonRecord
from kdkit.core.project.import_record import ImportRecord
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.on_policy_record import OnPolicyRecord
from kdkit.core.project.recipe import Recipe
from kdkit.core.project.repair_record import RepairRecord
from kdkit.core.project.training_record import StageRecord, TrainingRecord

HUB = "https://huggingface.co"
"""Address of the default Hub."""


@dataclass(frozen=True)
class TrustScore(JsonRecord):
    """A teacher's accuracy on a domain, with its interval; None: not measured."""

    accuracy: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class TeacherRecord(JsonRecord):
    """A teacher that the version, or one of its ancestors, learned from.

    Attributes:
        domains: domain -> weight, for the domains that it may teach.
        samples: number of training samples that it taught.
        trust: domain -> its measured accuracy.
        since: the first version that learned from it.
        inherited: only ancestors learned from it.
        precision: of its model's computation, such as ``bfloat16``; empty if its loader does not say.
    """

    name: str
    fingerprint: str
    source: str
    commit: str | None
    provider: str
    license_facts: LicenseFacts
    domains: Mapping[str, float]
    samples: int
    signals: Literal["live", "stored"]
    trust: Mapping[str, TrustScore]
    since: str
    inherited: bool = False
    precision: str = ""


@dataclass(frozen=True)
class InitialWeights(JsonRecord):
    """Weights that the first version started from.

    Attributes:
        repository: on the Hub; empty where it is not known.
        license_facts: what is known about their license.
        beside: of a student of several parts (two towers), the weights of the others.
    """

    repository: str
    license_facts: LicenseFacts
    beside: tuple[InitialWeights, ...] = ()

    @property
    def parts(self) -> tuple[InitialWeights, ...]:
        """These weights and those beside them."""
        return (self, *self.beside)


@dataclass(frozen=True)
class StudentRecord(JsonRecord):
    """The student: ``family`` and ``config`` of the registry, its ``identity()``, and where its weights started.

    ``start`` is set in published lineages, and in those of imported versions.
    """

    family: str
    config: Mapping[str, Any]
    identity: Mapping[str, str]
    start: InitialWeights | None = None


@dataclass(frozen=True)
class DataRecord(JsonRecord):
    """Training data.

    Attributes:
        samples: domain -> number of training samples in this run.
        known: domains that the version or an ancestor was taught, sorted; of an imported version, or from one, those
            that the calibration split measured.
        fresh, replayed: new and rehearsed training samples.
        skipped_samples: training samples that no teacher and no loss covers.
        domains_without_teacher: domains of the training split that no teacher may teach.
        domains_without_rehearsal: known domains that nothing in this run repeats.
        licenses: of the data entries that name one.
        captions: domain -> weight of the samples' own texts; empty if no loss reads them.
        drawn: domain -> samples that batches drew from it, repetitions included; of a run with corrections empty.
            Steps of a repair come on top.
    """

    samples: Mapping[str, int]
    known: tuple[str, ...]
    fresh: int
    replayed: int
    skipped_samples: int
    domains_without_teacher: tuple[str, ...]
    domains_without_rehearsal: tuple[str, ...]
    licenses: tuple[str, ...] = ()
    captions: Mapping[str, float] = field(default_factory=dict)
    drawn: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment(JsonRecord):
    """Versions of the software; ``plugins`` maps distribution -> version."""

    kdkit: str
    python: str
    torch: str
    platform: str
    plugins: Mapping[str, str]


@dataclass(frozen=True)
class Scores(JsonRecord):
    """Metrics of the version: means over domains, and per domain."""

    split: str
    mean: Mapping[str, float]
    domains: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class DomainChange(JsonRecord):
    """One domain before and after an increment, on the samples that both scored.

    Attributes:
        before, after: the metric in [0, 1], on the ``count`` shared samples.
        points: ``100 (after - before)``; ``low`` and ``high`` bound it (paired bootstrap), in points.
        tolerance: how many points may be lost.
        over_tolerance: the point estimate lost more than that.
        significant: the whole interval lies below 0.
        task, metric: of a comparison beside the student's own task and its headline; else empty.
        subgroup: ``sex F``, if the comparison is of a subgroup.
        groups: number of groups (patients) that the bootstrap draws; 0 where it draws samples.
    """

    domain: str
    before: float
    after: float
    points: float
    low: float
    high: float
    count: int
    tolerance: float
    over_tolerance: bool
    significant: bool
    task: str = ""
    metric: str = ""
    subgroup: str = ""
    groups: int = 0

    @property
    def name(self) -> str:
        """``xray``, ``retrieval/xray``, ``linear-probe:auc/xray`` or ``xray, sex F``."""
        task = f"{self.task}{':' if self.metric else ''}{self.metric}/" if self.task else ""
        return f"{task}{self.domain}" + (f", {self.subgroup}" if self.subgroup else "")


@dataclass(frozen=True)
class TeacherRetention(JsonRecord):
    """How much of a teacher the student holds, where that teacher is trusted.

    Attributes:
        before, after: the student's mean accuracy over ``domains`` as a fraction of the teacher's.
        change: ``after - before``, with ``low`` and ``high`` (the teacher's own accuracy taken as given).
    """

    teacher: str
    domains: tuple[str, ...]
    before: float
    after: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class GuardRecord(JsonRecord):
    """Verdict of the promotion guard; ``failed`` and ``uncertain`` are names of changes: mostly domains."""

    promoted: bool
    failed: tuple[str, ...]
    uncertain: tuple[str, ...]
    mean_failed: bool


@dataclass(frozen=True)
class RetentionRecord(JsonRecord):
    """The comparison with the parent; ``mean``, ``low`` and ``high`` are None without a common domain. ``checks`` are
    what the guard compares beside the domains: other tasks, and subgroups."""

    domains: Mapping[str, DomainChange]
    teachers: Mapping[str, TeacherRetention]
    over_tolerance: tuple[str, ...]
    new_domains: tuple[str, ...]
    not_compared: tuple[str, ...]
    mean: float | None
    low: float | None
    high: float | None
    metric: str
    guard: GuardRecord | None
    checks: tuple[DomainChange, ...] = ()

    @property
    def worst(self) -> DomainChange | None:
        """The domain that lost most (or gained least)."""
        return min(self.domains.values(), key=lambda change: change.points, default=None)


@dataclass(frozen=True)
class CorrectionRound(JsonRecord):
    """Counts of one round of correction."""

    step: int
    epoch: float
    answered: int
    unscored: int
    wrong: int
    rewritten: int
    refused: int


@dataclass(frozen=True)
class CorrectionRecord(JsonRecord):
    """Answers that were corrected during training.

    Attributes:
        corrector: a teacher, or ``reference``.
        file: of the version, with a row per correction.
        corrected: number of corrections.
        fingerprint, license_facts: of a corrector that is a teacher.
    """

    corrector: str
    file: str
    corrected: int
    rounds: tuple[CorrectionRound, ...]
    fingerprint: str = ""
    license_facts: LicenseFacts | None = None


@dataclass(frozen=True)
class Lineage(JsonRecord):
    """Everything that a version comes from.

    Attributes:
        version, parent: names; ``parent`` is None for a run from scratch.
        created: ISO 8601.
        teachers: of this run, then those that only ancestors learned from.
        recipe: with the trust policy that was in force, and with all stages. Of an imported version the registry's,
            by which a project that pulls it will teach.
        training: of the last stage; of an imported version, 0 steps.
        stages: those before it; empty for a recipe without stages.
        retention: None without a parent.
        correction: None where nothing was corrected.
        on_policy: None where the student learned from given answers alone.
        repair: None where the guard does not refuse the student as it was trained.
        published_under: license of the release; set in published lineages only.
        imported: of a version that was not trained; else None.
    """

    FORMAT: ClassVar[int] = 2

    version: str
    parent: str | None
    created: str
    student: StudentRecord
    teachers: tuple[TeacherRecord, ...]
    recipe: Recipe
    data: DataRecord
    training: TrainingRecord
    environment: Environment
    scores: Scores
    retention: RetentionRecord | None = None
    correction: CorrectionRecord | None = None
    on_policy: OnPolicyRecord | None = None
    repair: RepairRecord | None = None
    published_under: str | None = None
    stages: tuple[StageRecord, ...] = ()
    imported: ImportRecord | None = None

    @property
    def made_by(self) -> str:
        """The recipe's name, or ``imported``."""
        return self.recipe.name if self.imported is None else "imported"

    @property
    def seconds(self) -> float:
        """Of training, in all stages."""
        return self.training.seconds + sum(stage.training.seconds for stage in self.stages)

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the version among those of all projects."""
        return self.version, self.created, self.training.digest

    @property
    def judged(self) -> bool:
        """False where no labeled calibration sample could measure the version."""
        return bool(self.scores.domains)

    @property
    def guard(self) -> GuardRecord | None:
        """The guard's verdict, where there was one."""
        return None if self.retention is None else self.retention.guard

    @classmethod
    def load(cls, path: Path) -> Lineage:
        """Read ``path``.

        Raises:
            KdkitError: a missing or damaged file, or another format.
        """
        try:
            return cls.from_bytes(path.read_bytes())
        except (OSError, ValueError) as error:
            raise damaged_record(path, error) from None


History = tuple[Annotated[Lineage, PlainValidator(Lineage.from_json), PlainSerializer(Lineage.to_json)], ...]
"""Lineages inside another record, each with its format."""


@dataclass(frozen=True)
class Origin(JsonRecord):
    """The release that a project was pulled from; ``endpoint`` is the address of its Hub."""

    repository: str
    commit: str
    version: str
    endpoint: str = HUB


@dataclass(frozen=True)
class EarlierHistory(JsonRecord):
    """Lineages of ancestors that are not in the project: of a version that was pulled, or bundled alone.

    Attributes:
        origin: the release that the version continues, if there is one.
        history: lineages of all ancestors, oldest first.
        release: the release that the version is, if it was pulled.
    """

    origin: Origin | None
    history: History
    release: Origin | None = None

    @classmethod
    def load(cls, path: Path) -> EarlierHistory:
        """Read ``path``.

        Raises:
            KdkitError: a missing or damaged file.
        """
        try:
            return cls.from_bytes(path.read_bytes())
        except (OSError, ValueError) as error:
            raise damaged_record(path, error) from None


def damaged_record(path: Path, error: Exception) -> KdkitError:
    """The error for a record of a version that cannot be read."""
    return KdkitError(
        "KD-PROJ-005",
        f"{path.name} of version {path.parent.name} is missing or damaged",
        where=str(path),
        why=str(error),
        fix="restore it from a backup or pull the version again; another version: kdkit rollback VERSION",
        code=ExitCode.MISSING,
    )
