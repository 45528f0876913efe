"""A push continues what the repository holds; it never replaces another student."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, hub_errors
from kdkit.core.contracts import Reporter
from kdkit.core.project.lineage import Lineage
from kdkit.core.sharing.hub import UploadPlan
from kdkit.core.sharing.hub.permission import tags_of
from kdkit.core.sharing.release.layout import README, RECORD, Record

_OF_NOBODY = frozenset((README, ".gitattributes", "LICENSE"))
"""Files that a new repository may have."""


def tag_of_successor(
    hub: Hub, plan: UploadPlan, record: Record, known: Iterable[Lineage], reporter: Reporter | None = None
) -> str:
    """The tag under which ``record`` is pushed: ``v3``; ``v3-r2`` where ``v3`` names other files already.

    Args:
        known: lineages of all versions that the project has, or comes from.
        reporter: is warned where the repository's version is no ancestor of the one that takes its place.

    Raises:
        KdkitError: exit code 1, when the repository holds something that the project does not know.
    """
    there = None if plan.parent is None else _record_there(hub, plan)
    if there is None:
        return record.version
    if there.lineage.key in [lineage.key for lineage in known]:
        if reporter is not None and there.lineage.key not in [lineage.key for lineage in record.history]:
            reporter.warn(
                f"{record.version} replaces {there.version} in {plan.repo}, which is not one of its ancestors"
            )
        return _free_tag(hub, plan, record.version)
    raise KdkitError(
        "KD-REL-004",
        f"{plan.repo} holds {there.version} of another student, or of another line of this one",
        where=hub.url(plan.repo),
        why=f"it was made {there.lineage.created}, and this project does not know it",
        fix="propose yours (--pr), push to another repository, or 'kdkit pull' that one and teach it",
        code=ExitCode.FOUND,
    )


def _record_there(hub: Hub, plan: UploadPlan) -> Record | None:
    """The record in the repository; None where it holds nothing yet."""

    held = {file.path for file in (*plan.updates, *plan.unchanged)} | set(plan.deletes)
    if RECORD not in held:
        if held <= _OF_NOBODY:
            return None
        raise _foreign(hub, plan, f"it has no {RECORD}, but {min(held - _OF_NOBODY)}")
    with tempfile.TemporaryDirectory() as folder, hub_errors(plan.repo, hub):
        path = hub.api.hf_hub_download(plan.repo, RECORD, revision=plan.parent, cache_dir=folder)
        try:
            return Record.load(Path(path))
        except ValueError as error:
            raise _foreign(hub, plan, f"{RECORD}: {error}") from None


def _foreign(hub: Hub, plan: UploadPlan, why: str) -> KdkitError:
    return KdkitError(
        "KD-REL-005",
        f"{plan.repo} holds files that this kdkit did not push",
        where=hub.url(plan.repo),
        why=f"{why}; a push would replace all of it",
        fix="push to another repository, or propose it (--pr)",
        code=ExitCode.FOUND,
    )


def _free_tag(hub: Hub, plan: UploadPlan, version: str) -> str:
    """The first of ``v3``, ``v3-r2``, ... that names nothing, or (nothing having changed) this very commit."""

    with hub_errors(plan.repo, hub):
        taken = tags_of(hub, plan)
    number, tag = 1, version
    while tag in taken and not (plan.empty and taken[tag] == plan.parent):
        number += 1
        tag = f"{version}-r{number}"
    return tag
