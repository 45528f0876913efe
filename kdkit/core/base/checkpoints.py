"""Reads checkpoints of PyTorch without running code: tensors, and inert data in place of all else that is harmless.

PyTorch's ``weights_only`` unpickler calls only what it knows. Training scripts save more beside the weights: scores as
NumPy scalars, arguments as ``argparse.Namespace``. Each of these names becomes :class:`Inert` here, for one read alone:
neither NumPy, whose arrays can be forged to point anywhere in memory, nor the named class is called.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_STORED, ZipFile, is_zipfile

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.torchscript import UnsafeContent, is_torchscript, read_torchscript

if TYPE_CHECKING:
    from torch import Tensor

HARMLESS = (
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    "numpy.ndarray",
)
"""What real checkpoints name beside tensors, over what PyTorch itself allows (such as ``collections.OrderedDict``)."""
_ENCODINGS = ("latin1", "latin-1", "utf-8", "ascii")
_NESTED = ("state_dict", "model_state_dict", "model", "module")
"""Where training scripts put the weights, beside their optimizer and epoch."""
_LIGHTNING = "pytorch-lightning_version"
_WRAPPERS = ("module", "_orig_mod")
"""First names of all weights of a model that was wrapped: by ``DistributedDataParallel``, by ``torch.compile``."""
_WRAPPED = re.compile(rf"((?:{'|'.join(_WRAPPERS)})\.)+")
_MOST_WRAPPERS = 4
_COPIES = 4
"""Names per tensor that a file may have: tied weights. More would write much more than was read."""
_one_at_a_time = Lock()


class Inert:
    """Stands for an object of a checkpoint that is no tensor; takes any arguments and any state, and keeps nothing."""

    __slots__ = ()

    def __new__(cls, *_: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint.

    Attributes:
        tensors: name -> tensor, on the CPU; some may share memory.
        notes: what was done to find them, for people; empty for a plain state dict.
    """

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


def read_weights(path: Path, where: str) -> Weights:
    """The weights in a ``.pt``, ``.pth``, ``.bin`` or ``.ckpt``: a state dict, a training checkpoint, or TorchScript.

    State dicts of the same names (raw weights and their moving average) are refused: either could be the model's.

    A first name that all weights share is removed if it is that of a wrapper (``module.``, ``_orig_mod.``), or of the
    model inside a Lightning module.

    Args:
        path: the file.
        where: names it in errors.

    Raises:
        KdkitError: the file contains code, is cut off or none of PyTorch's, claims more memory than it has, or holds no
            weights, or several.
    """
    content = read_checkpoint(path, where)
    tensors, notes = _find_weights(content, where)
    _require_small(tensors, path.stat().st_size, where)
    lightning = isinstance(content, Mapping) and _LIGHTNING in content
    tensors, prefix = _without_prefix(tensors, lightning=lightning)
    if prefix:
        notes.append(f"'{prefix}' removed from their names")
    return Weights(tensors, tuple(notes))


def _find_weights(content: Any, where: str) -> tuple[Mapping[str, Tensor], list[str]]:
    """The model's tensors and notes on what else the file has. Raises: KdkitError: other tensors may be the model's."""
    found, notes = content, []
    for key in _NESTED:
        if not isinstance(found, Mapping) or not (chosen := _tensors(found.get(key))):
            continue
        others = {str(name): _tensors(part) for name, part in found.items() if name != key}
        names = _bare_names(chosen)
        if rivals := [name for name, part in others.items() if not names.isdisjoint(_bare_names(part))]:
            raise _not_known(where, [key, *rivals])
        beside = [name for name, part in others.items() if part] + [name for name in _tensors(found) if name != key]
        notes.append(f"weights under '{key}'")
        notes += [f"other tensors not used: {', '.join(beside[:8])}"] if beside else []
        found = found[key]
    tensors = _tensors(found)
    parts = [str(name) for name in found if _tensors(found[name])] if isinstance(found, Mapping) else []
    if parts or not tensors:
        raise _not_known(where, [*parts, *tensors])
    return tensors, notes


def _not_known(where: str, places: list[str]) -> KdkitError:
    return KdkitError(
        "KD-BASE-046",
        "which of these weights are the model's is not known" if places else "these weights hold no tensors",
        where=where,
        why=f"the file has tensors under {', '.join(places[:8])}" if places else "",
        fix="save the model's state dict in a file of its own",
    )


def read_checkpoint(path: Path, where: str) -> Any:
    """The whole content of a checkpoint; of a TorchScript archive its state dict. Raises: as :func:`read_weights`."""
    import torch

    try:
        _require_stored(path)
        if is_torchscript(path):
            return read_torchscript(path)
        with _harmless_names(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, UnsafeContent) as error:
        why = _reason(error)
        code = "GLOBAL" in why
        raise KdkitError(
            "KD-BASE-047",
            "these weights are a pickle " + ("that contains code" if code else "of an unsafe kind"),
            where=where,
            why=f"loading it would run that code ({why})" if code else why,
            fix="ask its authors for .safetensors, or convert it in a disposable sandbox",
            code=ExitCode.DENIED,
        ) from None
    except Exception as error:  # torch.load raises any error for other files
        cut = isinstance(error, EOFError) or "unexpected EOF" in str(error)
        raise KdkitError(
            "KD-BASE-048",
            "this file of weights is cut off" if cut else "PyTorch cannot read these weights",
            where=where,
            why=_reason(error),
            fix="download it again" if cut else "check the file, or download it again",
            code=ExitCode.MISSING if cut else ExitCode.USAGE,
        ) from None


@contextmanager
def _harmless_names() -> Iterator[None]:
    """Allow exactly :data:`HARMLESS`: what other libraries have allowed in this process is put back afterwards."""
    from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

    with _one_at_a_time:
        others = get_safe_globals()
        clear_safe_globals()
        try:
            add_safe_globals([*((Inert, name) for name in HARMLESS), (_encode, "_codecs.encode")])
            yield
        finally:
            clear_safe_globals()
            add_safe_globals(others)


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    """``_codecs.encode``, with which protocol 2 writes bytes; not in the defaults of every torch."""
    if encoding not in _ENCODINGS:
        raise UnsafeContent(f"unsupported encoding {encoding!r}")
    return text.encode(encoding)


def _require_stored(path: Path) -> None:
    """Refuse archives whose records unpack to more than the file has: PyTorch compresses only TorchScript's code."""
    if is_zipfile(path):
        with ZipFile(path) as archive:
            records = [info for info in archive.infolist() if info.filename.split("/")[1:2] != ["code"]]
        if any(info.compress_type != ZIP_STORED for info in records):
            raise UnsafeContent("an unsupported archive: its records are compressed")
        if sum(info.file_size for info in records) > path.stat().st_size:
            raise UnsafeContent("an unsupported archive: its records overlap")


def _require_small(tensors: Mapping[str, Tensor], size: int, where: str) -> None:
    """Refuse tensors that repeat few bytes of the file many times, or that are none of memory."""
    import torch

    sizes = [tensor.nelement() * tensor.element_size() for tensor in tensors.values()]
    plain = all(t.device.type == "cpu" and t.layout == torch.strided and not t.is_quantized for t in tensors.values())
    if not plain or max(sizes) > size or sum(sizes) > _COPIES * size:
        raise KdkitError(
            "KD-BASE-049",
            "these weights claim more memory than the file has" if plain else "these weights are no ordinary tensors",
            where=where,
            why=f"{sum(sizes):,} bytes of tensors in a file of {size:,}"
            if plain
            else "sparse, quantized or empty ones",
            fix="check where the file comes from; ask its authors for .safetensors",
            code=ExitCode.DENIED,
        )


def _tensors(content: Any) -> dict[str, Tensor]:
    import torch

    items = content.items() if isinstance(content, Mapping) else ()
    return {str(name): value for name, value in items if isinstance(value, torch.Tensor)}


def _without_prefix(tensors: Mapping[str, Tensor], *, lightning: bool) -> tuple[Mapping[str, Tensor], str]:
    """The tensors without the first names of wrappers, and what was removed."""
    removed = ""
    for _ in range(_MOST_WRAPPERS):
        firsts = {name.partition(".")[0] if "." in name else "" for name in tensors}
        first = firsts.pop()
        if firsts or not first or not (first in _WRAPPERS or lightning):
            break
        lightning = lightning and first in _WRAPPERS
        tensors = {name.removeprefix(f"{first}."): value for name, value in tensors.items()}
        removed += f"{first}."
    return tensors, removed


def _bare_names(names: Iterable[str]) -> set[str]:
    """Names without those of wrappers: a moving average of a model may be saved without its wrapper."""
    return {name[match.end() :] if (match := _WRAPPED.match(name)) else name for name in names}


def _reason(error: Exception) -> str:
    """The reason in torch's message, without its advice to load the file anyway."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "unsupported" in line.lower()]
    return (named or lines or [type(error).__name__])[0][:300]
