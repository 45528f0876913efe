"""Make one commit exactly once, even if the response is lost; then verify the content on the Hub."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub.connection import Hub
from kdkit.core.base.hub.retry import attempts, is_transient, with_retries
from kdkit.core.sharing.hub.conflict import conflict_error
from kdkit.core.sharing.hub.plan import UploadPlan
from kdkit.core.sharing.hub.remote import RemoteFile, Repository, find_repository, list_files

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


@dataclass(frozen=True)
class Made:
    """A commit; ``pull_request`` is ``refs/pr/N`` or empty."""

    commit: str
    pull_request: str


def commit_once(
    hub: Hub,
    plan: UploadPlan,
    parent: str,
    additions: Sequence[CommitOperationAdd],
    *,
    message: str,
    pull_request: bool,
) -> Made:
    """Commit additions and deletions on top of ``parent``, or not at all.

    A lost response may mean that the commit was made, so the branch (or the new pull requests) is checked before each
    retry.

    Raises:
        KdkitError: somebody else pushed first; the client's own errors otherwise.
    """
    from huggingface_hub import CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    title, _, description = message.strip().partition("\n")
    known = _pull_requests(hub, plan) if pull_request else {}
    for wait in attempts():
        try:
            info = hub.api.create_commit(
                plan.repo,
                [*additions, *(CommitOperationDelete(path) for path in plan.deletes)],
                commit_message=title,
                commit_description=description.strip(),
                repo_type=plan.kind,
                revision=plan.revision,
                create_pr=pull_request,
                parent_commit=parent,
            )
            return Made(str(info.oid), str(info.pr_revision or "") if pull_request else "")
        except Exception as error:
            stale = isinstance(error, HfHubHTTPError) and error.response.status_code == 412
            if not stale and not is_transient(error):
                raise
            made = _already_made(hub, plan, parent, known, pull_request)
            if made:
                return made
            if wait is None or stale:
                raise
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _already_made(hub: Hub, plan: UploadPlan, parent: str, known: Mapping[str, str], pull_request: bool) -> Made | None:
    """The commit, if the Hub made it and the response was lost. Raises: KdkitError when somebody else pushed."""
    now = find_repository(hub, plan.repo, plan.kind, plan.revision)
    if now is None:
        return None
    if pull_request:
        for ref, commit in _pull_requests(hub, plan).items() - known.items():
            if not differences(plan, list_files(hub, now, commit)):
                return Made(commit, ref)
    if now.commit == parent:
        return None
    if not pull_request and not differences(plan, list_files(hub, now)):
        return Made(now.commit, "")
    raise conflict_error(hub, plan, now, parent)


def _pull_requests(hub: Hub, plan: UploadPlan) -> dict[str, str]:
    """``refs/pr/N`` -> commit."""
    refs = with_retries(lambda: hub.api.list_repo_refs(plan.repo, repo_type=plan.kind, include_pull_requests=True))
    return {pull.ref: pull.target_commit for pull in refs.pull_requests or ()}


def differences(plan: UploadPlan, remote: Mapping[str, RemoteFile]) -> list[str]:
    """Paths at which a commit differs from the plan."""
    wrong = [file.path for file in plan.files if file.path not in remote or not file.equals(remote[file.path])]
    return sorted([*wrong, *(path for path in plan.deletes if path in remote)])


def verify(hub: Hub, plan: UploadPlan, made: Made) -> None:
    """Raises: KdkitError (exit 1) when the commit does not hold, by hash, exactly what was planned."""
    there = Repository(plan.repo, plan.kind, made.commit, private=True)
    wrong = differences(plan, list_files(hub, there))
    if wrong:
        raise KdkitError(
            "KD-HUB-002",
            "the Hub holds something else than was sent",
            where=f"{plan.repo}@{made.commit[:12]}",
            why="these files differ: " + ", ".join(wrong[:5]),
            fix=f"look at {hub.url(plan.repo, plan.kind, made.commit)} and run the push again",
            code=ExitCode.FOUND,
        )
