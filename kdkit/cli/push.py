"""``kdkit push``: a version becomes a repository on the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.sharing.hub import UploadPlan
    from kdkit.core.sharing.release.push import Pushed

SHOWN = 30
"""Files of a plan that are listed one by one."""


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("push")(push)


def push(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The model repository; made if there is none.")],
    version: Annotated[str | None, typer.Option("--version", help="Default: the current version.")] = None,
    public: Annotated[bool, typer.Option("--public", help="For everybody to see; otherwise it is private.")] = False,
    pull_request: Annotated[bool, typer.Option("--pr", help="Open a pull request.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, send nothing.")] = False,
    license: Annotated[  # the option's name
        str | None, typer.Option("--license", help="State a license, at least as strict as the teachers'.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Whole weights of a student with adapters.")] = False,
    refused: Annotated[bool, typer.Option("--refused", help="Even if the promotion guard refused it.")] = False,
    folder: console.ProjectOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Publish a version of the student on the Hugging Face Hub, with its card and its whole lineage.

    Before anything is sent, stock open_clip (and transformers, for plain CLIP) must load it and give its features;
    transformers (and PEFT, for adapters) must give a clinkd student's answers.
    """
    from kdkit.core.sharing.release.push import push_student

    if not dry_run:
        console.resumable()
    done = push_student(
        console.project(folder),
        repo,
        version=version,
        public=public,
        pull_request=pull_request,
        dry_run=dry_run,
        merged=merge,
        license=license,
        refused=refused,
        reporter=console.reporter(),
    )
    console.emit(done.to_json(), json=as_json, text=lambda: _text(done, public=public))


def _text(done: Pushed, *, public: bool) -> str:
    lines = [*_plan(done.plan, "public" if public else "private"), f"license: {done.license}"]
    if done.uploaded is None:
        return "\n".join([*lines, "nothing was sent (--dry-run)"])
    it = done.uploaded
    state = "is there already, unchanged" if not it.changed else "proposed" if it.pull_request else "pushed"
    at = f" (tag {it.tag})" if it.tag else ""
    lines += [f"{done.version} {state}: {it.url}", f"commit {it.commit[:12]}{at}"]
    for library, code in done.lines.items():
        lines += [
            "",
            f"{'Once it is merged, with' if it.pull_request else 'With'} {library}:",
            "",
            *(f"  {line}".rstrip() for line in code.splitlines()),
        ]
    return "\n".join(lines)


def _plan(plan: UploadPlan, visibility: str) -> list[str]:
    """One line a file, then the sum."""
    marks = [*(("+", f) for f in plan.adds), *(("~", f) for f in plan.updates)]
    rows = [f"  {mark} {file.path}  {console.size(file.size)}" for mark, file in marks]
    rows += [f"  - {path}" for path in plan.deletes]
    more = [f"  and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    where = f"{plan.repo} ({plan.visibility or f'new, {visibility}'})"
    total = (
        f"{where}: {len(plan.adds)} to add, {len(plan.updates)} to update, {len(plan.deletes)} to delete, "
        f"{len(plan.unchanged)} unchanged; {console.size(plan.size)} to send at most"
    )
    return [total, *rows[:SHOWN], *more]
