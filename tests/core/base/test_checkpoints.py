"""Checkpoints of training scripts: their weights are found, and nothing that they name runs."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch

from kdkit.core.base.checkpoints import HARMLESS, Inert, read_checkpoint, read_weights
from kdkit.core.base.errors import ExitCode, KdkitError
from tests.errors import raises_error

CORE: Any = import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
WEIGHTS = {"visual.proj": torch.arange(6.0).view(2, 3), "logit_scale": torch.tensor(2.5)}


def save(content: Any, path: Path, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def same(found: Any, names: tuple[str, ...] = tuple(WEIGHTS)) -> bool:
    return list(found) == list(names) and all(
        torch.equal(a, b) for a, b in zip(found.values(), WEIGHTS.values(), strict=True)
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_save_beside_weights_is_inert(tmp_path: Path, zipped: bool) -> None:
    content = {
        "args": argparse.Namespace(lr=1e-3, nested=argparse.Namespace(a=[1])),
        "best": np.float64(0.25),
        "history": np.arange(4, dtype=np.float32),
        "raw": b"\x00\xff",
        "state_dict": OrderedDict(WEIGHTS),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
    }
    path = save(content, tmp_path / "epoch_3.pt", zipped=zipped)
    found = read_checkpoint(path, "here")
    assert isinstance(found["args"], Inert)
    assert isinstance(found["best"], Inert)
    assert isinstance(found["history"], Inert)
    assert found["raw"] == b"\x00\xff"
    weights = read_weights(path, "here")
    assert same(weights.tensors)
    assert weights.notes == ("weights under 'state_dict'",)


@pytest.mark.parametrize(
    ("extra", "prefix", "removed"),
    [
        ({}, "", ""),
        ({}, "module.", "module."),
        ({}, "module._orig_mod.", "module._orig_mod."),
        ({}, "model.", ""),
        ({"pytorch-lightning_version": "2.4.0"}, "model.", "model."),
        ({"pytorch-lightning_version": "2.4.0"}, "_orig_mod.clip.", "_orig_mod.clip."),
        ({"pytorch-lightning_version": "2.4.0"}, "model._orig_mod.", "model._orig_mod."),
    ],
)
def test_names_of_wrappers_are_removed_and_told(
    tmp_path: Path, extra: dict[str, str], prefix: str, removed: str
) -> None:
    names = {f"{prefix}{name}": value for name, value in WEIGHTS.items()}
    weights = read_weights(save({**extra, "state_dict": names}, tmp_path / "last.ckpt"), "here")
    left = prefix.removeprefix(removed)
    assert same(weights.tensors, tuple(left + name for name in WEIGHTS))
    assert [note for note in weights.notes if "removed" in note] == (
        [f"'{removed}' removed from their names"] if removed else []
    )


def test_a_lightning_module_with_several_parts_keeps_their_names(tmp_path: Path) -> None:
    names = {"model.visual.proj": WEIGHTS["visual.proj"], "loss.logit_scale": WEIGHTS["logit_scale"]}
    path = save({"pytorch-lightning_version": "2.4.0", "state_dict": names}, tmp_path / "last.ckpt")
    assert list(read_weights(path, "here").tensors) == list(names)


def test_weights_in_unknown_places_are_named(tmp_path: Path) -> None:
    path = save({"student": WEIGHTS, "teacher": WEIGHTS, "epoch": 1}, tmp_path / "a.pt")
    with raises_error("KD-BASE-046", where="here", mentions=("student, teacher",)):
        read_weights(path, "here")


@pytest.mark.parametrize(
    "content",
    [
        {"model": WEIGHTS, "model_ema": WEIGHTS},
        {"state_dict": {f"module.{name}": value for name, value in WEIGHTS.items()}, "ema": WEIGHTS},
        {"state_dict": WEIGHTS, "model": WEIGHTS},
        {"visual": {"proj": torch.zeros(2)}, "logit_scale": torch.tensor(1.0)},
    ],
    ids=["average", "wrapped", "two places", "parts"],
)
def test_weights_that_several_parts_could_be_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    with raises_error("KD-BASE-046", where="here", mentions=tuple(content)):
        read_weights(save(content, tmp_path / "a.pt"), "here")


def test_tensors_that_belong_to_training_are_told(tmp_path: Path) -> None:
    content = {"loss": {"centers": torch.zeros(2)}, "model": WEIGHTS, "rng": torch.zeros(1), "epoch": 3}
    weights = read_weights(save(content, tmp_path / "a.pt"), "here")
    assert same(weights.tensors)
    assert weights.notes == ("weights under 'model'", "other tensors not used: loss, rng")


def test_a_name_of_many_wrappers_ends(tmp_path: Path) -> None:
    path = save({"module." * 200_000 + "a": torch.zeros(1)}, tmp_path / "a.pt")
    assert read_weights(path, "here").notes == ("'module.module.module.module.' removed from their names",)


# ------------------------------------------------------------------------------------- attacks


class Call:
    """Calls ``function(*args)`` when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.reduced = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.reduced


class WithState:
    """An allowed class that gets ``state`` when it is unpickled."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return argparse.Namespace, (), self.state


HARM = Call(os.mkdir, "harm")


ATTACKS: dict[str, Any] = {
    "call": HARM,
    "system": Call(os.system, "touch harm"),
    "eval": Call(eval, "open('harm', 'w')"),
    "getattr": Call(getattr, Path, "touch"),
    "torch.jit": Call(torch.jit.load, "harm"),
    "torch.load": Call(torch.load, "harm"),
    "numpy.load": Call(np.load, "harm"),
    "argument of an allowed call": Call(argparse.Namespace, HARM),
    "state of an allowed class": WithState({"a": HARM}),
    "name of a class": {Path: 1},
    "callable as data": {"f": os.system},
    "method of an allowed class": Call(np.ndarray.tofile, np.zeros(1), "harm"),
    "tensor subclass": Call(torch._tensor._rebuild_from_type_v2, os.mkdir, torch.Tensor, ("harm",), {}),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_of_a_checkpoint_runs(
    tmp_path: Path, attack: Any, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    allowed = set(torch.serialization.get_safe_globals())
    path = save({"state_dict": WEIGHTS, "x": attack}, tmp_path / "a.pt", zipped=zipped)
    with raises_error("KD-BASE-047", where="here", code=ExitCode.DENIED) as caught:
        read_weights(path, "here")
    assert "." in caught.value.why
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_states_of_harmless_classes_change_nothing(tmp_path: Path) -> None:
    """State that would replace a method, forge an array over foreign memory, or fill the memory."""
    dtype = Call(np.dtype, "O8", False, True)
    content = {
        "method": WithState({"__setstate__": 1, "__class__": 2}),
        "slots": WithState((None, {"__class__": 3})),
        "array": Call(CORE._reconstruct, np.ndarray, (0,), b"b"),
        "pointer": Call(CORE.scalar, dtype, b"\xff" * 8),
        "huge": Call(np.ndarray, (10**12,)),
        "state_dict": WEIGHTS,
    }
    assert same(read_weights(save(content, tmp_path / "a.pt"), "here").tensors)
    assert Inert().__class__ is Inert
    assert not hasattr(Inert(), "__dict__")


def test_what_other_libraries_allow_is_not_called(tmp_path: Path) -> None:
    path = save({"x": HARM, "state_dict": WEIGHTS}, tmp_path / "a.pt")
    content = {"x": Call(CORE.scalar, np.dtype("f8"), b"\0" * 8), "state_dict": WEIGHTS}
    with torch.serialization.safe_globals([os.mkdir, CORE.scalar, np.dtype]):
        with raises_error("KD-BASE-047"):
            read_weights(path, "here")
        assert isinstance(read_checkpoint(save(content, path), "here")["x"], Inert)
        assert np.dtype in torch.serialization.get_safe_globals()
    assert np.dtype not in torch.serialization.get_safe_globals()


def test_only_the_listed_names_are_harmless(tmp_path: Path) -> None:
    """Each of them belongs to a library of numbers or to argparse; none is a function that reads or writes."""
    assert {name.rpartition(".")[0] for name in HARMLESS} == {
        "argparse",
        "numpy",
        "numpy.core.multiarray",
        "numpy._core.multiarray",
    }
    path = save({"state_dict": WEIGHTS, "x": np.random.default_rng(0)}, tmp_path / "a.pt")
    with raises_error("KD-BASE-047", mentions=("numpy.random",)):
        read_weights(path, "here")


def legacy_bomb(path: Path) -> None:
    """A storage of 2**60 bytes by its own account."""
    save(WEIGHTS, path, zipped=False)
    path.write_bytes(path.read_bytes().replace(b"K\x06Nt", b"\x8a\x08\0\0\0\0\0\0\0\x10Nt"))


def many_names(path: Path) -> None:
    tensor = torch.zeros(5000)
    save({str(i): tensor for i in range(50)}, path)


def compressed(path: Path) -> None:
    save({"a": torch.zeros(1_000_000)}, path.with_name("plain"))
    with ZipFile(path.with_name("plain")) as old, ZipFile(path, "w", ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))


BOMBS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "stride 0": (lambda path: save({"a": torch.zeros(1).expand(10**12)}, path), ("KD-BASE-049",)),
    "one tensor under many names": (many_names, ("KD-BASE-049",)),
    "compressed": (compressed, ("KD-BASE-047",)),
    "meta": (lambda path: save({"a": torch.empty(10**12, device="meta")}, path), ("KD-BASE-049",)),
    "sparse": (lambda path: save({"a": torch.eye(3).to_sparse()}, path), ("KD-BASE-049",)),
    "legacy": (legacy_bomb, ("KD-BASE-047", "KD-BASE-048")),
}


@pytest.mark.parametrize(("write", "ids"), BOMBS.values(), ids=BOMBS)
def test_small_files_make_no_large_tensors(
    tmp_path: Path, write: Callable[[Path], object], ids: tuple[str, ...]
) -> None:
    write(tmp_path / "a.pt")
    with pytest.raises(KdkitError) as caught:
        read_weights(tmp_path / "a.pt", "here")
    assert caught.value.id in ids


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_ends_in_the_middle_is_named_as_such(tmp_path: Path, zipped: bool) -> None:
    path = save({"a": torch.zeros(1000)}, tmp_path / "a.pt", zipped=zipped)
    for share in (0.1, 0.5, 0.9):
        half = tmp_path / "half.pt"
        half.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with raises_error("KD-BASE-048"):
            read_weights(half, "here")
    if not zipped:
        with raises_error("KD-BASE-048", code=ExitCode.MISSING):
            read_weights(half, "here")


def test_other_pickles_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"text", pickle.dumps({"a": 1}), pickle.dumps(Call(os.mkdir, str(tmp_path / "harm")), 4)):
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(KdkitError) as caught:
            read_weights(tmp_path / "a.pt", "here")
        assert caught.value.id in ("KD-BASE-046", "KD-BASE-047", "KD-BASE-048")
    assert not (tmp_path / "harm").exists()
