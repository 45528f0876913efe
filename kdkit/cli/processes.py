"""``--gpus N``: the same command in N processes of this machine, as ``torchrun -m kdkit`` starts it."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

import typer

from kdkit.cli import streams
from kdkit.core.base.errors import ExitCode, KdkitError

OPTION = "--gpus"


def run_in_processes(count: int, *, cpu: bool, on_cpu: str = "--cpu", further: Sequence[str] = ()) -> None:
    """Run this process's command in ``count`` processes and wait for them; the first one prints.

    If one fails, torch's launcher ends the others, and this process exits with the code of the first that failed.

    Args:
        cpu: the processes use the CPU.
        on_cpu: the command's option for that, for messages.
        further: words to add to the command.

    Raises:
        KeyboardInterrupt: Ctrl-C, or another signal that ends the run.
        KdkitError: fewer GPUs; a launcher's own processes; a process that was killed.
    """
    if "WORLD_SIZE" in os.environ:
        raise KdkitError(
            "KD-DIST-400",
            f"a launcher has started {os.environ['WORLD_SIZE']} processes already",
            where=OPTION,
            fix=f"remove {OPTION}, or run the command without torchrun or accelerate",
            code=ExitCode.USAGE,
        )
    if not cpu:
        _require_gpus(count, on_cpu)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes say why they end
    os.environ["PYTHONSAFEPATH"] = "1"  # as for the command itself: no file of the current folder is a library
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.5,
    )
    streams.lend_stdout()
    try:
        elastic_launch(config, sys.executable)("-m", "kdkit", *without_option(sys.argv[1:]), *further)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise _killed(rank, -failure.exitcode) from None
        raise typer.Exit(failure.exitcode) from None
    except SignalException as signal:  # torch ends the processes, which write a checkpoint
        raise KeyboardInterrupt(int(signal.sigval)) from None


def without_option(words: Sequence[str]) -> list[str]:
    """The words of a command without ``--gpus N``.

    Example:
        >>> without_option(["distill", "--gpus", "2", "--cpu"])
        ['distill', '--cpu']
    """
    left, skip = list[str](), False
    for word in words:
        if not skip and word != OPTION and not word.startswith(f"{OPTION}="):
            left.append(word)
        skip = word == OPTION
    return left


def _require_gpus(count: int, on_cpu: str) -> None:
    import torch

    here = torch.cuda.device_count()
    if here < count:
        raise KdkitError(
            "KD-DIST-401",
            f"{count} GPUs are asked for, and torch finds {here}",
            where=OPTION,
            fix=f"choose {OPTION} 1 to {here}"
            if here
            else f"remove {OPTION}; with {on_cpu} it starts processes on the CPU",
            code=ExitCode.MISSING,
        )


def _killed(rank: int, number: int) -> KdkitError:
    return KdkitError(
        "KD-DIST-402",
        f"process {rank} of this run was ended by signal {number}",
        why="signal 9 usually means that the machine had no memory left" if number == 9 else "",
        fix="the same command continues from what was saved",
        code=ExitCode.MISSING,
    )
