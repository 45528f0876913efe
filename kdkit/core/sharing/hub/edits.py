"""What people changed in a repository since kdkit pushed to it: named in the plan of the next push, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.hub.connection import Hub, Kind
from kdkit.core.base.hub.errors import hub_errors
from kdkit.core.base.hub.retry import with_retries
from kdkit.core.contracts import Reporter
from kdkit.core.project.registry.lock import FileFact
from kdkit.core.sharing.hub.card_edits import keep_edits
from kdkit.core.sharing.hub.plan import UploadPlan, first_few
from kdkit.core.sharing.hub.remote import Repository, look_at


class PublishedFiles:
    """The small files of a repository at its newest commit, fetched when they are asked for."""

    def __init__(self, hub: Hub, repo: str, kind: Kind, scratch: Path) -> None:
        self.hub, self.where, self.scratch = hub, f"{repo}@main", scratch
        with hub_errors(self.where, hub, page=hub.url(repo, kind)):
            self.seen = look_at(hub, repo, kind, "main")
        found, self.remote = self.seen
        self.at = found or Repository(repo, kind, "", private=True)

    def fetch(self, path: str) -> Path | None:
        """The file; None where the repository has none of this name."""
        if path not in self.remote:
            return None
        it = self.at
        with hub_errors(self.where, self.hub):
            return Path(
                with_retries(
                    lambda: self.hub.api.hf_hub_download(
                        it.name, path, repo_type=it.kind, revision=it.commit, local_dir=self.scratch
                    )
                )
            )

    def text(self, path: str) -> str:
        """The file's text; empty where there is none."""
        found = self.fetch(path)
        return "" if found is None else found.read_text(encoding="utf-8", errors="replace")

    def differs(self, path: str, fact: FileFact) -> bool:
        """Whether the file has another content than ``fact``."""
        file = self.remote[path]
        if file.size != fact.size or file.sha256:
            return (file.size, file.sha256) != (fact.size, fact.sha256)
        found = self.fetch(path)
        return found is None or sha256_of(found) != fact.sha256


def keep_card(there: PublishedFiles, folder: Path, card: str, computed: str, reporter: Reporter) -> bool:
    """Carry what people edited in the card on the Hub over to the new one.

    Args:
        folder: of the push.
        card: the card's path; ``computed``: the path of its copy that is as kdkit computed it.

    Returns:
        Whether it was edited.
    """
    theirs, before = there.text(card), there.text(computed)
    if not theirs or theirs == before:
        return False
    kept = keep_edits(before, (folder / computed).read_text(encoding="utf-8"), theirs)
    (folder / card).write_text(kept.text, encoding="utf-8")
    for note in kept.notes:
        reporter.warn(f"{card} was edited on the Hub: {note}")
    return True


def keep_files(
    plan: UploadPlan,
    there: PublishedFiles,
    pushed: Mapping[str, FileFact],
    own: tuple[str, ...],
    option: str,
    reporter: Reporter,
) -> UploadPlan:
    """The plan without what would delete files that people added.

    Args:
        pushed: path -> what the last push wrote there.
        own: paths that every push writes, and that are not in ``pushed``.
        option: of the command, which replaces them nevertheless.

    Raises:
        KdkitError: exit code 1: this push would overwrite a file that somebody added or changed.
    """
    deleted = [path for path in plan.deletes if path not in own and _is_theirs(path, there, pushed)]
    updated = [file.path for file in plan.updates if file.path not in own and _is_theirs(file.path, there, pushed)]
    if updated:
        raise KdkitError(
            "KD-HUB-042",
            f"{first_few(updated)} in {plan.repo} would be overwritten; nothing was pushed",
            where=there.hub.url(plan.repo, plan.kind),
            why="somebody added or changed it on the Hub since the last push",
            fix=f"take it over or remove it there, or replace it: {option}",
            code=ExitCode.FOUND,
        )
    if deleted:
        reporter.warn(f"{first_few(deleted)} in {plan.repo} stays: no push wrote it as it is; {option} deletes it")
    return replace(plan, deletes=tuple(path for path in plan.deletes if path not in deleted), kept=tuple(deleted))


def _is_theirs(path: str, there: PublishedFiles, pushed: Mapping[str, FileFact]) -> bool:
    return path not in pushed or there.differs(path, pushed[path])
