"""A push continues what the repository holds; it never replaces another student."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, hub_errors
from kdkit.core.contracts import Reporter
from kdkit.core.project.lineage import Lineage
from kdkit.core.sharing.hub import UploadPlan
from kdkit.core.sharing.hub.edits import PublishedFiles
from kdkit.core.sharing.hub.permission import tags_of
from kdkit.core.sharing.release.layout import CARD, README, RECORD, RESULTS, Record

_OF_NOBODY = frozenset((README, ".gitattributes", "LICENSE"))
"""Files that a new repository may have."""


def record_there(there: PublishedFiles) -> Record | None:
    """The record in the repository; None where it has none. Raises: KdkitError when it is not one of this kdkit."""
    found = there.fetch(RECORD)
    if found is None:
        return None
    try:
        return Record.load(found)
    except ValueError as error:
        raise _foreign(there, f"{RECORD}: {error}") from None


def require_successor(
    there: PublishedFiles, before: Record | None, record: Record, known: Iterable[Lineage], reporter: Reporter
) -> None:
    """Check that ``record`` may take the place of ``before``, the record in the repository.

    Args:
        known: lineages of all versions that the project has, or comes from.
        reporter: is warned where the repository's version is no ancestor of the one that takes its place.

    Raises:
        KdkitError: exit code 1, when the repository holds something that the project does not know.
    """
    if before is None:
        if others := there.remote.keys() - _OF_NOBODY:
            raise _foreign(there, f"it has no {RECORD}, but {min(others)}")
        return
    repo, key = there.at.name, before.lineage.key
    if key not in [lineage.key for lineage in known]:
        raise KdkitError(
            "KD-REL-004",
            f"{repo} holds {before.version} of another student, or of another line of this one",
            where=there.hub.url(repo),
            why=f"it was made {before.lineage.created}, and this project does not know it",
            fix="propose yours (--pr), push to another repository, or 'kdkit pull' that one and teach it",
            code=ExitCode.FOUND,
        )
    if key not in [lineage.key for lineage in record.history]:
        reporter.warn(f"{record.version} replaces {before.version} in {repo}, which is not one of its ancestors")


def says_the_same(record: Record, before: Record) -> bool:
    """Whether a push would publish what is published: only another machine or kdkit wrote it.

    Forms for other libraries follow from the student; versions of libraries and the card's wording are no content.
    """
    own = {*record.student, *(name for name in record.files if "/" in name and name != CARD), RESULTS}
    if record.files.keys() != before.files.keys() or any(record.files[n] != before.files[n] for n in own):
        return False
    missing = [{name for name, check in it.checks.items() if "missing" in check} for it in (record, before)]
    facts = [
        replace(it, kdkit="", checks={name: {} for name in it.checks}, environment={}, files={})
        for it in (record, before)
    ]
    return missing[0] == missing[1] and facts[0] == facts[1]


def _foreign(there: PublishedFiles, why: str) -> KdkitError:
    return KdkitError(
        "KD-REL-005",
        f"{there.at.name} holds files that this kdkit did not push",
        where=there.hub.url(there.at.name),
        why=f"{why}; a push would put the student among them",
        fix="push to another repository, or propose it (--pr)",
        code=ExitCode.FOUND,
    )


def free_tag(hub: Hub, plan: UploadPlan, version: str) -> str:
    """``v3``, or ``v3-r2``, ... where ``v3`` names another commit; empty where nothing changes and there is a tag."""
    if plan.parent is None:
        return version
    with hub_errors(plan.repo, hub):
        taken = tags_of(hub, plan)
    if plan.empty and version in taken:
        return version if taken[version] == plan.parent else ""
    number, tag = 1, version
    while tag in taken:
        number += 1
        tag = f"{version}-r{number}"
    return tag
