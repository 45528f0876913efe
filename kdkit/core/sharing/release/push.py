"""``kdkit push``: publish a version as a release, in one commit on the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub, connect, hub_errors
from kdkit.core.base.result import Result, Section, code_lines, format_size
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.project.versions import Versions
from kdkit.core.sharing.hub import Uploaded, UploadPlan, plan_upload, upload
from kdkit.core.sharing.hub.edits import PublishedFiles, keep_card, keep_files
from kdkit.core.sharing.hub.permission import check_token
from kdkit.core.sharing.hub.remote import find_repository
from kdkit.core.sharing.release.conflicts import free_tag, record_there, require_successor, says_the_same
from kdkit.core.sharing.release.layout import CARD, README, RECORD, AdapterBase
from kdkit.core.sharing.release.release import Release, assemble_release, check_repository

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.versions import Version


SHOWN_FILES = 30
"""Files of a plan that are listed."""


@dataclass(frozen=True)
class Pushed(Result):
    """A push, or its plan.

    Attributes:
        lines: library -> verified code that loads it.
        warnings: about licenses.
        checks: library -> differences from the version, or why there is none; see the record.
        size: bytes of the release.
        uploaded: None after a dry run.
        public: visibility of a new repository.
    """

    version: str
    license: str
    lines: Mapping[str, str]
    warnings: tuple[str, ...]
    checks: Mapping[str, Mapping[str, Any]]
    size: int
    plan: UploadPlan
    uploaded: Uploaded | None
    public: bool

    @classmethod
    def of(cls, release: Release, plan: UploadPlan, uploaded: Uploaded | None, *, public: bool) -> Pushed:
        return cls(
            version=release.record.version,
            license=release.license.name,
            lines=release.lines,
            warnings=release.warnings,
            checks=release.record.checks,
            size=release.size,
            plan=plan,
            uploaded=uploaded,
            public=public,
        )

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        done = self.uploaded
        return {
            "repository": self.plan.repo,
            "version": self.version,
            "license": self.license,
            "warnings": list(self.warnings),
            "checks": {library: dict(check) for library, check in self.checks.items()},
            "size": self.size,
            "plan": self.plan.to_json(),
            "load": dict(self.lines),
            "pushed": None
            if done is None
            else {
                "url": done.url,
                "commit": done.commit,
                "changed": done.changed,
                "created": done.created,
                "pull_request": done.pull_request,
                "tag": done.tag,
            },
        }

    def sections(self) -> list[Section]:
        """The planned changes, the commit, and the code that loads it."""
        visibility = self.plan.visibility or ("new, public" if self.public else "new, private")
        parts: list[Section] = [*_plan_lines(self.plan, visibility), f"license: {self.license}"]
        done = self.uploaded
        if done is None:
            return [*parts, "nothing was sent"]
        state = "is published already, unchanged" if not done.changed else "proposed" if done.pull_request else "pushed"
        tag = f" (tag {done.tag})" if done.tag else ""
        parts += [f"{self.version} {state}: {done.url}", f"commit {done.commit[:12]}{tag}"]
        when = "Once it is merged, with" if done.pull_request else "With"
        return parts + [line for library, code in self.lines.items() for line in code_lines(f"{when} {library}:", code)]


def _plan_lines(plan: UploadPlan, visibility: str) -> list[str]:
    """The sums, then one line per file."""
    marks = [*(("+", f) for f in plan.adds), *(("~", f) for f in plan.updates)]
    rows = [f"  {mark} {file.path}  {format_size(file.size)}" for mark, file in marks]
    rows += [f"  - {path}" for path in plan.deletes]
    rows += [f"  = {path}  (of others, stays)" for path in plan.kept]
    more = [f"  and {len(rows) - SHOWN_FILES} more"] if len(rows) > SHOWN_FILES else []
    sums = (
        f"{plan.repo} ({visibility}): {len(plan.adds)} to add, {len(plan.updates)} to update, "
        f"{len(plan.deletes)} to delete, {len(plan.unchanged)} unchanged; at most {format_size(plan.size)} to send"
    )
    return [sums, *rows[:SHOWN_FILES], *more]


def push_student(
    project: Project,
    repo: str,
    *,
    version: str | None = None,
    public: bool = False,
    pull_request: bool = False,
    dry_run: bool = False,
    merged: bool = False,
    license: str | None = None,
    refused: bool = False,
    replace: bool = False,
    hub: Hub | None = None,
    reporter: Reporter | None = None,
) -> Pushed:
    """Publish a version of the student in the model repository ``repo``; private unless ``public``.

    The release is made and verified locally, then pushed in one commit. An interrupted push leaves nothing visible,
    and resumes when run again.

    Args:
        version: by default the current one.
        pull_request: open a pull request instead of committing to ``main``.
        dry_run: make and check the release, compare it with the repository, write nothing there.
        merged: publish whole weights where the student has adapters.
        license: of the owner's choice, at least as strict as the teachers' licenses.
        refused: push a version although the promotion guard refused it.
        replace: also replace what people edited in the repository, and write again what is published already.
        hub: by default :func:`kdkit.core.sharing.hub.connect`.
        reporter: receives progress.

    Raises:
        KdkitError: the version was refused; a license forbids it; as :func:`assemble_release`,
            :func:`kdkit.core.sharing.hub.plan_upload` and :func:`kdkit.core.sharing.hub.upload`.
    """
    hub, report = hub or connect(), reporter or Silent()
    check_repository(repo)
    chosen = Versions(project).get(version)
    _require_promoted(chosen, refused)
    if dry_run and hub.token is None:
        report.warn(f"without a token a private {repo} cannot be seen: {hub.how_to_log_in}")
    else:
        hub.require_token()
    _require_access(hub, repo, public=public, pull_request=pull_request)
    with project.exclusive("kdkit push"), project.room("release") as folder:
        at = hub.endpoint
        release = assemble_release(
            project, chosen, repo, folder, public=public, merged=merged, license=license, endpoint=at, reporter=report
        )
        for warning in release.warnings:
            report.warn(warning)
        if release.record.base is not None:
            look_for_base(hub, release.record.base, report)
        report.say(f"comparing with {repo}")
        with tempfile.TemporaryDirectory() as scratch:
            there = PublishedFiles(hub, repo, "model", Path(scratch))
            plan, tag = plan_push(project, release, there, pull_request=pull_request, replace=replace, reporter=report)
        if dry_run:
            return Pushed.of(release, plan, None, public=public)
        private, message = not public, _message(release)
        uploaded = upload(
            hub, plan, private=private, pull_request=pull_request, message=message, tag=tag, reporter=report
        )
        return Pushed.of(release, plan, uploaded, public=public)


def plan_push(
    project: Project,
    release: Release,
    there: PublishedFiles,
    *,
    pull_request: bool,
    replace: bool,
    reporter: Reporter,
) -> tuple[UploadPlan, str | None]:
    """The plan, which keeps what people edited in the repository unless ``replace``, and the tag.

    Raises:
        KdkitError: as :func:`require_successor` and :func:`keep_files`.
    """
    record, versions = release.record, Versions(project)
    before = None
    if not (pull_request and RECORD not in there.remote):
        before = record_there(there)
        own = [versions.get(name).lineage for name in (*versions.names(), *versions.candidates())]
        if not pull_request:
            require_successor(there, before, record, [*record.history, *own], reporter)
    if not replace:
        keep_card(there, release.folder, README, CARD, reporter)
    plan = plan_upload(there.hub, there.at.name, "model", release.folder, seen=there.seen)
    if not replace and not (pull_request and before is None):
        plan = keep_files(plan, there, before.files if before else {}, (README, RECORD), "--replace", reporter)
        if before is not None and says_the_same(record, before) and not plan.adds:
            plan = plan.without_changes()
    return plan, None if pull_request else free_tag(there.hub, plan, record.version)


def _require_promoted(version: Version, refused: bool) -> None:
    """A version that the guard refused needs ``refused=True``."""
    guard = version.lineage.guard
    if refused or not (version.refused or (guard is not None and not guard.promoted)):
        return
    lost = ", ".join(guard.failed) if guard and guard.failed else "the mean over domains"
    raise KdkitError(
        "KD-REL-022",
        f"the promotion guard refused {version.name}",
        why=f"it lost more than the guard tolerates: {lost}",
        fix="push another version, or push this one with --refused (its card mentions the refusal)",
        code=ExitCode.FOUND,
    )


def _require_access(hub: Hub, repo: str, *, public: bool, pull_request: bool) -> None:
    """Check write access and visibility before assembling; kdkit never changes the visibility of a repository."""
    with hub_errors(repo, hub):
        there = find_repository(hub, repo, "model", "main")
        if hub.token is not None:
            check_token(hub, repo, "model", there, pull_request=pull_request)
    if there is None or there.private != public:
        return
    raise KdkitError(
        "KD-REL-023",
        f"{repo} is {'private' if public else 'public'}, and this is a {'public' if public else 'private'} push",
        where=hub.url(repo),
        why="a push does not change who can see a repository" if public else "everybody would see the student",
        fix="leave --public out, or change it in its settings first"
        if public
        else "add --public, or choose another name",
        code=ExitCode.DENIED,
    )


def look_for_base(hub: Hub, base: AdapterBase, reporter: Reporter) -> None:
    """Warn if the base of the adapters is not visible. Raises: KdkitError if its repository lacks the commit."""
    with hub_errors(f"{base.repository}@{base.commit}", hub):
        if find_repository(hub, base.repository, "model", base.commit) is None:
            reporter.warn(f"{base.repository}, the base of the adapters, is not visible at {hub.endpoint}")


def _message(release: Release) -> str:
    record = release.record
    teachers = ", ".join(teacher.name for teacher in record.lineage.teachers)
    return f"{record.version} of the student\n\nTaught by {teachers or 'no teacher'}. Pushed with kdkit {record.kdkit}."
