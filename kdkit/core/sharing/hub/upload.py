"""Carry out a plan: send what is missing, then one commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub.connection import Hub
from kdkit.core.base.hub.errors import hub_errors
from kdkit.core.base.hub.retry import with_retries
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.sharing.hub.client import quiet_client, request
from kdkit.core.sharing.hub.commit import Made, commit_once, verify
from kdkit.core.sharing.hub.conflict import conflict_error
from kdkit.core.sharing.hub.permission import check_access, check_arguments, require_visibility, tag_is_taken, tags_of
from kdkit.core.sharing.hub.plan import KEPT, UploadPlan, check_unchanged
from kdkit.core.sharing.hub.remote import find_repository, list_files
from kdkit.core.sharing.hub.transfer import send

CARD = "README.md"
_SHOWN = 160
"""Characters of one message: the Hub lists all known licenses."""


@dataclass(frozen=True)
class Uploaded:
    """A verified push.

    Attributes:
        url: page of the repository or pull request.
        commit: 40 hex digits; the parent's if nothing changed.
        changed: whether a commit was made.
        created: whether the repository is new.
        pull_request: ``refs/pr/N`` or empty.
        tag: the tag that now names the commit, or empty.
    """

    url: str
    commit: str
    changed: bool
    created: bool
    pull_request: str
    tag: str


def upload(
    hub: Hub,
    plan: UploadPlan,
    *,
    private: bool = True,
    pull_request: bool = False,
    message: str = "Push with kdkit",
    tag: str | None = None,
    reporter: Reporter | None = None,
) -> Uploaded:
    """Execute ``plan`` in one commit. An interrupted upload leaves nothing visible and resumes when run again.

    Args:
        hub: with a token that may write.
        plan: of :func:`plan_upload`, for the same endpoint.
        private: visibility of the repository; an existing one must match.
        pull_request: open a pull request instead of committing to the branch.
        message: of the commit, one line; more lines become its description.
        tag: names the commit afterwards.
        reporter: receives progress.

    Raises:
        KdkitError: no token or permission, wrong visibility, no room (exit 4); the tag names another commit, local
            files changed, the Hub refuses the card, somebody else pushed since the plan (exit 1); the Hub cannot be
            reached, or fails (exit 3).
    """
    report = reporter or Silent()
    check_arguments(hub, plan, pull_request=pull_request, message=message, tag=tag)
    hub.require_token()
    check_unchanged(plan)
    page = hub.url(plan.repo, plan.kind)
    with quiet_client(report), hub_errors(f"{plan.repo}@{plan.revision}", hub, page=page):
        create = check_access(hub, plan, private=private, pull_request=pull_request, tag=tag)
        _check_card(hub, plan)
        parent = _create(hub, plan, private) if create else plan.parent or ""
        made = Made(parent, "")
        if not plan.empty:
            with _left_behind(hub, plan, private, create):
                additions = send(hub, plan, report, pull_request=pull_request)
                made = commit_once(hub, plan, parent, additions, message=message, pull_request=pull_request)
            verify(hub, plan, made)
        if tag:
            _put_tag(hub, plan, made, tag)
    return Uploaded(
        url=f"{page}/discussions/{made.pull_request.rpartition('/')[2]}" if made.pull_request else page,
        commit=made.commit,
        changed=create or not plan.empty,
        created=create,
        pull_request=made.pull_request,
        tag=tag or "",
    )


def _create(hub: Hub, plan: UploadPlan, private: bool) -> str:
    """Create the repository; returns its first commit. Raises: KdkitError when somebody else has pushed to it."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with_retries(lambda: hub.api.create_repo(plan.repo, repo_type=plan.kind, private=private))
    except HfHubHTTPError as error:
        if error.response.status_code != 409:  # it exists: created by a request with a lost response, or by others
            raise
    there = find_repository(hub, plan.repo, plan.kind, plan.revision)
    if there is None:
        raise KdkitError(
            "KD-HUB-041",
            "a repository of this name exists, and this token may not see it",
            where=plan.repo,
            fix=f"push to another name, or with a token that may: {hub.how_to_log_in}",
            code=ExitCode.DENIED,
        )
    if not list_files(hub, there).keys() <= set(KEPT):
        raise conflict_error(hub, plan, there, None)
    require_visibility(hub, plan, there, private)
    return there.commit


@contextmanager
def _left_behind(hub: Hub, plan: UploadPlan, private: bool, create: bool) -> Iterator[None]:
    """Mention in errors that a new repository stays; the next run reuses the contents sent to it."""
    page = hub.url(plan.repo, plan.kind)
    try:
        with hub_errors(f"{plan.repo}@{plan.revision}", hub, page=page):
            yield
    except KdkitError as error:
        if create:
            left = f"{page} was made ({'private' if private else 'public'}) and is still empty"
            error.why = "; ".join(filter(None, (error.why, left)))
        raise


def _put_tag(hub: Hub, plan: UploadPlan, made: Made, tag: str) -> None:
    with_retries(
        lambda: hub.api.create_tag(plan.repo, tag=tag, revision=made.commit, repo_type=plan.kind, exist_ok=True)
    )
    names = tags_of(hub, plan).get(tag, "")
    if names != made.commit:
        raise tag_is_taken(hub, plan, tag, names, done=f"the commit {made.commit[:12]} was pushed without it")


def _check_card(hub: Hub, plan: UploadPlan) -> None:
    """Raises: KdkitError (exit 1) with the fields that the Hub refuses. A Hub without this check passes."""
    if all(file.path != CARD for file in plan.to_send):
        return
    content = (plan.folder / CARD).read_text(encoding="utf-8", errors="replace")
    body = {"content": content, "repoType": plan.kind}
    response = request(hub, "POST", "/api/validate-yaml", json=body, accept=(400, 404, 405))
    if response.status_code != 400:
        return
    errors = [str(error.get("message")) for error in response.json().get("errors", ())]
    raise KdkitError(
        "KD-HUB-001",
        "the Hub refuses the metadata of the card; nothing was pushed",
        where=str(plan.folder / CARD),
        why="; ".join(error if len(error) <= _SHOWN else f"{error[:_SHOWN]} ..." for error in errors),
        fix="correct these fields between the '---' lines at its top",
        code=ExitCode.FOUND,
    )
