"""``sweeps/NAME``: what a sweep compares, with the keys of its runs. Jobs share it, and reports read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.json_record import JsonRecord
from kdkit.core.evaluation.kept_evaluations import KeptEvaluations

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

FILE, RUNS = "sweep.json", "runs"
FOLDER = "sweeps"


@dataclass(frozen=True)
class SweptVariation(JsonRecord):
    """One way to train the student.

    Attributes:
        name: of its row.
        values: what differs from the project: key -> value.
        parts: of the question that it belongs to, such as ``leave one out``.
        against: name of the variation that it is compared with; empty for that one itself.
        domains: those that are compared.
        steps: of one run.
        runs: key of the evaluation per seed.
        impossible: why it cannot be trained; it then has no runs.
    """

    name: str
    values: dict[str, Any]
    parts: tuple[str, ...]
    against: str
    domains: tuple[str, ...]
    steps: int
    runs: tuple[str, ...]
    impossible: str = ""


@dataclass(frozen=True)
class SweepRecord(JsonRecord):
    """A sweep.

    Attributes:
        name: of its folder.
        question: what was asked, such as ``trust``; ``arguments`` of the command.
        axis: the one key with numbers that its picture has as x; empty without one.
        seeds: in the order of the runs.
        length: of the runs, as a share of the recipe's steps.
        chance: domain -> accuracy of guessing, where it is known.
        samples: domain -> training samples.
        notes: what a reader must know.
        made_from: what decides the results -> its value or digest.
    """

    FORMAT: ClassVar[int] = 1

    name: str
    question: str
    arguments: tuple[str, ...]
    axis: str
    recipe: str
    task: str
    split: str
    precision: str
    length: float
    seeds: tuple[int, ...]
    chance: dict[str, float]
    samples: dict[str, int]
    notes: tuple[str, ...]
    variations: tuple[SweptVariation, ...]
    made_from: dict[str, str] = field(default_factory=dict)

    @property
    def seeds_text(self) -> str:
        """``seed 0``, or ``seeds 0, 1``."""
        return f"seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all evaluations, each once, seeds first: a sweep that is stopped early has whole comparisons."""
        rows = (
            variation.runs[number : number + 1] for number in range(len(self.seeds)) for variation in self.variations
        )
        return tuple(dict.fromkeys(key for row in rows for key in row))

    def variation(self, name: str) -> SweptVariation:
        """The variation of this name."""
        return next(one for one in self.variations if one.name == name)

    def save(self, folder: Path) -> None:
        """Write ``sweep.json`` in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, self.to_bytes())


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep."""

    project: Project
    name: str

    @property
    def path(self) -> Path:
        return self.project.root / FOLDER / self.name

    @property
    def kept(self) -> KeptEvaluations:
        """Evaluations of finished runs; those of the project's other sweeps are used too.

        All sweeps claim their runs in one place: two of them at once may want the same run, as both train the baseline.
        """
        others = [path for path in sorted(self.path.parent.glob(f"*/{RUNS}")) if path.parent != self.path]
        return KeptEvaluations(self.path / RUNS, "kdkit sweep", others, self.project.runs)

    def read(self) -> SweepRecord | None:
        """What ``sweep.json`` holds; None without one.

        Raises:
            KdkitError: it is no such file.
        """
        file = self.path / FILE
        try:
            return SweepRecord.from_bytes(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise KdkitError(
                "KD-EVAL-382",
                "this sweep cannot be read",
                where=str(file),
                why=" ".join(str(error).split())[:200],
                fix="delete the file, and repeat the command of the sweep; finished runs stay",
                code=ExitCode.MISSING,
            ) from None

    @classmethod
    def find(cls, project: Project, name: str | None) -> SweepFolder:
        """The folder of a sweep, by default the only one.

        Raises:
            KdkitError: there is none of that name, or several and no name.
        """
        names = sorted(path.parent.name for path in (project.root / FOLDER).glob(f"*/{FILE}"))
        if name in names or (name is None and len(names) == 1):
            return cls(project, name or names[0])
        if name is None and names:
            what, fix = "this project has several sweeps", "name one: " + ", ".join(names)
        elif name is None:
            what, fix = "this project has no sweep", "'kdkit sweep --help' lists the questions"
        else:
            what, fix = f"there is no sweep '{name}'", did_you_mean(name, names)
        raise KdkitError("KD-EVAL-383", what, where=str(project.root / FOLDER), fix=fix, code=ExitCode.MISSING)


def changed_facts(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, for people: ``student: {...}, now {...}``; digests are named alone.

    Example:
        >>> changed_facts({"data": "a" * 64, "policy": "soft"}, {"data": "b" * 64, "policy": "all"})
        ['data', 'policy: soft, now all']
    """
    found = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            found.append(f"{name} ({'added' if old is None else 'removed'})")
        elif old != new:
            short = len(old) < 60 and len(new) < 60
            found.append(f"{name}: {old}, now {new}" if short else name)
    return found
