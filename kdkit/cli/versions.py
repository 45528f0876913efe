"""``kdkit versions`` and ``kdkit rollback``: the student's history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.project.versions import Version, Versions

versions_app = typer.Typer(invoke_without_command=True, help="List the versions of the student.")


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.add_typer(versions_app, name="versions")
    app.command("rollback")(rollback)


@versions_app.callback()
def versions(ctx: typer.Context, folder: console.ProjectOption = None, as_json: console.JsonOption = False) -> None:
    """List the versions of the student, and the candidates that the guard kept aside."""
    if ctx.invoked_subcommand is None:
        from kdkit.core.project.versions import Versions

        rows = _rows(Versions(console.project(folder)))
        console.emit(rows, json=as_json, text=lambda: _text(rows))


@versions_app.command("show")
def show(
    name: Annotated[str | None, typer.Argument(help="Default: the current version.")] = None,
    folder: console.ProjectOption = None,
) -> None:
    """Print the lineage of a version as JSON: teachers, data, recipe, trust, retention, environment."""
    from kdkit.core.project.versions import Versions

    version = Versions(console.project(folder)).get(name)
    console.emit(version.lineage.to_json(), json=True, text="")


@versions_app.command("promote")
def promote(
    name: Annotated[str, typer.Argument(help="A candidate that was kept aside.")],
    folder: console.ProjectOption = None,
) -> None:
    """Make a candidate current in spite of what it lost."""
    from kdkit.core.project.versions import Versions

    project = console.project(folder)
    with project.exclusive("kdkit versions promote"):
        Versions(project).promote(name)
    console.say(f"{name} is current now")


def rollback(
    name: Annotated[str | None, typer.Argument(help="Default: the parent of the current version.")] = None,
    folder: console.ProjectOption = None,
) -> None:
    """Make an earlier version current again; nothing is deleted."""
    from kdkit.core.project.versions import Versions

    project = console.project(folder)
    with project.exclusive("kdkit rollback"):
        version = Versions(project).rollback(name)
    console.say(f"{version.name} is current now")


def _rows(versions: Versions) -> list[dict[str, Any]]:
    current = versions.current()
    names = sorted([*versions.names(), *versions.candidates()], key=lambda name: int(name[1:]))
    return [_row(versions.get(name), current) for name in names]


def _row(version: Version, current: Version | None) -> dict[str, Any]:
    lineage = version.lineage
    status = "refused" if version.refused else "promoted"
    return {
        "version": version.name,
        "status": "current" if current and current.name == version.name else status,
        "parent": lineage.parent,
        "origin": vars(version.earlier.origin) if version.earlier and version.earlier.origin else None,
        "created": lineage.created,
        "recipe": lineage.recipe.name,
        "teachers": [teacher.name for teacher in lineage.teachers],
        "corrected": lineage.correction and lineage.correction.corrected,
        "accuracy": lineage.scores.mean["accuracy"],
        "worst_change": lineage.retention.worst.points if lineage.retention and lineage.retention.worst else None,
        "seconds": lineage.training.seconds,
    }


def _text(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no version yet: 'kdkit distill' makes the first one"
    headers = ("version", "status", "parent", "recipe", "teachers", "accuracy", "worst change", "seconds")
    cells = [
        (
            row["version"],
            row["status"],
            f"from {row['origin']['repository']}" if row["origin"] else row["parent"] or "-",
            row["recipe"],
            ", ".join(row["teachers"]) or "-",
            f"{100 * row['accuracy']:.1f} %",
            "-" if row["worst_change"] is None else f"{row['worst_change']:+.1f} points",
            f"{row['seconds']:.0f}",
        )
        for row in rows
    ]
    told = {row["version"]: row["corrected"] for row in rows if row["corrected"] is not None}
    corrected = "".join(
        f"\n{name}: {count} answers were corrected while it was trained" for name, count in told.items()
    )
    return console.table(headers, cells, "lllllrrr") + (
        "\n\nAccuracy is the mean over domains on the calibration split; the worst change is that of the old domain "
        f"that lost most against the parent.{corrected}"
    )
