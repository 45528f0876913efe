"""Checks before a push sends the first byte: arguments, token, visibility, tag."""

from __future__ import annotations

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub.connection import Hub, Kind
from kdkit.core.base.hub.retry import with_retries
from kdkit.core.sharing.hub.client import request
from kdkit.core.sharing.hub.conflict import conflict_error
from kdkit.core.sharing.hub.plan import UploadPlan
from kdkit.core.sharing.hub.remote import Repository, find_repository


def check_arguments(hub: Hub, plan: UploadPlan, *, pull_request: bool, message: str, tag: str | None) -> None:
    """Checks without network. Raises: KdkitError."""
    if plan.endpoint != hub.endpoint:
        raise KdkitError("KD-HUB-027", f"this plan is for {plan.endpoint}", where=hub.endpoint, fix="plan again")
    if not message.strip():
        raise KdkitError("KD-HUB-028", "a commit needs a message", where=plan.repo, fix="give a message")
    if plan.parent is None and plan.revision != "main":
        raise KdkitError(
            "KD-HUB-029",
            "there is no such repository yet; the first push goes to 'main'",
            where=plan.repo,
            fix="push without a revision first",
        )
    if pull_request and (plan.revision != "main" or plan.parent is None):
        raise KdkitError(
            "KD-HUB-030",
            "a pull request is opened against the main branch of a repository that exists",
            where=f"{plan.repo}@{plan.revision}",
            fix="to continue an open one, push to its revision, refs/pr/N, without pull_request",
        )
    if tag and (pull_request or plan.revision.startswith("refs/pr/")):
        raise KdkitError(
            "KD-HUB-031",
            "the commit of a pull request is not tagged",
            where=plan.repo,
            why="merging makes another commit",
            fix="tag it after merging",
        )


def check_access(hub: Hub, plan: UploadPlan, *, private: bool, pull_request: bool, tag: str | None) -> bool:
    """Check at the Hub that the plan can be carried out.

    Returns: whether the repository must be made first.

    Raises:
        KdkitError: no token or permission; another visibility; somebody pushed or made the repository since; the tag
            names another commit.
    """
    there = find_repository(hub, plan.repo, plan.kind, plan.revision)
    if there is None and plan.parent is not None:
        raise KdkitError(
            "KD-HUB-032",
            "the repository has disappeared since the push was planned",
            where=plan.repo,
            fix="run the push again to make it anew",
            code=ExitCode.MISSING,
        )
    check_token(hub, plan.repo, plan.kind, there, pull_request=pull_request)
    if there is None:
        return True
    require_visibility(hub, plan, there, private)
    if there.commit != plan.parent:
        raise conflict_error(hub, plan, there, plan.parent)
    if tag:
        commit = tags_of(hub, plan).get(tag)
        if commit is not None and not (plan.empty and commit == plan.parent):
            raise tag_is_taken(hub, plan, tag, commit, done="nothing was pushed")
    return False


def check_token(hub: Hub, repo: str, kind: Kind, there: Repository | None, *, pull_request: bool) -> None:
    """Check that the token may push to ``repo``, or create it if ``there`` is None.

    Raises:
        KdkitError: no token, one that may only read, another's repository or namespace (exit 4).
    """
    account = hub.account
    if account.role == "read" and not pull_request:
        raise KdkitError(
            "KD-HUB-033",
            f"the token of '{account.name}' may only read",
            where=repo,
            fix=hub.how_to_log_in,
            code=ExitCode.DENIED,
        )
    if there is None:
        _may_create(hub, repo)
    elif not pull_request:
        # A Hub without this endpoint answers 404; the commit then fails instead.
        request(hub, "GET", f"/api/{kind}s/{repo}/auth-check/write", accept=(404,))


def tags_of(hub: Hub, plan: UploadPlan) -> dict[str, str]:
    """Tag -> commit."""
    refs = with_retries(lambda: hub.api.list_repo_refs(plan.repo, repo_type=plan.kind))
    return {tag.name: tag.target_commit for tag in refs.tags}


def tag_is_taken(hub: Hub, plan: UploadPlan, tag: str, commit: str, *, done: str) -> KdkitError:
    """The error for a tag that names another commit; ``done`` says what was pushed."""
    return KdkitError(
        "KD-HUB-034",
        f"tag '{tag}' already names another commit; {done}",
        where=plan.repo,
        why=f"it is at {commit[:12]}: {hub.url(plan.repo, plan.kind, tag)}",
        fix="choose another tag; tags are never moved",
        code=ExitCode.FOUND,
    )


def _may_create(hub: Hub, repo: str) -> None:
    namespace, account = repo.partition("/")[0], hub.account
    if namespace.lower() not in map(str.lower, (account.name, *account.organizations)):
        names = ", ".join((account.name, *account.organizations))
        raise KdkitError(
            "KD-HUB-035",
            f"'{account.name}' may not create repositories of '{namespace}'",
            where=repo,
            why=f"a token of '{account.name}' can write to: {names}",
            fix=f"push to one of them, or become a member of '{namespace}'",
            code=ExitCode.DENIED,
        )


def require_visibility(hub: Hub, plan: UploadPlan, there: Repository, private: bool) -> None:
    """Raises: KdkitError when the repository is public and the push private, or the other way round."""
    if there.private == private:
        return
    page = hub.url(plan.repo, plan.kind)
    if private:
        raise KdkitError(
            "KD-HUB-036",
            "this is a private push, and the repository is public",
            where=plan.repo,
            fix=f"push to another name, make {page} private in its settings, or push publicly",
            code=ExitCode.DENIED,
        )
    raise KdkitError(
        "KD-HUB-037",
        "this is a public push, and the repository is private",
        where=plan.repo,
        why="a push does not change who can see a repository",
        fix=f"push privately, or make {page} public in its settings first",
        code=ExitCode.DENIED,
    )
