"""``kdkit distill`` and its kin: make the first version of the student, or teach it what is new."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console
from kdkit.cli.processes import run_in_processes
from kdkit.core.base.errors import ExitCode, KdkitError


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("import-student")(import_student)
    app.command("pretrain")(pretrain)
    app.command("distill")(distill)


def import_student(
    seed: Annotated[int, typer.Option(help="Of parts that 'init' does not decide.")] = 0,
    device: Annotated[str, typer.Option(help="Of the student during the evaluation, e.g. cuda.")] = "cpu",
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Make the weights that 'init' of the student names version v0, without training; increments are compared with it.

    It is evaluated on the calibration split. A project that has a version, or a student with random weights, is
    refused.
    """
    console.emit(console.project(folder).import_student(seed=seed, device=device), json=json)


def pretrain(
    recipe: Annotated[str, typer.Option(metavar="NAME|FILE", help="A recipe that reads no teacher.")] = "clip",
    seed: Annotated[int, typer.Option(help="The same seed gives the same student.")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Discard an interrupted run of this plan.")] = False,
    precision: Annotated[str, typer.Option(help="no (float32) or bf16.")] = "no",
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is a GPU.")] = False,
    checkpoint_every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="Seconds between checkpoints.")
    ] = 60.0,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Send the loss curve to tensorboard, trackio, wandb or mlflow; repeatable."),
    ] = None,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Train a new student on image-text pairs alone, by default with CLIP; 'kdkit distill --continue' distills into it.

    The result is a version ('kdkit versions'). 'kdkit distill --dry-run --recipe clip' prints the plan. An interrupted
    run resumes with the same command.
    """
    project = console.project(folder)
    if not restart:
        console.resumable()
    done = project.pretrain(
        recipe=recipe,
        seed=seed,
        restart=restart,
        precision=precision,
        cpu=cpu,
        checkpoint_every=checkpoint_every,
        track=track or (),
    )
    if done is not None:
        console.emit(done, json=json)


def distill(
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Teach the current version what is new since it was made.")
    ] = False,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Default: the recipe of registry.yaml.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same student.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan with time, disk and memory; train nothing.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Discard an interrupted run of this plan.")] = False,
    precision: Annotated[str, typer.Option(help="no (float32) or bf16.")] = "no",
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is a GPU.")] = False,
    gpus: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Train in N processes, one per GPU; with --cpu, N on the CPU."),
    ] = None,
    shard: Annotated[
        bool, typer.Option("--shard", help="Shard weights and optimizer over the processes (FSDP2), to save memory.")
    ] = False,
    replicas: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="With --shard: N groups of processes that have all weights each (HSDP)."),
    ] = 1,
    checkpoint_every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="Seconds between checkpoints.")
    ] = 60.0,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Send the loss curve to tensorboard, trackio, wandb or mlflow; repeatable."),
    ] = None,
    continued: Annotated[
        bool,
        typer.Option(
            "--continue", help="Train the current version with this recipe: all samples, its own length and rate."
        ),
    ] = False,
    stage: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help="Train this stage of the recipe alone.")
    ] = None,
    plan_for: Annotated[
        str | None,
        typer.Option(metavar="NxDEVICE", help="With --dry-run: forecast for e.g. 8xH100, or 4 (of this machine's)."),
    ] = None,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Distill the trusted teachers into the student; with --incremental, only what is new.

    The result is a version ('kdkit versions'). If an increment loses more than the guard tolerates on a domain, its
    version is refused and the command exits with 1. An interrupted run resumes with the same command. The stages of a
    recipe run one after the other.
    """
    if plan_for is not None and not dry_run:
        raise KdkitError("KD-DIST-533", "--plan-for trains nothing", where="--plan-for", fix="add --dry-run")
    if not restart:
        console.resumable()
    if gpus is not None and not dry_run:
        run_in_processes(gpus, cpu=cpu)
        return
    project = console.project(folder)
    if dry_run:
        plan = project.plan(
            incremental=incremental,
            recipe=recipe,
            seed=seed,
            precision=precision,
            cpu=cpu,
            shard=shard,
            replicas=replicas,
            gpus=gpus,
            continued=continued,
            stage=stage,
            plan_for=plan_for,
        )
        if console.first_process():
            console.emit(plan, json=json)
        return
    done = project.distill(
        incremental=incremental,
        recipe=recipe,
        seed=seed,
        restart=restart,
        precision=precision,
        cpu=cpu,
        shard=shard,
        replicas=replicas,
        checkpoint_every=checkpoint_every,
        track=track or (),
        continued=continued,
        stage=stage,
    )
    if done is None:  # not the first process of a distributed run
        return
    console.emit(done, json=json)
    if not done.promoted:
        raise typer.Exit(ExitCode.FOUND)
