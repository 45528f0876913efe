"""The files of ``examples/cluster``: they parse, their options exist, and the Slurm script saves before it requeues."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from torch.distributed.run import get_args_parser
from typer.main import get_command

from kdkit.cli.main import app

CLUSTER = Path(__file__).parents[1] / "examples" / "cluster"
FILES = ("kubernetes.yaml", "skypilot.yaml", "slurm.sh")
KDKIT: Any = get_command(app)
VARIABLES = {"$SLURM_JOB_NUM_NODES": "2", "$SLURM_GPUS_ON_NODE": "8", "$SKYPILOT_NUM_NODES": "2"}
VARIABLES |= {"$SKYPILOT_NUM_GPUS_PER_NODE": "8", "$SKYPILOT_NODE_RANK": "0", "$(JOB_COMPLETION_INDEX)": "0"}


def pods() -> tuple[dict[str, Any], dict[str, Any]]:
    service, job = YAML(typ="safe").load_all((CLUSTER / "kubernetes.yaml").read_text(encoding="utf-8"))
    return service, job


def skypilot() -> dict[str, Any]:
    task: dict[str, Any] = YAML(typ="safe").load((CLUSTER / "skypilot.yaml").read_text(encoding="utf-8"))
    return task


def shell_commands(text: str) -> list[list[str]]:
    """The words of lines that start kdkit, torchrun or a function of the script that does."""
    lines = text.replace("\\\n", " ").splitlines()
    starts = re.compile(r"^\s*(?:srun |exec )?(torchrun|kdkit|on_all_machines)\s.*")
    found = []
    for line in lines:
        if starts.match(line) and "() {" not in line:
            words = [VARIABLES.get(word, word) for word in shlex.split(line.split("||")[0].rstrip(" &"))]
            found.append([word for word in words if word not in ("srun", "exec")])
    return found


def commands(file: str) -> list[list[str]]:
    if file == "kubernetes.yaml":
        spec = pods()[1]["spec"]["template"]["spec"]
        containers = [*spec["initContainers"], *spec["containers"]]
        return [[VARIABLES.get(w, w) for w in (*c["command"], *c.get("args", ()))] for c in containers]
    text = (CLUSTER / file).read_text(encoding="utf-8")
    return shell_commands(skypilot()["run"] if file.endswith(".yaml") else text)


def check_kdkit(words: list[str]) -> str:
    """Parse as the command does, without running it; its name."""
    command, name = KDKIT, []
    while hasattr(command, "commands"):
        name.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    command.make_context("kdkit", list(words), resilient_parsing=False)
    return " ".join(name)


@pytest.mark.parametrize("file", FILES)
def test_every_command_has_these_options(file: str) -> None:
    run = []
    for words in commands(file):
        program, rest = words[0], words[1:]
        if program == "torchrun":
            rest = [word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in rest]
            given = get_args_parser().parse_args(rest)
            assert (given.nnodes, given.nproc_per_node) == ("2", "8")
            assert given.module
            assert given.training_script == "kdkit"
            assert given.shutdown_timeout == 300  # seconds for the last step and its checkpoint
            rest = [word for word in given.training_script_args if word != "$@"]
        if rest:
            run.append(check_kdkit(rest))
    assert run == ["features extract", "distill"]


@pytest.mark.parametrize("file", FILES)
def test_machines_use_the_files_that_they_have(file: str) -> None:
    text = (CLUSTER / file).read_text(encoding="utf-8")
    assert re.search(r"HF_HUB_OFFLINE(=1|: \"1\"|, value: \"1\")", text)


def test_the_job_of_kubernetes_outlives_evictions() -> None:
    service, job = pods()
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 2
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onPodConditions"]) == ("Ignore", [{"type": "DisruptionTarget"}])
    assert pod["restartPolicy"] == "Never"  # what a podFailurePolicy requires
    assert pod["terminationGracePeriodSeconds"] > 300
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (first,), (second,) = pod["initContainers"], pod["containers"]
    shared = ("image", "env", "resources", "volumeMounts")
    assert [first[key] for key in shared] == [second[key] for key in shared]
    assert {mount["name"] for mount in first["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    (address,) = [word for word in second["args"] if "master-addr" in word]
    assert address.endswith(f"={job['metadata']['name']}-0.{pod['subdomain']}")


def test_the_task_of_skypilot_keeps_the_project_on_a_volume() -> None:
    task = skypilot()
    assert task["volumes"] == {"/project": "kdkit-project"}
    assert task["num_nodes"] == 2
    assert subprocess.run(["bash", "-n"], input=task["run"], text=True, check=False).returncode == 0


PROGRAMS = {
    "srun": 'trap "exit 1" TERM; echo $$ > "$FOLDER/step"; echo "$@" >> "$FOLDER/steps"\n'
    'case "$*" in *$HANGS*) touch "$FOLDER/started"; while :; do sleep 0.05; done;; esac',
    "scancel": 'echo "$@" > "$FOLDER/scancel"; kill -TERM "$(cat "$FOLDER/step")"',
    "scontrol": 'if [ "$1" = show ]; then printf "n1\\nn2\\n"; else echo "$@" > "$FOLDER/scontrol"; fi',
}


def start_slurm(folder: Path, hangs: str) -> subprocess.Popen[bytes]:
    """The script among stand-ins for Slurm's programs; the step that contains ``hangs`` ends by SIGTERM alone."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    facts = {"JOB_ID": "7", "JOB_NUM_NODES": "2", "GPUS_ON_NODE": "8", "CPUS_PER_TASK": "4", "JOB_NODELIST": "n[1-2]"}
    environment = {f"SLURM_{name}": value for name, value in facts.items()} | {"SLURM_SUBMIT_DIR": str(folder)}
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "FOLDER": str(folder), "HANGS": hangs}
    return subprocess.Popen(["bash", CLUSTER / "slurm.sh"], env={**environment, "GRACE_SECONDS": "0"})


@pytest.mark.parametrize(("step", "steps"), [("features extract", 1), ("kdkit distill", 2)])
def test_a_signal_of_slurm_ends_the_step_and_requeues_the_job(tmp_path: Path, step: str, steps: int) -> None:
    job = start_slurm(tmp_path, step)
    try:
        while not (tmp_path / "started").exists() and job.poll() is None:
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=120) == 1
    finally:
        job.kill()
    assert (tmp_path / "scancel").read_text(encoding="utf-8") == "--signal=TERM 7\n"
    assert (tmp_path / "scontrol").read_text(encoding="utf-8") == "requeue 7\n"
    started = (tmp_path / "steps").read_text(encoding="utf-8").splitlines()
    assert len(started) == steps
    assert all("--rdzv-endpoint n1:29500" in line for line in started)


def test_a_finished_job_is_not_requeued(tmp_path: Path) -> None:
    assert start_slurm(tmp_path, "nothing").wait(timeout=120) == 0
    assert not (tmp_path / "scontrol").exists()
    assert len((tmp_path / "steps").read_text(encoding="utf-8").splitlines()) == 2
