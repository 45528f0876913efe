"""Results of the commands that teach a student and let it answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdkit.core.base.result import Result, ResultRows, Section, Table

if TYPE_CHECKING:
    from kdkit.core.distill.cost_estimate import Estimate, PlannedStage
    from kdkit.core.distill.forecast.workload import Forecast
    from kdkit.core.distill.loop.sampler import DomainUse
    from kdkit.core.distill.plan.types import CorrectionSchedule, OnPolicyPlan, Plan
    from kdkit.core.distill.promotion import Outcome
    from kdkit.core.evaluation.answering.candidates import SelectedAnswer  # noqa: F401  # named in quotes
    from kdkit.core.project.lineage import CorrectionRecord, Lineage, Scores

SHOWN_STEPS = 8
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class DistillPlan(Result):
    """What a run would do, and its cost on this machine."""

    stages: tuple[PlannedStage, ...]

    @property
    def plan(self) -> Plan:
        """Of the run; of the last stage, if its recipe has stages."""
        return self.stages[-1].plan

    @property
    def estimate(self) -> Estimate:
        """Of that plan."""
        return self.stages[-1].estimate

    def to_json(self) -> dict[str, Any]:
        """The plan, with ``estimate``, and the stages before it as ``earlier``."""
        *earlier, last = map(StagePlan, self.stages)
        return {**last.to_json(), "earlier": [stage.to_json() for stage in earlier]}

    def sections(self) -> list[Section]:
        """Teachers, samples, schedule, cost, stage by stage."""
        first, *others = (StagePlan(stage, number > 0).sections() for number, stage in enumerate(self.stages))
        whole = self.plan.whole_recipe
        named = [f"Recipe {whole.name}: {', then '.join(one.name for one in whole.stages)}", ""] if whole.stages else []
        return [*named, *first, *(section for sections in others for section in ("", *sections))]


@dataclass(frozen=True)
class StagePlan(Result):
    """One stage of a run, or all of it."""

    stage: PlannedStage
    follows: bool = False
    """It starts from the stage before."""

    def to_json(self) -> dict[str, Any]:
        """The plan, with ``estimate``, and ``forecast`` if the plan was made for other devices."""
        domains = {name: asdict(use) for name, use in self._domains.items()}
        forecast = self.stage.forecast
        return {
            **self.plan.to_json(),
            "domains": domains,
            "estimate": self.stage.estimate.to_json(),
            "forecast": None if forecast is None else forecast.to_json(),
        }

    @property
    def plan(self) -> Plan:
        """What the stage would do."""
        return self.stage.plan

    @property
    def _domains(self) -> Mapping[str, DomainUse]:
        from kdkit.core.distill.loop.sampler import use_of_domains

        return use_of_domains(self.plan)

    def sections(self) -> list[Section]:
        """Teachers, samples, schedule, cost."""
        plan, settings = self.plan, self.plan.settings
        parts: list[Section] = [_title(plan, follows=self.follows), "", self._teachers(), ""]
        if plan.teachers and (trust := plan.recipe.trust).measured:
            parts.append(f"Trust: {trust.measured}, policy {trust.policy}")
        for losses in dict.fromkeys(teacher.skipping_losses for teacher in plan.teachers if teacher.skipping_losses):
            names = ", ".join(teacher.name for teacher in plan.teachers if teacher.skipping_losses == losses)
            parts.append(f"Skipped by {', '.join(losses)} for want of a signal: {names}")
        if plan.finished:
            parts.append(f"{plan.finished} is the result of this plan: nothing is trained without --restart")
        parts.append(f"{plan.fresh} new samples, {plan.replayed} replayed samples")
        if plan.better:
            better = ", ".join(f"{domain} ({', '.join(names)})" for domain, names in plan.better.items())
            parts.append(f"New, since a new teacher is better there than {plan.parent}: {better}")
        if any(weight < 1 for weight in plan.captions.values()):
            parts.append("Weight of captions: " + ", ".join(f"{d} {w:.2f}" for d, w in plan.captions.items()))
        if plan.domains_without_teacher:
            parts.append(f"No teacher covers: {', '.join(plan.domains_without_teacher)}")
        if plan.skipped_samples:
            parts.append(f"{plan.skipped_samples} training samples skipped: nothing teaches them.")
        if plan.domains_without_rehearsal:
            parts.append(f"{plan.parent} knows, but no teacher rehearses: {', '.join(plan.domains_without_rehearsal)}")
        if plan.idle_losses:
            parts.append(f"Cannot teach with batches of {plan.batch_size}: {', '.join(plan.idle_losses)}")
        if plan.domains_not_judged:
            parts.append(f"Not judged after training: {', '.join(plan.domains_not_judged)}")
        if plan.recipe.augment is not None:
            plain = len(plan.samples) - plan.augmented
            parts.append(f"Random views: {plan.augmented} samples; {plain} keep the plain image of their teachers")
        parts += _protection(plan)
        if plan.correction is not None:
            parts.append(_correction_line(plan.correction))
        if plan.on_policy is not None:
            parts += _on_policy_lines(plan, plan.on_policy)
        steps = f"{settings.steps} steps of {plan.batch_size} samples"
        if (micro := plan.recipe.optimizer.micro_batch) is not None:
            steps += f" in micro-batches ({micro})"
        if (packed := plan.recipe.optimizer.pack_tokens) is not None:
            steps += f" in sequences of {packed} tokens"
        if not plan.increments:
            steps += f" ({settings.steps * plan.batch_size / len(plan.samples):.1f} epochs)"
        parts.append(f"{steps}, learning rate {settings.lr:g}, seed {settings.seed}")
        forecast = [] if self.stage.forecast is None else ["", *forecast_sections(self.stage.forecast)]
        return [*parts, "", self._use(), "", self.stage.estimate.text(), *forecast]

    def _use(self) -> Section:
        """How often batches draw each domain."""
        rows = [(name, use.samples, use.drawn, f"{use.passes:.1f}") for name, use in self._domains.items()]
        limit = self.plan.recipe.sampling.max_per_group
        limits = [f"{limit} of a group"] if limit is not None else []
        limits += ["1 caption of an image"] if any(pool.image is not None for pool in self.plan.pools) else []
        times = f"passes, {' and '.join(limits)} in each" if limits else "times each"
        return Table(("domain", "samples", "drawn", times), rows, "lrrr")

    def _teachers(self) -> Section:
        rows = [
            (
                teacher.name,
                ("new" if teacher.new else "known") + (", live" if teacher.live else ""),
                teacher.samples,
                ", ".join(d if w >= 0.995 else f"{d} ({w:.2f})" for d, w in teacher.admitted.items() if w >= 0.005)
                or "nothing",
            )
            for teacher in self.plan.teachers
        ]
        if not rows:
            return "No loss of the recipe reads a teacher: the student learns from the samples' own texts."
        return Table(("teacher", "", "samples", "may teach (weight)"), rows, "llrl")


def forecast_sections(forecast: Forecast) -> list[Section]:
    """The arithmetic line by line, and what breaks first."""
    rows = [(line.label, line.arithmetic, line.value) for line in forecast.lines]
    return [f"Planned for {forecast.target}:", "", Table(("", "arithmetic", "result"), rows, "llr"), "",
            f"{forecast.breaks_first[0].upper()}{forecast.breaks_first[1:]}."]  # fmt: skip


def _title(plan: Plan, *, follows: bool) -> str:
    """Recipe, stage and start."""
    start = "a new student" if plan.parent is None else f"an increment on {plan.parent}"
    if plan.continued:
        start = f"continues {plan.parent} on all samples"
    if follows:
        start = "from the stage before" + (f", new since {plan.parent}" if plan.increments else "")
    if plan.stage is None:
        return f"Recipe {plan.recipe.name}; {start}"
    return f"{plan.stage.title.capitalize()}: {plan.recipe.name}; {start}"


def _protection(plan: Plan) -> list[str]:
    """What the parent itself does for its domains."""
    lines, previous = list[str](), plan.previous
    if plan.parent and previous.weight:
        lines.append(f"{plan.parent} is used as an extra teacher ({previous.loss}, weight {previous.weight:g})")
    if plan.parent and previous.altered:
        lines.append(f"{plan.parent} teaches its own outputs on altered inputs (weight {previous.altered:g})")
    if plan.parent and previous.frozen_energy:
        share = f"{100 * previous.frozen_energy:g} % of each matrix's energy"
        lines.append(f"The strongest directions of {plan.parent}'s weights stay as they are ({share})")
    return lines


def _correction_line(schedule: CorrectionSchedule) -> str:
    if not schedule.steps:
        return "The run ends before the first correction."
    steps = ", ".join(map(str, schedule.steps[:SHOWN_STEPS])) + (" ..." if len(schedule.steps) > SHOWN_STEPS else "")
    return (
        f"Corrected after step {steps}: the student answers {schedule.per_round} samples each time, "
        f"{schedule.per_round * len(schedule.steps)} in all; corrector: {schedule.corrector}"
    )


def _on_policy_lines(plan: Plan, own: OnPolicyPlan) -> list[str]:
    scorers = ", ".join(f"{name} (about {count:,})" for name, count in own.scorers.items())
    lines = [f"Own answers: about {own.answers:,} of {own.drawn:,} drawn samples, scored by {scorers}"]
    if own.given_only:
        named = ", ".join(f"{name} ({why})" for name, why in own.given_only.items())
        lines.append(f"Along given answers alone: {named}")
    if plan.parent and plan.previous.weight:
        lines.append(f"{plan.parent} teaches along given answers alone")
    return lines


@dataclass(frozen=True)
class _MadeVersion(Result):
    """A version that a command has made."""

    outcome: Outcome

    @property
    def version(self) -> str:
        """Name of the new version."""
        return self.outcome.version.name

    @property
    def folder(self) -> Path:
        """Folder of the version."""
        return self.outcome.version.folder


class ImportedStudent(_MadeVersion):
    """Version v0: the student's initial weights as they are."""

    def to_json(self) -> dict[str, Any]:
        """Version, scores, files with their sha256, license facts."""
        lineage = self.outcome.version.lineage.to_json()
        return {
            "version": self.version,
            "judged": self.outcome.version.lineage.judged,
            "folder": str(self.folder),
            "scores": lineage["scores"],
            "start": lineage["student"]["start"],
            "files": lineage["imported"]["files"],
        }

    def sections(self) -> list[Section]:
        """Scores, what the guard will compare, origin."""
        lineage = self.outcome.version.lineage
        known = ", ".join(lineage.data.known)
        guarded = f"the guard compares increments with it on: {known}"
        parts = lineage.student.start.parts if lineage.student.start else ()
        licenses = "; ".join(part.license_facts.shown for part in parts)
        files = len(lineage.imported.files) if lineage.imported else 0
        return [
            f"{self.version} is current now; nothing was trained",
            _scores_line(lineage.scores),
            guarded if known else "the guard has nothing to compare increments with",
            f"initial weights: {files} file{'' if files == 1 else 's'}, sha256 in the lineage; license: {licenses}",
            "next: kdkit add-teacher NAME; kdkit distill --incremental",
        ]


@dataclass(frozen=True)
class Distillation(_MadeVersion):
    """The version that a run made, and what it kept of its parent."""

    next_command: str = "kdkit evaluate"

    @property
    def promoted(self) -> bool:
        """Whether it is the current version; otherwise it is a refused candidate."""
        return not self.outcome.version.refused

    def to_json(self) -> dict[str, Any]:
        """Version, scores, retention, repair, time."""
        lineage = self.outcome.version.lineage.to_json()
        return {
            "version": self.version,
            "promoted": self.promoted,
            "judged": self.outcome.version.lineage.judged,
            "folder": str(self.folder),
            "scores": lineage["scores"],
            "retention": lineage["retention"],
            "repair": lineage["repair"],
            "drawn": lineage["data"]["drawn"],
            "seconds": self.outcome.version.lineage.seconds,
            "stages": [stage["name"] for stage in lineage["stages"]],
        }

    def sections(self) -> list[Section]:
        """The verdict, scores and retention."""
        lineage = self.outcome.version.lineage
        scores: list[Section] = [_scores_line(lineage.scores)]
        if lineage.data.drawn:
            seen = (f"{name} {count / lineage.data.samples[name]:.1f}" for name, count in lineage.data.drawn.items())
            scores.append(f"times that each sample was seen: {', '.join(seen)}")
        if lineage.correction:
            scores.append(f"{_corrected_line(lineage.correction)}: {self.folder / lineage.correction.file}")
        scores += [*self._retention(), *_repair_sections(lineage)]
        if self.promoted:
            return [f"{self.version} is current now", *scores, f"next: {self.next_command}"]
        return [
            f"{self.version} is refused: it forgets more than the guard tolerates",
            *(f"  {line}" for line in self._described("failed")),
            f"{lineage.parent} stays current",
            *scores,
            f"{self.version} is in {self.folder}; to use it anyway: kdkit versions promote {self.version}",
        ]

    def _described(self, part: Literal["failed", "uncertain"]) -> list[str]:
        """The changes that the guard names: of domains, and of checks beside them."""
        from kdkit.core.evaluation.guard import describe_change

        kept = self.outcome.retention
        named = () if kept is None or kept.guard is None else getattr(kept.guard, part)
        if kept is None:
            return []
        changes = {**{change.name: change for change in kept.checks}, **kept.domains}
        return [describe_change(changes[name]) if name in changes else name for name in named]

    def _retention(self) -> list[Section]:
        from kdkit.core.evaluation.guard import describe_change

        kept = self.outcome.retention
        if kept is None:
            return []
        named = () if kept.guard is None else (*kept.guard.failed, *kept.guard.uncertain)
        lines: list[Section] = []
        if kept.domains:
            lines.append(f"old domains: {kept.mean:+.1f} points on average ({kept.low:+.1f} to {kept.high:+.1f})")
        if kept.worst is not None and kept.worst.domain not in named:
            lines.append(f"  worst: {describe_change(kept.worst)}")
        lines += [f"  over its tolerance, within chance: {line}" for line in self._described("uncertain")]
        if kept.not_compared:
            why = "no shared calibration samples, or no way to compare the metric"
            lines.append(f"NOT MEASURED ({why}): {', '.join(kept.not_compared)}")
        taught = [domain for domain in kept.new_domains if domain in self.outcome.version.lineage.data.known]
        return [*lines, f"new domains: {', '.join(taught)}"] if taught else lines


def _repair_sections(lineage: Lineage) -> list[Section]:
    """What was tried because the student as trained broke the guard."""
    repair = lineage.repair
    if repair is None:
        return []
    rows = [
        (
            "*" if number == repair.kept else "",
            attempt.describe(lineage.parent),
            _points(attempt.gain),
            attempt.worst or "-",
            _points(attempt.points),
            _points(attempt.mean),
            "passed" if attempt.passed else "refused",
        )
        for number, attempt in enumerate(repair.attempts)
    ]
    headers = ("kept", "weights", "gain", "worst old domain", "", "mean of old", "guard")
    gain = f"gain: points on {', '.join(repair.new)}"
    more = f"; rehearsed more: {', '.join(repair.rehearsed)}" if repair.rehearsed else ""
    return [repair.describe(lineage.parent), Table(headers, rows, "llrlrrl"), gain + more]


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _scores_line(scores: Scores) -> str:
    if not scores.domains:
        return "not judged: no calibration sample could measure it; label some, then 'kdkit evaluate'"
    auc = f", AUC {scores.mean['auc']:.3f}" if "auc" in scores.mean else ""
    return f"accuracy {100 * scores.mean['accuracy']:.1f} %{auc} (mean over domains, calibration split)"


def _corrected_line(record: CorrectionRecord) -> str:
    text = f"{record.corrected} answers were corrected"
    if not record.fingerprint or not record.corrected:
        return text
    rewritten, refused = (sum(getattr(part, name) for part in record.rounds) for name in ("rewritten", "refused"))
    return f"{text}, {rewritten} in the words of {record.corrector} ({refused} of its answers rejected)"


class AnswerList(ResultRows["SelectedAnswer"]):
    """Answers to samples, with the chosen one of each."""

    def to_json(self) -> list[dict[str, Any]]:
        """One object per sample."""
        return [row.to_json() for row in self.rows]

    def sections(self) -> list[Section]:
        """One row per answer; ``*`` marks the chosen one."""
        cells = [
            (
                row.id if number == 0 else "",
                "*" if number == row.chosen else "",
                "" if answer.score is None else f"{answer.score:.3f}",
                "" if answer.confidence is None else f"{answer.confidence:.3f}",
                " ".join(answer.text.split())[:SHOWN_CHARACTERS],
            )
            for row in self.rows
            for number, answer in enumerate(row.answers)
        ]
        return [Table(("sample", "chosen", "score", "confidence", "answer"), cells, "llrrl")]
