"""``kdkit features``: ``extract``, ``import``, ``export``, ``verify``, ``push``, ``pull``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console
from kdkit.cli.processes import run_in_processes
from kdkit.core.base.errors import ExitCode, KdkitError

Repository = Annotated[str, typer.Argument(metavar="ORG/NAME", help="A data set repository.")]
Teachers = Annotated[list[str] | None, typer.Argument(metavar="[TEACHER]...", help="By default all.")]


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    group = typer.Typer(help="The feature store: signals of the teachers for the samples.")
    group.callback(invoke_without_command=True)(show)
    group.command("extract")(extract)
    group.command("import")(import_)
    group.command("export")(export)
    group.command("verify")(verify)
    group.command("push")(push)
    group.command("pull")(pull)
    app.add_typer(group, name="features")


def show(context: typer.Context, folder: console.ProjectOption = None, json: console.JsonOption = False) -> None:
    """Show the feature store: teachers, signals, samples with features, size."""
    if context.invoked_subcommand is None:
        console.emit(console.project(folder).features(), json=json)


def extract(
    teachers: Teachers = None,
    folder: console.ProjectOption = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ... (default: cpu; with --gpus, the GPU of each process).")
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Extract in N processes, one per GPU; with --device cpu, N on the CPU."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per forward pass.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode and preprocess (default: one per processor).")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(metavar="GB", min=0.001, help="Memory for the models of one pass (default: 80 % of the free)."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run the --gpus processes as tasks of a Ray cluster: auto, local ..."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure a few samples; store nothing.")] = False,
    plan_for: Annotated[
        str | None,
        typer.Option(metavar="NxDEVICE", help="With --dry-run: forecast for e.g. 8xH100, or 4 (of this machine's)."),
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Extract missing features. It can be interrupted; the same command resumes.

    The same command may run several times at once, on this machine and on others that share the folder: the processes
    share the work.
    """
    if plan_for is not None and not dry_run:
        raise KdkitError("KD-FEAT-530", "--plan-for extracts nothing", where="--plan-for", fix="add --dry-run")
    if dry_run:
        plan = console.project(folder).plan_extraction(
            teachers or (), device=device, batch_size=batch_size, plan_for=plan_for
        )
        console.emit(plan, json=json)
        return
    console.resumable()
    if gpus is not None and ray is None:
        if device not in (None, "cpu", "cuda"):
            raise KdkitError(
                "KD-FEAT-506",
                f"--gpus {gpus} starts one process per GPU, and --device {device} names one device for all",
                where="--device",
                fix="remove --device, or use --device cpu",
                code=ExitCode.USAGE,
            )
        further = () if device else ("--device", "cuda")
        run_in_processes(gpus, cpu=device == "cpu", on_cpu="--device cpu", further=further)
        return
    done = console.project(folder).extract(
        teachers or (),
        device=device,
        gpus=gpus,
        batch_size=batch_size,
        workers=workers,
        memory=memory,
        ray=ray,
    )
    if console.first_process():
        console.emit(done, json=json)


def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new teacher, or one of the catalogue.")],
    source: Annotated[
        list[Path],
        typer.Option("--from", metavar="PATH", help="A file or folder of features; may be repeated."),
    ],
    ids: Annotated[Path | None, typer.Option(metavar="FILE", help="Ids of the rows of a .npy file.")] = None,
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="Text vectors beside a .npy file.")] = None,
    key: Annotated[str | None, typer.Option(metavar="NAME", help="One of the teachers of an MMKD-CLIP folder.")] = None,
    projected: Annotated[
        bool | None, typer.Option("--projected/--no-projected", help="Its features in MMKD-CLIP's common space.")
    ] = None,
    id_format: Annotated[
        str | None, typer.Option(metavar="F", help="Ids of an HDF5 file's rows (default: {file}_{x}_{y}).")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Vectors of prompts, which are their ids; for trust.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model that computed the features.")] = None,
    revision: Annotated[str | None, typer.Option(metavar="R", help="Its version or commit.")] = None,
    preprocessing: Annotated[str | None, typer.Option(metavar="TEXT", help="How images were prepared for it.")] = None,
    license: Annotated[str | None, typer.Option(help="The model's license, unless the catalogue knows it.")] = None,
    domains: Annotated[str | None, typer.Option(metavar="A,B", help="The only domains that it may teach.")] = None,
    float32: Annotated[
        bool | None, typer.Option("--float32/--float16", help="How numbers are stored (default: float16).")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another import of this name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, check and match only; write nothing.")] = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Make a teacher from features that exist already: its rows and the samples are matched by id.

    An import of a name that was imported before keeps what you leave out: origin, license, domains, precision.
    """
    done = console.project(folder).import_features(
        name,
        source,
        ids=ids,
        text=text,
        key=key,
        projected=projected,
        id_format=id_format,
        prompts=prompts,
        model=model,
        revision=revision,
        preprocessing=preprocessing,
        license=license,
        domains=None if domains is None else [part.strip() for part in domains.split(",") if part.strip()],
        float32=float32,
        replace=replace,
        dry_run=dry_run,
    )
    console.emit(done, json=json)


def export(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER")],
    to: Annotated[Path, typer.Option(metavar="PATH", help="A .npz or .parquet file, or a folder for .npy files.")],
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Write ids and vectors of a teacher's column to files of other programs."""
    console.emit(console.project(folder).export_features(teacher, to), json=json)


def verify(
    teachers: Teachers = None,
    folder: console.ProjectOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Structure and ids only, no checksums.")] = False,
    json: console.JsonOption = False,
) -> None:
    """Compare every block with its checksum. Exits with 1 if one is damaged."""
    found = console.project(folder).verify_features(teachers or (), quick=quick)
    console.emit(found, json=json)
    if not found.ok:
        raise typer.Exit(ExitCode.FOUND)


def push(
    repository: Repository,
    teachers: Teachers = None,
    public: Annotated[bool, typer.Option("--public", help="Visible to everybody (default: private).")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Allow removing columns of other teachers from the repository.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare only; send nothing.")] = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Publish columns as a data set: no images, captions, labels or sample ids."""
    project = console.project(folder)
    if not dry_run:
        console.resumable()
    done = project.push_features(repository, teachers or (), public=public, delete=delete, dry_run=dry_run)
    console.emit(done, json=json)


def pull(
    repository: Repository,
    teachers: Teachers = None,
    revision: Annotated[str, typer.Option(metavar="R", help="Branch, tag or commit.")] = "main",
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Add published columns to the store, verified; features that are there stay."""
    console.emit(console.project(folder).pull_features(repository, teachers or (), revision=revision), json=json)
