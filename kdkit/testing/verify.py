"""``kdkit plugins verify``: the contracts of everything that a plugin provides, run without pytest."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal
from unittest import SkipTest

import kdkit.testing
from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.plugin_system.catalogue import Catalogue, Family, PluginRecord
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.plugin_system.failures import one_line
from kdkit.core.plugin_system.installed import normal
from kdkit.testing.contract import Contract, checks
from kdkit.testing.contracts.plugin import PluginContract
from kdkit.testing.given import contracts_of

CONTRACTS: dict[Family, str] = {
    "loader": "LoaderContract",
    "teacher": "TeacherContract",
    "student": "StudentContract",
    "aligner": "AlignerContract",
    "loss": "LossContract",
    "rope": "RopeContract",
    "source": "SourceContract",
    "reader": "ImageReaderContract",
    "policy": "TrustPolicyContract",
    "task": "TaskContract",
    "recipe": "RecipeContract",
    "suite": "SuiteContract",
}
Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Check:
    """One check of one subject.

    Attributes:
        subject: the distribution, or family and ``distribution:name`` of an entry.
        contract: the class whose check it is; ``name``: the method.
        summary: what is promised, in one line.
        message: what was expected and what was found, or why it was skipped; empty when it passed.
        seconds: that it took.
    """

    subject: str
    contract: str
    name: str
    summary: str
    status: Status
    message: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """Results of all checks of a plugin.

    Attributes:
        plugin, version: the distribution.
        broken: a plugin of the distribution did not load; its specs were not checked.
        checks: those of the distribution first, then by entry.
    """

    plugin: str
    version: str
    broken: bool
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return not self.count("failed")

    def count(self, status: Status) -> int:
        """How many checks ended so."""
        return Counter(check.status for check in self.checks)[status]


def verify_plugin(name: str, *, tests: Path | None = None, reporter: Reporter | None = None) -> Report:
    """Run every check of the kit that applies to a plugin.

    Args:
        name: a distribution, or an entry point of one.
        tests: a Python file with the author's contract classes; their examples and options are used.
        reporter: shows progress.

    Raises:
        KdkitError: no such plugin, a disabled plugin, a test file that cannot be imported.
    """
    if not __debug__:
        raise KdkitError(
            "KD-TEST-005", "the checks are assertions, and Python runs with -O", fix="unset PYTHONOPTIMIZE"
        )
    catalogue = load_catalogue()
    records = _records(catalogue, name)
    plugin, version = records[0].distribution, records[0].version
    given = contracts_of(tests) if tests else []
    subjects = list(_contracts(catalogue, plugin, records, given))
    total = sum(1 for _, contract in subjects for _ in checks(contract))
    done: list[Check] = []
    for subject, contract in subjects:
        (reporter or Silent()).progress("checks", len(done), total, subject)
        done += run_checks(contract, subject)
    (reporter or Silent()).progress("checks", total, total)
    return Report(plugin, version, any(record.status != "ok" for record in records), tuple(done))


def _records(catalogue: Catalogue, name: str) -> list[PluginRecord]:
    """The plugins meant by ``name``, all of one distribution."""
    wanted = normal(name)
    found = [record for record in catalogue.records if record.distribution == wanted]
    found = found or [record for record in catalogue.records if normal(record.name) == wanted]
    distributions = sorted({record.distribution for record in found})
    if not found:
        known = sorted({word for record in catalogue.records for word in (record.distribution, record.name)})
        raise KdkitError(
            "KD-TEST-006", f"no plugin '{name}' is installed", fix=did_you_mean(wanted, known), code=ExitCode.MISSING
        )
    if len(distributions) > 1:
        raise KdkitError(
            "KD-TEST-007", f"several distributions have a plugin '{name}'", fix="name one: " + ", ".join(distributions)
        )
    if any(record.status == "disabled" for record in found):
        raise KdkitError(
            "KD-TEST-008",
            f"plugin '{name}' is disabled",
            why="--no-plugins, KDKIT_NO_PLUGINS or KDKIT_PLUGINS excludes it",
            fix="unset these to check it",
        )
    return found


def _contracts(
    catalogue: Catalogue, plugin: str, records: list[PluginRecord], given: list[type[Any]]
) -> Iterator[tuple[str, type[Any]]]:
    """(subject, contract class) of the distribution and of each entry; the author's classes where there are some."""
    own = [kind for kind in given if issubclass(kind, PluginContract) and normal(kind.name) == plugin]
    yield from ((plugin, kind) for kind in own or [_subclass("PluginContract", plugin)])
    entries: dict[tuple[Family, str], list[type[Contract]]] = {
        (family, f"{plugin}:{name}"): [] for r in records for family, names in r.provides.items() for name in names
    }
    for kind in given:
        if issubclass(kind, Contract):
            entries.get((kind.family, _qualified(catalogue, kind)), []).append(kind)
    for (family, name), classes in entries.items():
        yield from ((f"{family} {name}", kind) for kind in classes or [_subclass(CONTRACTS[family], name)])


def _subclass(base: str, name: str) -> type[Any]:
    """What an author would write: ``class ...(base): name = ...``."""
    return type(base, (getattr(kdkit.testing, base),), {"name": name})


def _qualified(catalogue: Catalogue, kind: type[Contract]) -> str:
    """``distribution:name`` of what ``kind`` checks; empty where there is no such entry."""
    try:
        return catalogue.get(kind.family, kind.name).qualified
    except KdkitError:
        return ""


def run_checks(contract: type[Any], subject: str) -> Iterator[Check]:
    """Every check of a contract class, as pytest would run it."""
    for name, summary in checks(contract):
        yield _run(subject, contract, name, summary)


def _run(subject: str, contract: type[Any], name: str, summary: str) -> Check:
    status: Status = "passed"
    start, message = perf_counter(), ""
    try:
        with redirect_stdout(sys.stderr):  # stdout belongs to the report
            getattr(contract(), name)()
    except KeyboardInterrupt:
        raise
    except SkipTest as reason:
        status, message = "skipped", str(reason)
    except AssertionError as error:
        status, message = "failed", str(error) or one_line(error)
    except KdkitError as error:
        status, message = "failed", "; ".join(filter(None, (error.headline, error.why, error.fix)))
    except BaseException as error:  # SystemExit too: a check that ends the process has failed
        status, message = "failed", one_line(error)
    took = round(perf_counter() - start, 3)
    return Check(subject, contract.__name__, name, summary, status, message, took)
