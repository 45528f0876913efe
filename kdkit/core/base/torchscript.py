"""Tensors of a TorchScript archive, read as data.

``torch.jit.load`` compiles the archive's code. Here its pickle becomes a tree of plain objects: no name in it is
imported, nothing is called, and the code is not opened. The format is that of ``torch/csrc/jit/serialization``.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, is_zipfile

if TYPE_CHECKING:
    from torch import Tensor

_REBUILD = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter")
_MARK = "constants.pkl"
"""In archives of TorchScript alone; ``torch.save`` writes none."""
_MOST_NODES = 1_000_000
_LONGEST_NAME = 500
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LITERALS = ("BINUNICODE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1")


class UnsafeContent(Exception):  # what was found, as in UnpicklingError
    """A file holds what no file of weights needs."""


@dataclass(frozen=True)
class _Name:
    """A global of the pickle: ``module name``; never imported."""

    text: str


@dataclass
class _Object:
    """An object that the pickle would make by ``name(*args)``."""

    name: str
    args: tuple[Any, ...]
    state: Any = field(default_factory=dict)


@dataclass(frozen=True)
class _Stored:
    """A persistent id: ``("storage", type, key, device, count)``."""

    id: tuple[Any, ...]


def is_torchscript(path: Path) -> bool:
    """Whether ``path`` is an archive that ``torch.jit.save`` wrote."""
    if not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return bool(_roots(archive))


def _roots(archive: ZipFile) -> list[str]:
    """Top folders with the mark, of which there must be one; ``*/code/`` is not checked by ``read_checkpoint``."""
    paths = [name.split("/") for name in archive.namelist()]
    return [parts[0] for parts in paths if len(parts) == 2 and parts[1] == _MARK and parts[0] != "code"]


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Dotted name -> tensor of every parameter and buffer, as ``torch.jit.load(path).state_dict()`` names them.

    Tensors that the module has as plain attributes are among them: the pickle does not tell them apart.

    Raises:
        UnsafeContent: the archive's pickle holds what ``torch.jit.save`` does not write.
        KeyError: a record is missing.
    """
    with ZipFile(path) as archive:
        (root,) = _roots(archive)
        module = _read_pickle(archive.read(f"{root}/data.pkl"))
        tensors = _Tensors(archive, f"{root}/data/")
        return {name: tensors.rebuild(call) for name, call in _calls(module, iter(range(_MOST_NODES)))}


def _read_pickle(data: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def top(count: int) -> list[Any]:
        if count > len(stack):
            raise UnsafeContent("a pickle that takes more than it has")
        taken = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return taken

    def to_mark() -> list[Any]:
        return top(len(stack) - marks.pop())

    arg: Any
    for opcode, arg, _ in pickletools.genops(data):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name in _LITERALS:
            stack.append(arg)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "TUPLE":
            stack.append(tuple(to_mark()))
        elif name in _TUPLES:
            stack.append(tuple(top(_TUPLES[name])))
        elif name == "GLOBAL":
            stack.append(_Name(str(arg)))
        elif name == "BINPERSID":
            stack.append(_Stored(_typed(top(1)[0], tuple)))
        elif name in ("NEWOBJ", "REDUCE"):
            made, args = top(2)
            stack.append(_Object(_typed(made, _Name).text, _typed(args, tuple)))
        elif name == "BUILD":
            (state,) = top(1)
            _typed(stack[-1], _Object).state = state
        elif name in ("APPEND", "APPENDS"):
            items = top(1) if name == "APPEND" else to_mark()
            _typed(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            pairs = top(2) if name == "SETITEM" else to_mark()
            keys = pairs[::2]
            if not all(isinstance(key, (str, int, float)) for key in keys):
                raise UnsafeContent("unsupported key of a dictionary")
            if isinstance(stack[-1], dict):
                stack[-1].update(zip(keys, pairs[1::2], strict=True))
            else:  # a dictionary of TorchScript, which no module's weights are in
                _typed(stack[-1], _Object)
        elif name != "PROTO":
            raise UnsafeContent(f"unsupported opcode {name}")
    raise EOFError


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise UnsafeContent(f"unsupported use of a {type(value).__name__}")
    return value


def _calls(module: Any, budget: Iterator[int], prefix: str = "") -> Iterator[tuple[str, _Object]]:
    """Name and call of every tensor below ``module``; the budget ends trees whose parts repeat."""
    if not isinstance(module, _Object) or not isinstance(module.state, dict):
        return
    for key, value in module.state.items():
        if next(budget, None) is None:
            raise UnsafeContent(f"unsupported: more than {_MOST_NODES} attributes")
        if len(prefix) + len(str(key)) > _LONGEST_NAME:
            raise UnsafeContent(f"unsupported: a name of more than {_LONGEST_NAME} characters")
        if isinstance(value, _Object) and value.name in _REBUILD:
            yield f"{prefix}{key}", value
        else:
            yield from _calls(value, budget, f"{prefix}{key}.")


class _Tensors:
    """Makes tensors from the archive's records; those that share a storage share its bytes."""

    def __init__(self, archive: ZipFile, folder: str) -> None:
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def rebuild(self, call: _Object) -> Tensor:
        if call.name == _REBUILD[1]:  # (tensor, requires_grad, hooks)
            return self.rebuild(_typed(call.args[0], _Object))
        stored, offset, size, stride = call.args[:4]
        flat = self._storage(_typed(stored, _Stored).id)
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
            raise UnsafeContent("unsupported shape of a tensor")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if prod(size) and (last >= len(flat) or prod(size) > len(flat)):
            raise UnsafeContent("a tensor is larger than its storage")
        return flat.as_strided(size, stride, offset)

    def _storage(self, id: tuple[Any, ...]) -> Tensor:
        """The flat tensor of a storage."""
        import torch

        tag, kind, key, _, count = id
        types = {
            "FloatStorage": torch.float32,
            "HalfStorage": torch.float16,
            "BFloat16Storage": torch.bfloat16,
            "DoubleStorage": torch.float64,
            "LongStorage": torch.int64,
            "IntStorage": torch.int32,
            "ShortStorage": torch.int16,
            "CharStorage": torch.int8,
            "ByteStorage": torch.uint8,
            "BoolStorage": torch.bool,
        }
        module, _, name = _typed(kind, _Name).text.partition(" ")
        if tag != "storage" or module != "torch" or name not in types or not str(key).isdecimal():
            raise UnsafeContent(f"unsupported storage {module}.{name}")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._folder}{key}"))
            flat = torch.frombuffer(content, dtype=types[name]) if content else torch.empty(0, dtype=types[name])
            if len(flat) != count:
                raise UnsafeContent(f"a storage of {count} values has {len(flat)}")
            self._storages[key] = flat
        return self._storages[key]
