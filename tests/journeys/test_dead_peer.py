"""One process of a distributed run is killed: the other one says so and ends with the code of its error."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from tests.cli.test_distill import PLUGIN
from tests.conftest import Cli, InstallPlugin
from tests.toy_project import RECIPE, make_project


@pytest.mark.parametrize("killed", [0, 1])
def test_the_survivor_of_a_killed_process_ends_with_a_message(
    killed: int, kdkit_cli: Cli, install_plugin: InstallPlugin, tmp_path: Path
) -> None:
    install_plugin("kdkit-toy", PLUGIN)
    kdkit_cli.folder.rmdir()
    make_project(kdkit_cli.folder, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri"))
    long = RECIPE.replace("steps: 40", "steps: 20000")
    (kdkit_cli.folder / "toy.yaml").write_text(long, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    kdkit_cli.environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # as of torchrun
    said, ranks = [tmp_path / f"rank-{rank}" for rank in range(2)], []
    for rank, path in enumerate(said):
        with path.open("w") as err:
            variables = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(kdkit_cli.start("distill", "--cpu", env=variables, out=err, err=err))
    end = time.monotonic() + 300
    while "distill: " not in said[0].read_text() and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(ranks[killed].pid, signal.SIGKILL)
    code, text = ranks[1 - killed].wait(60), said[1 - killed].read_text()
    assert code == ExitCode.MISSING, text[-3000:]
    assert "error[KD-DIST-041]: another process of this run has ended" in text
    assert not [words for words in ("Traceback", "terminate called", "report it") if words in text]
    assert ranks[killed].wait(60) == -signal.SIGKILL
