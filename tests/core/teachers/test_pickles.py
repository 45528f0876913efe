"""Pickled weights: converted exactly, or refused without running their code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.teachers import add_teacher, open_teacher
from kdkit.core.teachers.pickles import convert_pickles
from tests.core.teachers import stub
from tests.errors import raises_error


def test_tensors_survive_bit_for_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "half": torch.randn(3, 4, generator=generator).half(),
        "bf16": torch.randn(5, generator=generator).bfloat16(),
        "ids": torch.arange(7)[None],
        "transposed": torch.randn(2, 3, generator=generator).T,
        "scalar": torch.tensor(2.5),
    }
    tensors["tied"] = tensors["half"]
    torch.save(tensors, tmp_path / "open_clip_pytorch_model.bin")
    digest = sha256_of(tmp_path / "open_clip_pytorch_model.bin")
    made = convert_pickles(tmp_path, "here")
    assert list(made) == ["open_clip_model.safetensors"]
    assert (made["open_clip_model.safetensors"].file, made["open_clip_model.safetensors"].sha256) == (
        "open_clip_pytorch_model.bin",
        digest,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["open_clip_model.safetensors"]
    loaded = load_file(tmp_path / "open_clip_model.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize("nested", ["state_dict", "model_state_dict"])
def test_training_checkpoints_are_unwrapped(tmp_path: Path, nested: str) -> None:
    weights = {"module.a": torch.ones(2), "module.b": torch.zeros(1)}
    torch.save({"epoch": 3, nested: weights, "name": "run"}, tmp_path / "ckpt.pt")
    assert list(convert_pickles(tmp_path, "here")) == ["ckpt.safetensors"]
    assert load_file(tmp_path / "ckpt.safetensors").keys() == {"a", "b"}


def test_a_converted_file_has_its_own_name_in_options_and_messages(tmp_path: Path) -> None:
    project, source = stub.make_project(tmp_path / "p"), stub.write(tmp_path / "lab", pickled=True)
    (source / "pytorch_model.bin").rename(source / "epoch_3.pt")
    with raises_error("X-001", where=f"local:{source}", mentions=("it has epoch_3.pt",)):
        add_teacher(project, "a", {"from": f"local:{source}"})
    torch.save({"matrix": torch.ones(3, 4)}, source / "epoch_9.pt")
    with raises_error("KD-TEACH-019", mentions=("epoch_3.pt, epoch_9.pt",)):
        add_teacher(project, "a", {"from": f"local:{source}"})
    facts = add_teacher(project, "a", {"from": f"local:{source}", "options": {"weights": "epoch_3.pt"}})
    assert "epoch_9.safetensors" not in facts.files
    assert open_teacher(project.reloaded(), "a").name == "a"


class Code:
    """Would create a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path: Path, zipped: bool) -> None:
    project = stub.make_project(tmp_path)
    folder = stub.write(tmp_path / "a", pickled=True)
    content = {"matrix": torch.ones(3, 4), "callback": Code(tmp_path / "pwned")}
    torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    before = stub.tree(tmp_path)
    where = "local:a: pytorch_model.bin"
    with raises_error("KD-BASE-047", where=where, mentions=("mkdir",), code=ExitCode.DENIED):
        add_teacher(project, "a", {"from": "local:a"})
    assert not (tmp_path / "pwned").exists()
    assert stub.tree(tmp_path) == before


NO_WEIGHTS = {
    "empty": b"",
    "text": b"not weights",
    "broken zip": b"PK\x03\x04broken",
    "no tensors": pickle.dumps({"a": 1}),
    "plain pickle with code": pickle.dumps({"a": Code(Path())}, 4),
}


@pytest.mark.parametrize("content", NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(KdkitError) as caught:
        convert_pickles(tmp_path, "here")
    assert caught.value.id in ("KD-BASE-046", "KD-BASE-047", "KD-BASE-048")


def test_a_changed_pickle_of_a_local_teacher_is_reported(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path)
    folder = stub.write(tmp_path / "a", pickled=True)
    facts = add_teacher(project, "a", {"from": "local:a"})
    project = project.reloaded()
    made_from = facts.files["model.safetensors"].made_from
    assert made_from is not None
    assert made_from.sha256 == sha256_of(folder / "pytorch_model.bin")
    assert open_teacher(project, "a").fingerprint == facts.fingerprint
    torch.save({"matrix": torch.zeros(3, 4)}, folder / "pytorch_model.bin")
    with raises_error("KD-TEACH-008", where="registry.yaml:4") as caught:
        open_teacher(project, "a")
    assert "'pytorch_model.bin'" in caught.value.what
    assert made_from.sha256 in caught.value.why
