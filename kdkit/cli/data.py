"""``kdkit data check``, ``kdkit data label`` and ``kdkit data shards``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    group = typer.Typer(help="The samples of the project.", no_args_is_help=True)
    group.command("check")(check)
    group.command("label")(label)
    group.command("shards")(shards)
    app.add_typer(group, name="data")


def check(
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Unreadable images are no problem.")
    ] = False,
    near_duplicates: Annotated[
        int,
        typer.Option(
            min=-1,
            max=255,
            help="Largest distance of pictures of different splits that count as copies, in bits of 255; -1: off.",
        ),
    ] = 24,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures and histograms to this file.", dir_okay=False)
    ] = None,
) -> None:
    """Count domains and classes; find what is unreadable, skipped, duplicated, leaked or contradictory.

    Exits with 1 if there is a problem.
    """
    report = console.project(folder).check_data(
        skip_unreadable=skip_unreadable, near_duplicates=near_duplicates, html=html
    )
    console.emit(report, json=json)
    if report.problems:
        raise typer.Exit(ExitCode.FOUND)


def label(
    teacher: Annotated[str, typer.Argument(help="Of the registry; one with image and text features.")],
    classes: Annotated[
        str, typer.Option(help="Names, as in 'normal,mass', or a YAML file: class -> prompts.", metavar="NAMES|FILE")
    ],
    to: Annotated[
        Path | None, typer.Option(help="The CSV file; by default labels/TEACHER.csv.", dir_okay=False)
    ] = None,
    threshold: Annotated[float, typer.Option(help="Below this confidence a sample gets no label, 0 to 1.")] = 0.8,
    domains: Annotated[
        list[str] | None, typer.Option("--domain", metavar="DOMAIN", help="Only samples of it; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per forward pass.")] = 64,
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Let a teacher label the training samples by zero-shot classification, with its confidence.

    The option teacher_labels of a data entry uses the file for training: as domains or captions. Trust and evaluation
    never do. An interrupted command resumes when it is repeated.
    """
    project = console.project(folder)
    console.resumable()
    done = project.label_data(
        teacher,
        classes,
        to=to,
        threshold=threshold,
        domains=domains or (),
        device=device,
        batch_size=batch_size,
    )
    console.emit(done, json=json)


def shards(
    to: Annotated[
        Path, typer.Option(help="The folder of the shards: absent, empty, or begun before.", file_okay=False)
    ],
    entry: Annotated[
        str, typer.Argument(help="Path or number (from 1) of the data entry; not needed for the only one.")
    ] = "",
    splits: Annotated[
        list[str] | None, typer.Option("--split", metavar="SPLIT", help="Only samples of it; may be repeated.")
    ] = None,
    rows_per_shard: Annotated[int, typer.Option(min=1, help="A shard has at most so many samples ...")] = 10_000,
    shard_mb: Annotated[int, typer.Option(min=1, help="... and megabytes; a sample that has more gets its own.")] = 500,
    shuffle: Annotated[
        int | None, typer.Option(metavar="SEED", help="A fixed random order; by default that of the source.")
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="Write DICOM, slides and arrays as PNG of their pixels.")] = False,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out rows without an image file, and count them.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write the entry of the shards into registry.yaml, instead of this one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many rows and bytes; write nothing.")] = False,
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Write the samples of a data entry as WebDataset shards: tar files that the source webdataset reads.

    Parquet files behind a URL, such as data sets of the Hub, are streamed: images are never all on the disk. Image
    files keep their bytes, and training on the shards gives the same student. Every row is written or counted with the
    reason. An interrupted command continues when it is repeated.
    """
    project = console.project(folder)
    options: dict[str, Any] = {
        "entry": entry,
        "splits": splits or (),
        "rows_per_shard": rows_per_shard,
        "shard_mb": shard_mb,
        "shuffle": shuffle,
        "png": png,
        "skip_unreadable": skip_unreadable,
        "replace": replace,
    }
    if dry_run:
        console.emit(project.plan_shards(to, **options), json=json)
        return
    console.resumable()
    console.emit(project.shard_data(to, **options), json=json)
