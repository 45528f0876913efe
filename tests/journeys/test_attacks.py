"""Hostile projects, versions, bundles, releases, model folders and features: nothing of them runs, no file outside is
opened, nothing is asked of a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.subprocesses import run_python
from kdkit.core.contracts import SignalSpec
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.shard import Shard, create_shard
from kdkit.core.project.registry.lock import FileFact
from kdkit.core.project.versions import Versions
from kdkit.core.sharing.bundle import collect, unpack
from kdkit.core.sharing.release.export import export_version
from kdkit.core.sharing.release.layout import LOCK, REGISTRY, SAMPLES, TASK, Record
from kdkit.core.sharing.release.pulled_release import read_record
from kdkit.core.sharing.release.release import assemble_release
from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.loaders.open_clip_folder import TEXT_CONFIG
from kdkit.plugins.loaders.transformers_clip import load_transformers_clip
from kdkit.plugins.students.clinkd.network import read_network
from kdkit.testing.network import offline
from tests.core.sharing.bundle.forged import PROJECT, entry, forge
from tests.core.sharing.release.projects import lay_out
from tests.errors import raises_error
from tests.lineages import lineage
from tests.tiny_models import make_biomedclip_folder, make_open_clip_folder, make_transformers_clip_folder

OPENED: list[str] = []
"""Every file that this process opened while a test watches."""
WATCHING = [False]


@sys.addaudithook
def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and WATCHING[0] and isinstance(arguments[0], str | os.PathLike):
        OPENED.append(os.path.realpath(os.fspath(arguments[0])))


@pytest.fixture(autouse=True)
def secret(tmp_path: Path) -> Iterator[Path]:
    """A private file outside of everything; the test fails if it was opened, or if ``ran`` was made."""
    path = tmp_path / "home" / "id_rsa"
    path.parent.mkdir()
    path.write_text("PRIVATE KEY", encoding="utf-8")
    OPENED.clear()
    WATCHING[0] = True
    with offline():
        yield path
    WATCHING[0] = False
    assert str(path) not in OPENED
    assert not (tmp_path / "ran").exists()


def code(tmp_path: Path) -> str:
    return f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"


# ------------------------------------------------------------------ code in the project folder


@pytest.mark.parametrize(
    ("name", "started"),
    [
        ("json.py", ["-c", "import json"]),
        ("pip.py", ["-m", "pip", "--version"]),
        ("pip/__main__.py", ["-m", "pip", "--version"]),
        ("sitecustomize.py", ["-c", "pass"]),
        ("usercustomize.py", ["-c", "pass"]),
        ("torch.py", ["-c", "import importlib.util as u; print(u.find_spec('torch').origin)"]),
    ],
)
def test_a_file_of_the_project_is_no_library(
    name: str, started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    (project / name).parent.mkdir(parents=True)
    (project / name).write_text(code(tmp_path))
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("", os.environ.get("PYTHONPATH", ""))))
    done = run_python(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert str(project) not in done.stdout


def test_python_m_kdkit_imports_no_library_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(code(tmp_path))
    done = subprocess.run([sys.executable, "-m", "kdkit", "--version"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0


# ------------------------------------------------------------------ links and foreign files in a version


def link(name: str) -> Callable[[Path, Path], None]:
    def put(version: Path, secret: Path) -> None:
        (version / name).unlink(missing_ok=True)
        (version / name).symlink_to(secret)

    return put


def moved(version: Path, secret: Path) -> None:
    shutil.move(version / "student", secret.parent / "student")
    (version / "student").symlink_to(secret.parent / "student")


def copied(version: Path, secret: Path) -> None:  # noqa: ARG001  # it is of the family of attacks
    (version / "student" / "notes.txt").write_text("PRIVATE KEY")


@pytest.mark.parametrize(
    ("attack", "id"),
    [
        (link("student/id_rsa.json"), "KD-PROJ-023"),
        (link("student/.ssh"), "KD-PROJ-023"),
        (link("student/open_clip_config.json"), "KD-PROJ-014"),
        (link("task.safetensors"), "KD-PROJ-014"),
        (link("lineage.json"), "KD-PROJ-014"),
        (moved, "KD-PROJ-014"),
        (copied, "KD-PROJ-023"),
    ],
)
@pytest.mark.parametrize("how", ["push", "export"])
def test_no_link_and_no_foreign_file_of_a_version_is_published(
    attack: Callable[[Path, Path], None], id: str, how: str, tmp_path: Path, secret: Path
) -> None:
    project = lay_out(tmp_path / "project", make_open_clip_folder)
    attack(project.versions / "v1", secret)
    with raises_error(id):
        if how == "push":
            assemble_release(project, Versions(project).get("v1"), "lab/x", tmp_path / "out")
        else:
            export_version(project, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("registry", "path", "id"),
    [
        ("recipe: ./mine.yaml", "mine.yaml", "KD-BUNDLE-002"),
        ("student: {family: open_clip, config: {init: ./init}}", "init/id_rsa.json", "KD-TEACH-003"),
        ("student: {family: open_clip, config: {init: ../home}}", "unused", "KD-BUNDLE-002"),
    ],
)
def test_no_link_of_a_project_is_bundled(registry: str, path: str, id: str, tmp_path: Path, secret: Path) -> None:
    project = lay_out(tmp_path / "project", make_open_clip_folder)
    project.registry_path.write_text(f"version: 1\n{registry}\n")
    (project.root / path).parent.mkdir(exist_ok=True)
    (project.root / path).symlink_to(secret)
    with raises_error(id):
        collect(project, ())


# ------------------------------------------------------------------ bundles


@pytest.mark.parametrize(
    "path",
    [
        *("json.py", "conftest.py", "versions/v1/student/pytorch_model.bin", "features/a/x.so", "a.pth", "run.sh"),
        *("LICENSE.py", "notice.so", "versions/v1/student/COPYING.pt"),
        *("../x.json", "/tmp/x.json", ".git/hooks/pre-commit", "versions/v1/.envrc", "matplotlibrc", "setup.cfg"),
    ],
)
def test_a_bundle_brings_no_code_and_stays_in_its_folder(path: str, tmp_path: Path) -> None:
    with pytest.raises(KdkitError) as caught:
        unpack(forge(tmp_path / "a.tar", {**PROJECT, path: b"import os"}), tmp_path / "out")
    assert caught.value.id in ("KD-BUNDLE-006", "KD-BUNDLE-022")
    assert {item.name for item in tmp_path.iterdir()} == {"a.tar", "home"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_bundle_brings_no_links_and_devices(kind: bytes, tmp_path: Path, secret: Path) -> None:
    extra = [entry("versions/current", kind=kind, link=str(secret))]
    with raises_error("KD-BUNDLE-020"):
        unpack(forge(tmp_path / "a.tar", extra=extra), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ releases


@pytest.mark.parametrize("name", ["json.py", "pytorch_model.bin", "model.pkl", "../registry.yaml", "/tmp/x.json", ".x"])
def test_a_release_brings_no_code_and_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    files = {path: FileFact(size=1, sha256="0" * 64) for path in (LOCK, REGISTRY, SAMPLES, TASK)}
    good = Record("1", "v1", "lab/x", "mit", ("a.json",), (lineage("v1"),), {}, {}, None)
    good = replace(good, files={**files, "a.json": files[LOCK]})
    (tmp_path / "good.json").write_bytes(good.to_bytes())
    assert read_record(tmp_path / "good.json", "lab/x") == good
    plain = good.to_json()
    plain["student"], plain["files"][name] = [name], plain["files"]["a.json"]
    (tmp_path / "bad.json").write_text(json.dumps(plain))
    with raises_error("KD-REL-018"):
        read_record(tmp_path / "bad.json", "lab/x")


# ------------------------------------------------------------------ model folders


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "open_clip": make_open_clip_folder(root / "open_clip"),
        "clip": make_transformers_clip_folder(root / "clip"),
    }


def change(folder: Path, file: str, **values: Any) -> None:
    """Set values of a JSON file; ``a__b`` is ``b`` inside ``a``."""
    path = folder / file
    plain = json.loads(path.read_text()) if path.is_file() else {}
    for key, value in values.items():
        place = plain
        *above, last = key.split("__")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    path.write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ("model", "file", "values"),
    [
        ("open_clip", "open_clip_config.json", {"model_cfg__vision_cfg__timm_model_name": "hf-hub:evil/x"}),
        ("open_clip", "open_clip_config.json", {"model_cfg__vision_cfg__timm_model_name": "local-dir:/SECRET"}),
        ("open_clip", "open_clip_config.json", {"model_cfg__vision_cfg__timm_model_name": "../SECRET"}),
        ("open_clip", "open_clip_config.json", {"model_cfg__multimodal_cfg__hf_thing": "evil/x"}),
        ("clip", "config.json", {"vision_config__backbone": "resnet18"}),
        ("clip", "config.json", {"vision_config__architecture": "hf-hub:evil/x"}),
        ("clip", "config.json", {"model_type": "timm_wrapper", "model_args__checkpoint_path": "/SECRET/x.pth"}),
        ("clip", "config.json", {"vision_config__model_type": "timm_backbone"}),
        ("clip", "config.json", {"vision_config__weights": "../x.pth"}),
        ("clip", "config.json", {"text_config__anything": ["https://evil.example/x"]}),
        ("clip", "model.safetensors.index.json", {"weight_map__logit_scale": "../SECRET/model.safetensors"}),
    ],
)
def test_a_model_that_names_another_place_is_refused(
    model: str, file: str, values: dict[str, Any], models: dict[str, Path], tmp_path: Path, secret: Path
) -> None:
    folder = Path(shutil.copytree(models[model], tmp_path / "model"))
    change(folder, file, **json.loads(json.dumps(values).replace("/SECRET", str(secret.parent))))
    with raises_error("KD-LOAD-070"):
        load_open_clip(folder) if model == "open_clip" else load_transformers_clip(folder)
    if model == "clip":
        with raises_error("KD-LOAD-070"):
            read_network(folder, "float32")


@pytest.mark.parametrize("base", ["/SECRET", "evil/x"])
def test_adapters_read_no_base_from_another_place(
    base: str, models: dict[str, Path], tmp_path: Path, secret: Path
) -> None:
    folder = Path(shutil.copytree(models["clip"], tmp_path / "model"))
    named = base.replace("/SECRET", str(secret.parent))
    change(folder, "adapter_config.json", base_model_name_or_path=named, peft_type="LORA")
    with raises_error("KD-LOAD-096"):
        load_transformers_clip(folder)
    with raises_error("KD-LOAD-070"):
        read_network(folder, "float32")


def test_a_text_tower_that_names_another_place_is_refused(tmp_path: Path, secret: Path) -> None:
    folder = make_biomedclip_folder(tmp_path / "model")
    name = next(name for name in TEXT_CONFIG if (folder / name).is_file())
    change(folder, name, checkpoint_path=str(secret))
    with raises_error("KD-LOAD-070"):
        load_open_clip(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_code_of_a_model_folder_does_not_run(file: str, models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models["clip"], tmp_path / "model"))
    (folder / "evil.py").write_text(code(tmp_path) + "class Evil: pass\n")
    names = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
    change(folder, file, auto_map={**names, "AutoImageProcessor": "evil.Evil"})
    with suppress(KdkitError):  # refused, or loaded by a class of transformers' own
        load_transformers_clip(folder)


# ------------------------------------------------------------------ features


@pytest.mark.parametrize("how", ["link", "external", "virtual"])
@pytest.mark.parametrize("name", ["digests", "signals/image"])
def test_features_lie_in_their_own_file(how: str, name: str, tmp_path: Path, secret: Path) -> None:
    path = tmp_path / "shard-0000.h5"
    header = Header("radio", "ab" * 32, {}, (SignalSpec("image", (2,), "float16"),))
    create_shard(path, header, ["a"], np.zeros(1, np.uint64))
    Shard(path).close()
    other = tmp_path / "home" / "other.h5"
    with h5py.File(other, "w") as file:
        file["digests"], file["signals/image"] = np.zeros(1, np.uint64), np.zeros((1, 2), np.float16)
    with h5py.File(path, "a") as file:
        kind, shape = file[name].dtype, file[name].shape
        del file[name]
        if how == "link":
            file[name] = h5py.ExternalLink(str(other), name)
        elif how == "external":
            file.create_dataset(name, shape, kind, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        else:
            layout = h5py.VirtualLayout(shape, kind)
            layout[...] = h5py.VirtualSource(str(other), name, shape)
            file.create_virtual_dataset(name, layout)
    with raises_error("KD-FEAT-012"):
        Shard(path)
