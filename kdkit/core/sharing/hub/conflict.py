"""The error for a concurrent push: its authors and changes."""

from __future__ import annotations

from collections.abc import Mapping

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub.connection import Hub
from kdkit.core.base.hub.retry import with_retries
from kdkit.core.sharing.hub.plan import UploadPlan, first_few
from kdkit.core.sharing.hub.remote import RemoteFile, Repository, list_files

_SHOWN = 5


def conflict_error(hub: Hub, plan: UploadPlan, now: Repository, since: str | None) -> KdkitError:
    """The error for a branch that has moved since the plan, or a repository that somebody made.

    Args:
        now: current state of the branch.
        since: the expected commit; None if no repository was expected.
    """
    if since is None:
        what = "somebody else has made this repository since the push was planned; nothing was committed"
    else:
        what = "somebody else has pushed since this push was planned; nothing was committed"
    before = list_files(hub, now, since) if since else {}
    return KdkitError(
        "KD-HUB-003",
        what,
        where=f"{plan.repo}@{plan.revision}",
        why=f"{_who(hub, plan, now, since)} {_changes(before, list_files(hub, now))}",
        fix=f"look at {hub.url(plan.repo, plan.kind)}/commits/{plan.revision}, then run the push again: "
        "it is planned anew, and what was sent is not sent again",
        code=ExitCode.FOUND,
    )


def _who(hub: Hub, plan: UploadPlan, now: Repository, since: str | None) -> str:
    """``bob ("Better card")``, for each commit, newest first."""
    commits = with_retries(lambda: hub.api.list_repo_commits(plan.repo, repo_type=plan.kind, revision=now.commit))
    names: list[str] = []
    for commit in commits:
        if commit.commit_id == since or len(names) == _SHOWN:
            break
        names.append(f'{" and ".join(commit.authors)} ("{commit.title}")')
    return ", ".join(names) or "somebody"


def _changes(before: Mapping[str, RemoteFile], after: Mapping[str, RemoteFile]) -> str:
    parts = {
        "added": after.keys() - before.keys(),
        "changed": {path for path in before.keys() & after.keys() if before[path].git_sha1 != after[path].git_sha1},
        "removed": before.keys() - after.keys(),
    }
    changes = [f"{verb} {first_few(sorted(paths))}" for verb, paths in parts.items() if paths]
    return "; ".join(changes) or "changed no file"
