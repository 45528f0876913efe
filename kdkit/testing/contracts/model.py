"""What every loaded teacher promises, whatever its loader: the same signals for the same sample, for ever."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdkit.core.contracts import IMPORTED, Answering, Sample, SignalSource, TextEncoder
from kdkit.core.teachers.probe import freeze
from kdkit.core.teachers.signals import as_signal_source
from kdkit.testing.contract import Contract, once, skip
from kdkit.testing.examples import pictures, samples
from kdkit.testing.network import offline
from kdkit.testing.tensors import assert_all_near, assert_finite, difference

THREADS = 4
LARGEST = 65504
"""Largest float16 number; the feature store keeps signals as float16."""
NEAR = 0.1
"""How far bf16 may be from float32, as a share of the largest entry."""
Listing = Mapping[str, tuple[int, int]]


class ModelContract(Contract):
    """The checks of a model that was loaded from a folder; teachers and loaders share them."""

    @abstractmethod
    def folder(self) -> Path:
        """The folder to load from."""

    @abstractmethod
    def load(self, folder: Path) -> Any:
        """A new model from ``folder``."""

    def samples(self) -> list[Sample]:
        """Four samples to go with four pictures of awkward sizes."""
        return samples()

    @once
    def model(self) -> Any:
        """The model, loaded with the network cut off and frozen as core does it. No check changes it."""
        return self._opened(self.folder())

    def test_loads(self) -> None:
        """It loads with the network cut off, and is a teacher of a known kind that says what it does."""
        model = self.model()
        known = isinstance(model, (TextEncoder, SignalSource))  # a dual encoder is a text encoder
        assert known, f"{type(model).__name__} is no DualEncoder, TextEncoder or SignalSource; see kdkit.core.contracts"
        identity = model.identity()
        plain = isinstance(identity, Mapping) and all(isinstance(x, str) for pair in identity.items() for x in pair)
        assert plain, f"expected identity() to be text by name, got {identity!r}"
        assert identity, "expected identity() to name preprocessing and tokenizer, got nothing: caches go by it"

    def test_shapes_and_dtypes(self) -> None:
        """Every signal has the declared shape and kind of number, is finite and fits float16."""
        computed = self.compute(self.model())
        assert_finite("of the example pictures", computed)
        signals = as_signal_source(self.model()).signals
        declared = sorted(spec.name for spec in signals)
        assert declared or isinstance(self.model(), Answering), "expected at least one signal, got none"
        assert sorted(computed) == declared, f"declared are the signals {declared}, computed {sorted(computed)}"
        for spec in signals:
            rows = computed[spec.name]
            wanted = (len(self.samples()), *spec.shape)
            assert rows.shape == wanted, f"'{spec.name}': expected {wanted}, got {tuple(rows.shape)}"
            floating = spec.dtype.startswith("float")
            same_kind = rows.is_floating_point() == floating
            assert same_kind, f"'{spec.name}': declared {spec.dtype}, computed {rows.dtype}"
            if spec.dtype == "float16":
                largest = rows.abs().max().item()
                assert largest < LARGEST, f"'{spec.name}': {largest:g} does not fit float16; declare float32"

    def test_deterministic(self) -> None:
        """Computed again, the rows are the same to the last bit, whatever torch's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            first = self.compute(self.model())
            torch.manual_seed(2)
            second = self.compute(self.model())
        assert_all_near("computed again", second, first, 0, fix="is dropout or a random crop still on?")

    def test_depends_on_the_sample(self) -> None:
        """Different samples have different rows."""
        for name, rows in self.compute(self.model()).items():
            apart = difference(rows[1:].float(), rows[:1].float().expand_as(rows[1:]))
            assert apart > 1e-6, f"'{name}' is the same for every example; does it look at its input?"

    def test_rows_are_independent(self) -> None:
        """A row alone is the row in a batch: a sample's signal must not depend on its neighbors."""
        whole = self.compute(self.model())
        pairs = list(zip(pictures(), self.samples(), strict=True))
        alone = [self.compute(self.model(), [pair]) for pair in pairs]
        joined = {name: torch.cat([row[name] for row in alone]) for name in whole}
        assert_all_near("alone and in a batch", joined, whole, fix="is BatchNorm in training mode, or padding seen?")

    def test_prepare_in_threads(self) -> None:
        """Prepared in several threads at once, the rows are those of one thread."""
        source, wanted = as_signal_source(self.model()), self.compute(self.model())
        pairs = [*zip(pictures(), self.samples(), strict=True)] * THREADS
        with ThreadPoolExecutor(THREADS) as pool:
            items = list(pool.map(lambda pair: source.prepare(*pair), pairs))
        count = len(self.samples())
        for start in range(0, len(items), count):
            found = as_signal_source(self.model()).compute(items[start : start + count])
            assert_all_near("prepared in threads", found, wanted, fix="share no buffer between calls of prepare")

    def test_eval_mode(self) -> None:
        """Every module of it is in evaluation mode, without parameters to train."""
        for module in _modules(self.model()):
            training = [name or type(module).__name__ for name, part in module.named_modules() if part.training]
            assert not training, f"in training mode: {', '.join(training[:3])}; call .eval() in the loader"
            wanting = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
            assert not wanting, f"parameters that want gradients: {', '.join(wanting[:3])}"

    def test_no_gradient(self) -> None:
        """What it computes has no graph, where gradients are on as well."""
        with torch.enable_grad():
            for name, rows in self.compute(self.model()).items():
                assert not rows.requires_grad, f"'{name}' wants a gradient; compute under torch.no_grad()"

    def test_bf16(self) -> None:
        """Under bf16 autocast the rows are finite, and near those of float32."""
        exact = {name: rows for name, rows in self.compute(self.model()).items() if rows.is_floating_point()}
        with torch.autocast("cpu", torch.bfloat16):
            rough = {name: rows.float() for name, rows in self.compute(self.model()).items() if name in exact}
        assert_finite("in bf16", rough)
        assert_all_near("in bf16", rough, exact, NEAR)

    def test_loads_again(self) -> None:
        """Loaded a second time with the network cut off, it computes the same and leaves torch's seed alone."""
        wanted, before = self.compute(self.model()), torch.random.get_rng_state()
        again = self._opened(self.folder())
        with offline():
            found = self.compute(again)
        assert torch.equal(before, torch.random.get_rng_state()), "loading moves torch's seed; use fork_rng"
        assert_all_near("after loading again", found, wanted, 0, fix="are weights missing, and drawn at random?")
        assert dict(again.identity()) == dict(self.model().identity()), "identity() differs after loading again"

    def test_folder_is_left_alone(self) -> None:
        """Loading and computing write nothing into the folder."""
        self.model()
        folder = self.folder()
        before = _listing(folder)
        self.compute(self._opened(folder))
        after = _listing(folder)
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        assert not changed, f"changed in the folder: {', '.join(changed[:3])}; its files are hashed and locked"

    def compute(self, model: Any, pairs: Sequence[tuple[Any, Sample]] | None = None) -> dict[str, Tensor]:
        """Signal name -> rows of ``pairs`` (by default of all example pictures and samples)."""
        if IMPORTED in model.identity():
            raise skip("its features were imported: it computes none")
        source = as_signal_source(model)
        chosen = pairs or list(zip(pictures(), self.samples(), strict=True))
        return dict(source.compute([source.prepare(image, sample) for image, sample in chosen]))

    def _opened(self, folder: Path) -> Any:
        """Loaded with the network cut off, and frozen as core does it."""
        with offline():
            return freeze(self.load(folder))


def _modules(model: Any) -> list[nn.Module]:
    """The model, or the modules that it holds."""
    if isinstance(model, nn.Module):
        return [model]
    return [held for held in vars(model).values() if isinstance(held, nn.Module)] if hasattr(model, "__dict__") else []


def _listing(folder: Path) -> Listing:
    """Every file with its size and time of change."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in files}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
