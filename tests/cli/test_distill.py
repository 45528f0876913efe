"""``kdkit distill``, ``versions``, ``rollback``, with the models of a third-party plugin."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdkit.core.base.errors import ExitCode
from tests.conftest import Cli, InstallPlugin, start
from tests.core.distill.answering import add_domain, increment, make_answering_project, write_recipe
from tests.toy_project import RECIPE, make_project, train_teacher

PLUGIN = """
import kdkit
from tests.toy_project import SPECS

@kdkit.hookimpl
def kdkit_loaders():
    return [spec for family, spec in SPECS if family == "loader"]

@kdkit.hookimpl
def kdkit_students():
    return [spec for family, spec in SPECS if family == "student"]
"""


@pytest.fixture
def toy(kdkit_cli: Cli, install_plugin: InstallPlugin) -> Cli:
    """The command in a toy project."""
    install_plugin("kdkit-toy", PLUGIN)
    kdkit_cli.folder.rmdir()
    make_project(kdkit_cli.folder, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri", "xray"))
    return kdkit_cli


def weights(project: Path, version: str) -> dict[str, torch.Tensor]:
    folder = project / "versions" / version
    return {**load_file(folder / "student" / "toy.safetensors"), **load_file(folder / "task.safetensors")}


def test_pretrain_then_distill_from_it(toy: Cli) -> None:
    registry = toy.folder / "registry.yaml"
    with registry.open("a", encoding="utf-8") as file:
        file.write("optimizer: {lr: 0.01, batch_size: 24, steps: 5}\n")
    refused = toy("pretrain", "--recipe", "kdkit")
    assert (refused.code, refused.error) == (2, "KD-DIST-364")
    first = toy("pretrain")
    assert first.code == 0, first.stderr
    assert "kdkit distill --continue" in first.stdout
    then = toy("distill", "--continue", "--json")
    assert (then.code, then.json["version"], then.json["stages"]) == (0, "v2", [])
    shown = toy("versions", "show", "v2")
    lineage = json.loads(shown.stdout)
    assert (lineage["parent"], lineage["data"]["known"]) == ("v1", ["ct", "mri", "xray"])
    assert (lineage["data"]["fresh"], lineage["data"]["replayed"]) == (72, 0)


def test_the_life_of_a_student(toy: Cli) -> None:
    planned = toy("distill", "--dry-run", "--json")
    plan = planned.json
    assert (plan["parent"], plan["steps"], plan["domains_without_teacher"]) == (None, 40, ["xray"])
    assert plan["estimate"]["seconds"] > 0
    assert "'xray'" in planned.stderr
    assert not (toy.folder / "versions").exists()

    first = toy("distill")
    assert first.code == 0, first.stderr
    assert first.stdout.startswith("v1 ")

    nothing = toy("distill", "--incremental")
    assert (nothing.code, nothing.stdout, nothing.error) == (2, "", "KD-DIST-035")

    train_teacher(["xray"], width=20, seed=5).save(toy.folder / "models" / "xr")
    assert toy("add-teacher", "xr", "--from", "local:models/xr", "--license", "mit").code == 0
    second = toy("distill", "--incremental", "--json")
    assert second.code == 0, second.stderr
    assert second.json["promoted"] is True

    (toy.folder / "toy.yaml").write_text(
        RECIPE.replace("replay: 0.5, steps: 0.5", "replay: 0.0, steps: 4.0, repair: null")
    )
    assert toy("rollback").code == 0
    refused = toy("distill", "--incremental")
    assert refused.code == 1
    assert refused.stdout.startswith("v3 ")

    listed = toy("versions", "--json").json
    assert [(row["version"], row["status"]) for row in listed] == [
        ("v1", "current"),
        ("v2", "promoted"),
        ("v3", "refused"),
    ]
    assert toy("versions", "promote", "v3").code == 0
    shown = toy("versions", "show").json
    assert (shown["version"], shown["parent"]) == ("v3", "v1")


def test_a_recipe_that_learns_from_captions_alone(toy: Cli) -> None:
    planned = toy("distill", "--dry-run", "--recipe", "captions", "--json")
    assert planned.code == 0, planned.stderr
    assert (planned.json["parent"], planned.json["teachers"]) == (None, [])
    assert any(line.endswith(": radio") for line in planned.stderr.splitlines()), planned.stderr
    assert not (toy.folder / "features").exists()


def test_a_second_command_on_a_busy_project_is_refused(toy: Cli) -> None:
    (toy.folder / ".kdkit").mkdir(exist_ok=True)
    with open(toy.folder / ".kdkit" / "busy", "w", encoding="utf-8") as handle:
        json.dump({"pid": 4242, "command": "kdkit distill"}, handle)
        handle.flush()
        fcntl.flock(handle, fcntl.LOCK_EX)
        found = toy("distill")
    assert (found.code, found.error) == (1, "KD-PROJ-002")
    assert "4242" in found.stderr


def test_two_processes_train_the_student_of_one(toy: Cli) -> None:
    assert toy("distill", "--cpu").code == 0
    both = toy("distill", "--gpus", "2", "--cpu", "--restart", "--json")
    assert both.code == 0, both.stderr[-3000:]
    assert both.json["version"] == "v2"  # one process prints
    machine = toy("versions", "show").json["training"]["machine"]
    assert (machine["processes"], machine["strategy"]) == (2, "ddp")
    assert "find_unused_parameters" not in both.stderr
    one, two = (weights(toy.folder, name) for name in ("v1", "v2"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=name)


def test_two_machines_repair_the_student_as_one(toy: Cli, tmp_path: Path) -> None:
    """Two launchers meet, each with a process; one judges, both rehearse; their weights are sharded."""
    unbalanced = "replay: 0.02, oversample: 9, steps: 0.5, repair: {interpolate: [], rehearse: 0.5}"
    (toy.folder / "toy.yaml").write_text(RECIPE.replace("replay: 0.5, steps: 0.5", unbalanced))
    assert toy("distill", "--cpu").code == 0
    train_teacher(["xray"], width=20, seed=5).save(toy.folder / "models" / "xr")
    assert toy("add-teacher", "xr", "--from", "local:models/xr", "--license", "mit").code == 0
    one = toy("distill", "--cpu", "--incremental", "--json").json
    assert toy("rollback").code == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free.getsockname()[1]}")
    launch = ("--nnodes", "2", "--nproc-per-node", "1", *meeting, "--local-addr", "127.0.0.1")
    words = ("-m", "kdkit", "distill", "--cpu", "--shard", "--incremental", "--restart", "--json")
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        variables = toy.variables(None)
        machines = [
            start(
                "-m",
                "torch.distributed.run",
                *launch,
                *words,
                folder=toy.folder,
                environment=variables,
                out=out,
                err=err,
            )
            for _ in range(2)
        ]
        assert [machine.wait(300) for machine in machines] == [0, 0], (tmp_path / "err").read_text()[-3000:]
    machine = toy("versions", "show").json["training"]["machine"]
    assert (machine["processes"], machine["strategy"]) == (2, "fsdp2")
    two = json.loads((tmp_path / "out").read_text())
    assert (one["version"], two["version"], two["promoted"], two["repair"]["kept"]) == ("v2", "v3", True, 1)
    assert two["repair"] | {"seconds": 0} == one["repair"] | {"seconds": 0}
    alone, together = (weights(toy.folder, name) for name in ("v2", "v3"))
    for name in alone:
        torch.testing.assert_close(together[name], alone[name], rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_train_the_answering_student_of_one(kdkit_cli: Cli, tmp_path: Path) -> None:
    """Its losses are sums over samples: each process computes its share. The previous version's loss too. Each process
    has a part of the weights."""
    root = kdkit_cli.folder
    root.rmdir()
    make_answering_project(root)
    add_domain(root)
    write_recipe(root, previous={"weight": 1.0, "loss": "token-kd"})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    kdkit_cli.environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # as of torchrun
    command = ("distill", "--cpu", "--shard", "--incremental", "--json")
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
        both = [kdkit_cli.start(*command, env=rank, out=out, err=err) for rank in ranks]
        assert [process.wait(300) for process in both] == [0, 0], (tmp_path / "err").read_text()[-3000:]
    (root / "versions" / "current").write_text("v1\n", encoding="utf-8")
    alone = increment(root, restart=True).version
    lineages = [json.loads((root / "versions" / v / "lineage.json").read_text()) for v in ("v2", alone.name)]
    assert [lineage["training"]["machine"]["strategy"] for lineage in lineages] == ["fsdp2", "one process"]
    for two, one in zip(*(lineage["training"]["log"] for lineage in lineages), strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
    two, one = (load_file(root / "versions" / v / "student" / "model.safetensors") for v in ("v2", alone.name))
    for name, x in one.items():
        if not name.endswith("k_proj.bias"):  # hardly changes the output: Adam makes steps of its gradient's rounding
            torch.testing.assert_close(two[name], x, rtol=1e-2, atol=1e-3, msg=name)


def test_two_machines_with_different_registries_are_told_before_they_extract(toy: Cli, tmp_path: Path) -> None:
    shutil.copytree(toy.folder, other := tmp_path / "other")
    with (other / "registry.yaml").open("a", encoding="utf-8") as file:
        file.write("optimizer: {lr: 0.5}\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    toy.environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # as of torchrun
    said, machines = [tmp_path / f"rank-{rank}" for rank in range(2)], []
    for rank, (folder, path) in enumerate(zip((toy.folder, other), said, strict=True)):
        with path.open("w") as err:
            variables = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            machines.append(toy.start("distill", "--cpu", "--project", str(folder), env=variables, out=err, err=err))
    assert [machine.wait(300) for machine in machines] == [ExitCode.FOUND] * 2
    assert all("KD-DIST-043" in path.read_text() and "different registry" in path.read_text() for path in said)
    assert not (toy.folder / "features").exists()


def test_an_unknown_precision(toy: Cli) -> None:
    found = toy("distill", "--precision", "bf61")
    assert (found.code, found.stdout, found.error) == (2, "", "KD-DIST-010")
    assert "'bf16'" in found.stderr


def test_versions_before_there_is_one(toy: Cli) -> None:
    assert toy("versions", "--json").json == []
    assert toy("rollback").code == 3
    unknown = toy("versions", "show", "v7")
    assert (unknown.code, unknown.stdout, unknown.error) == (3, "", "KD-PROJ-010")


def test_an_unknown_recipe(toy: Cli) -> None:
    found = toy("distill", "--recipe", "mmkd-papr")
    assert (found.code, found.error) == (2, "KD-PLUG-003")
    assert "'mmkd-paper'" in found.stderr


def test_a_folder_without_a_project(kdkit_cli: Cli, tmp_path: Path) -> None:
    found = kdkit_cli("distill", "--project", str(tmp_path))
    assert (found.code, found.error) == (2, "KD-PROJ-001")


def test_a_plan_for_other_devices_shows_its_arithmetic(toy: Cli) -> None:
    """Extraction first, then training; nothing is stored or trained by either plan."""
    lacking = toy("features", "extract", "--dry-run", "--plan-for", "2xH100")
    assert lacking.code == 0, lacking.stderr
    assert "Planned for 2 x H100" in lacking.stdout
    assert "TFLOP/s float32" in lacking.stdout
    costs = toy("features", "extract", "--dry-run", "--json").json
    (cost,) = costs["teachers"]
    assert (cost["teacher"], cost["planned_seconds"]) == ("radio", None)
    assert min(cost["missing"], cost["bytes"], cost["seconds"], cost["flops"]) > 0
    assert not list((toy.folder / "features").rglob("shard-*"))

    planned = toy("distill", "--dry-run", "--cpu", "--plan-for", "8xH100", "--shard")
    assert planned.code == 0, planned.stderr
    for words in ("Planned for 8 x H100:", "/ 8 (sharded)", "assumed utilization", "features, radio", "lowers it"):
        assert words in planned.stdout
    found = toy("distill", "--dry-run", "--cpu", "--plan-for", "1", "--json").json
    forecast, estimate = found["forecast"], found["estimate"]
    assert forecast["devices"] == 1
    assert forecast["memory"]["optimizer state"] == 2 * forecast["memory"]["gradients"]
    assert forecast["training_seconds"] == pytest.approx(40 * forecast["step_seconds"])
    assert sum(forecast["disk"].values()) >= estimate["disk"]
    assert toy("features", "extract").code == 0
    assert "nothing to extract" in toy("features", "extract", "--dry-run").stdout
    assert not (toy.folder / "versions").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("distill", "--plan-for", "8xH100"), "KD-DIST-533"),
        (("distill", "--dry-run", "--plan-for", "8 GPUs"), "KD-DIST-531"),
        (("distill", "--dry-run", "--plan-for", "8xZ80"), "KD-DIST-532"),
        (("features", "extract", "--plan-for", "8xH100"), "KD-FEAT-530"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_what_cannot_be_planned_is_refused(toy: Cli, arguments: tuple[str, ...], error: str) -> None:
    refused = toy(*arguments)
    assert (refused.code, refused.error) == (2, error)
