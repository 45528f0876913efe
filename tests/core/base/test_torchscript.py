"""TorchScript archives are read as data: the tensors of ``torch.jit.load``, and no code."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from torch import Tensor, nn

from kdkit.core.base.checkpoints import read_weights
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.torchscript import is_torchscript, read_torchscript


class Tower(nn.Module):
    """Parts as in OpenAI's archives: half and single precision, buffers, shared weights, submodules with numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False).half())
        self.tied = nn.Linear(3, 4)
        self.tied.weight = self.resblocks[0].weight  # type: ignore[assignment]
        self.register_buffer("input_resolution", torch.tensor(224))
        self.proj = nn.Parameter(torch.arange(6.0).view(2, 3).T)

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.tied(x) + self.resblocks[1](self.resblocks[0](x))
        return rows + self.proj.sum()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jit") / "ViT-B-32.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jit: Any = torch.jit
        jit.save(jit.trace(Tower().eval(), torch.zeros(2, 3)), path)
    return path


def test_tensors_equal_those_of_torch(archive: Path) -> None:
    assert is_torchscript(archive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jit: Any = torch.jit
        expected = jit.load(archive).state_dict()
    for found in (read_torchscript(archive), read_weights(archive, "here").tensors):
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)
            assert found[name].stride() == tensor.stride()


def test_code_of_the_archive_is_not_opened(archive: Path, tmp_path: Path) -> None:
    broken = repack(archive, tmp_path / "a.pt", code=b"import os\nos.mkdir('harm')\n")
    assert read_torchscript(broken).keys() == read_torchscript(archive).keys()
    assert list(tmp_path.iterdir()) == [broken]


def repack(archive: Path, to: Path, *, data: bytes | None = None, code: bytes | None = None) -> Path:
    with ZipFile(archive) as old, ZipFile(to, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if data is not None and name.endswith("/data.pkl"):
                content = data
            if code is not None and "/code/" in name:
                content = code
            new.writestr(name, content)
    return to


class Call:
    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def laughs() -> bytes:
    """30 levels, each with its child twice: 2**30 paths to one leaf."""
    classname, built = b"c__torch__\nA\n)\x81", b"}(X\1\0\0\0a%bX\1\0\0\0b%bub"
    return (
        b"\x80\x02"
        + classname
        + b"q\0"
        + b"".join(classname + built.replace(b"%b", b"h" + bytes([i])) + b"q" + bytes([i + 1]) for i in range(30))
        + b"."
    )


def tensor(size: bytes, stride: bytes, offset: bytes = b"K\0") -> bytes:
    """A module with one tensor of storage 0, of the given shape."""
    stored = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK\x06tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + offset + size + stride + b"\x89NtR"
    return b"\x80\x02c__torch__\nA\n)\x81}X\1\0\0\0a" + call + b"sb."


def tuples() -> bytes:
    """A key of 60 levels, each with the level below twice: its text would have 2**60 parts."""
    return b"\x80\x02c__torch__\nA\n)\x81}K\1" + b"q\0h\0\x86" * 60 + b"K\1sb."


def long_names() -> bytes:
    """Attributes inside each other, all under one long name."""
    name = b"X" + (200_000).to_bytes(4, "little") + b"a" * 200_000 + b"q\0"
    return b"\x80\x02" + name + b"c__torch__\nA\n)\x81}h\0" * 800 + b"K\1" + b"sb" * 800 + b"."


ATTACKS: dict[str, bytes] = {
    "call": pickle.dumps(Call(os.mkdir, ("harm",)), 2),
    "call in state": pickle.dumps({"a": Call(os.mkdir, ("harm",))}, 2),
    "new protocol": pickle.dumps(Call(os.mkdir, ("harm",)), 4),
    "state of a name": b"\x80\x02cos\nmkdir\n}X\1\0\0\0aK\1sb.",
    "instance": b"(X\4\0\0\0harmios\nmkdir\n.",
    "call of a call": b"\x80\x02cos\ngetcwd\n)R)R.",
    "long shape": tensor(b"\x8a\x05\0\0\0\0\1\x85", b"K\1\x85"),
    "repeated values": tensor(b"\x8a\x05\0\0\0\0\1\x85", b"K\0\x85"),
    "outside of its storage": tensor(b"K\2\x85", b"K\1\x85", b"K\5"),
    "negative": tensor(b"K\2\x85", b"J\xff\xff\xff\xff\x85", b"K\1"),
    "storage elsewhere": tensor(b"K\1\x85", b"K\1\x85").replace(b"X\1\0\0\0" + b"0", b"X\2\0\0\0.."),
    "no end": b"\x80\x02",
    "nothing to take": b"\x80\x02R.",
    "many paths": laughs(),
    "key of many parts": tuples(),
    "long names": long_names(),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_forged_archive_runs_nothing(
    archive: Path, tmp_path: Path, attack: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = repack(archive, tmp_path / "a.pt", data=attack)
    with pytest.raises(KdkitError) as caught:
        read_weights(path, "here")
    assert caught.value.id in ("KD-BASE-046", "KD-BASE-047", "KD-BASE-048")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_the_attacks_are_near_a_valid_archive(archive: Path, tmp_path: Path) -> None:
    found = read_torchscript(repack(archive, tmp_path / "a.pt", data=tensor(b"K\2K\3\x86", b"K\3K\1\x86")))
    assert found["a"].shape == (2, 3)


@pytest.mark.parametrize("root", ["x/code", "code", "x/y"])
def test_the_archive_lies_in_one_folder_at_the_top(archive: Path, tmp_path: Path, root: str) -> None:
    """Code may be compressed; nothing that is read as weights may lie under its name."""
    path = tmp_path / "a.pt"
    with ZipFile(archive) as old, ZipFile(path, "w", ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(f"{root}/{name.partition('/')[2]}", old.read(name))
    assert not is_torchscript(path)
    with pytest.raises(KdkitError) as caught:
        read_weights(path, "here")
    assert caught.value.id in ("KD-BASE-047", "KD-BASE-048")
