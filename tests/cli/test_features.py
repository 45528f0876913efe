"""``kdkit features``: extract, show, verify."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryFile

import h5py
import pytest
import torch
from safetensors.torch import save_file

from kdkit.core.base.errors import ExitCode
from kdkit.core.features.extract.shared import FOLDER
from kdkit.core.features.extract.workers import Workers
from kdkit.core.project.project import Project
from tests.conftest import Cli, InstallPlugin
from tests.core.data.projects import make_project, row

PLUGIN = '''
from kdkit.core.contracts import LoaderSpec
from kdkit.core.contracts.hookspecs import hookimpl

@hookimpl
def kdkit_loaders():
    return [LoaderSpec(name="patch", summary="a linear map of 4 x 4 pixels", factory="kdkit_patch:Patch")]

class Patch:
    """A dual encoder with one matrix for images; a text's feature is its length."""

    def __init__(self, folder):
        from safetensors.torch import load_file
        self.weight = load_file(folder / "patch.safetensors")["weight"]
        self.embed_dim = self.weight.shape[1]

    def identity(self):
        return {"preprocess": "4 x 4", "tokenizer": "length"}

    def preprocess(self, image):
        import numpy as np, torch
        return torch.from_numpy(np.asarray(image.resize((4, 4)), dtype=np.float32) / 255).permute(2, 0, 1)

    def encode_image(self, pixels):
        return pixels.flatten(1) @ self.weight

    def encode_text(self, texts):
        import torch
        return torch.tensor([[float(len(text))] * self.embed_dim for text in texts])
'''


@pytest.fixture
def project(kdkit_cli: Cli, install_plugin: InstallPlugin) -> Cli:
    """A project with 24 images and a teacher from another distribution."""
    install_plugin("kdkit-patch", PLUGIN)
    make_project(kdkit_cli.folder, [row(i) for i in range(24)])
    save_teacher(kdkit_cli.folder / "patch", 1)
    done = kdkit_cli("add-teacher", "patch", "--from", "local:patch", "--loader", "patch", "--license", "mit")
    assert done.code == 0, done.stderr
    return kdkit_cli


def save_teacher(folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    weight = torch.randn(48, 6, generator=torch.Generator().manual_seed(seed))
    save_file({"weight": weight}, folder / "patch.safetensors")


def test_extract_show_verify(project: Cli) -> None:
    done = project("features", "extract", "patsh")
    assert (done.code, done.error) == (2, "KD-FEAT-008")
    assert "'patch'" in done.stderr
    assert project("features", "--json").json == []

    done = project("features", "extract", "--json")
    assert done.code == 0, done.stderr
    (report,) = done.json
    assert (report["teacher"], report["new"], report["kept"]) == ("patch", 24, 0)
    assert report["prompts"] > 0
    assert project("features", "extract", "patch", "--json").json == []

    done = project("features")
    assert done.code == 0, done.stderr
    for signal in ("image 6 float16", "text 6 float16"):
        assert signal in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["patch", "12/12", "12/12", "0"]
    (status,) = project("features", "--json").json
    assert status["complete"]
    assert status["domains"] == {"ct": [12, 12], "fundus": [12, 12]}

    assert project("features", "verify").code == 0
    (shard,) = (project.folder / "features").rglob("shard-*.h5")
    with h5py.File(shard) as file:
        offset = file["signals/text"].id.get_offset()
    data = bytearray(shard.read_bytes())
    data[offset] ^= 255
    shard.write_bytes(data)
    done = project("features", "verify", "patch", "--json")
    assert done.code == 1
    ((problem,),) = done.json["columns"].values()
    assert problem.startswith(f"{shard}: block 0 ")
    assert "rows 0..23" in problem
    shard.write_bytes(data[:2000])
    done = project("features", "verify", "--json")
    assert (done.code, done.json["ok"]) == (1, False)


def test_import(project: Cli) -> None:
    import numpy as np

    ids = [f"s{i}" for i in range(20)] + ["another"]
    np.savez(project.folder / "a.npz", ids=np.array(ids), image=np.ones((21, 4)), text=np.ones((21, 4)))
    arguments = ("features", "import", "tiles", "--from", "a.npz", "--license", "mit", "--model", "UNI")
    done = project(*arguments, "--dry-run")
    assert done.code == 0, done.stderr
    assert "without a sample: another" in done.stdout
    assert "samples without features: s20, s21, s22 and 1 more" in done.stdout
    assert "tiles" not in project("teachers", "--json").stdout

    done = project(*arguments, "--json")
    assert done.code == 0, done.stderr
    assert (done.json["rows"], done.json["used"], done.json["new"]) == (21, 20, 20)
    done = project(*arguments)
    assert (done.code, done.stdout.splitlines()[0].endswith("unchanged")) == (0, True)
    done = project(*arguments, "--revision", "2")
    assert (done.code, done.error) == (1, "KD-FEAT-030")
    assert project("features", "import", "patch", "--from", "a.npz").error == "KD-FEAT-031"

    done = project("features", "extract", "tiles")
    assert done.code == 0, done.stderr
    assert "4 of 24 samples have none" in done.stderr
    assert project("lock", "--check").code == 0
    assert project("remove-teacher", "tiles").code == 0


def test_processes_share_the_work(project: Cli) -> None:
    """Three commands at once, one of them with two processes, store the bytes of one; another batch size is refused."""
    store, kept = project.folder / "features", project.folder / "alone"
    alone = project("features", "extract", "--json", env={"OMP_NUM_THREADS": "1"})
    assert alone.json[0]["new"] == 24
    store.rename(kept)
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        several = project.start("features", "extract", "--json", "--gpus", "2", "--device", "cpu", out=out, err=err)
        other = project("features", "extract", env={"OMP_NUM_THREADS": "1"})
        assert (several.wait(300), other.code) == (0, 0), other.stderr
        out.seek(0)
        assert all(row["teacher"] == "patch" for row in json.loads(out.read()))
    files = {path.relative_to(kept) for path in kept.rglob("*") if path.is_file()}
    assert files == {path.relative_to(store) for path in store.rglob("*") if path.is_file()}
    assert all((kept / path).read_bytes() == (store / path).read_bytes() for path in files)


def test_workers_with_other_options_are_refused(project: Cli) -> None:
    with Workers(project.folder / "features" / FOLDER, {"batch size": "64"}):
        found = project("features", "extract", "--batch-size", "8", "--json")
    assert found.code == ExitCode.FOUND
    assert found.json["error"]["id"] == "KD-FEAT-540"
    assert "there 64, here 8" in found.stderr


def test_a_small_memory_budget_gives_several_passes(project: Cli) -> None:
    save_teacher(project.folder / "second", 2)
    words = ["--from", "local:second", "--loader", "patch", "--license", "mit"]
    assert project("add-teacher", "second", *words).code == 0
    done = project("features", "extract", "--memory", "0.001", "--json")
    assert (done.code, [row["new"] for row in done.json]) == (0, [24, 24])


def test_another_command_waits_for_no_worker(project: Cli) -> None:
    """Commands that write need the project for themselves; workers of an extraction do not."""
    here = Project(project.folder)
    with here.shared("kdkit features extract"):
        assert project("features", "extract").code == 0
        assert "KD-PROJ-002" in project("lock").stderr
    with here.exclusive("kdkit distill"):
        assert "KD-PROJ-002" in project("features", "extract").stderr
