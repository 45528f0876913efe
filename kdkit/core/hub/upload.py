"""Carry out a plan: send what is missing, then one commit."""

from __future__ import annotations

from dataclasses import dataclass

from kdkit.core.contracts import Reporter
from kdkit.core.hub.connection import Hub
from kdkit.core.hub.plan import UploadPlan


@dataclass(frozen=True)
class Uploaded:
    """A push that is done, and checked.

    Attributes:
        url: the repository's page; of the pull request where one was opened.
        commit: 40 hex digits; the parent's where nothing had to change.
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
    """Carry out ``plan`` in one commit; until then nothing of it can be seen, and run again it goes on where it ended.

    Args:
        hub: with a token that may write.
        plan: of :func:`plan_upload`, for the same endpoint.
        private: what the repository is to be; one that exists must be so already.
        pull_request: open a pull request instead of committing to the branch.
        message: of the commit, one line; more lines become its description.
        tag: names the commit afterwards.
        reporter: where progress is told.

    Raises:
        KdkitError: no token or permission, wrong visibility, the tag names another commit, local files changed, a card
            that the Hub refuses, no room (exit 4); somebody else pushed since the plan (exit 1, saying what they
            changed); the Hub cannot be reached (exit 3).
    """
    raise NotImplementedError
