"""What every student promises: outputs that can be trained, evaluated, saved and made again."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdkit.core.contracts import AltersInputs, DualEncoder, Sample, StudentSpec
from kdkit.core.plugin_system.catalogue import Family, resolve
from kdkit.core.sharing.kinds import is_known_kind
from kdkit.testing.contract import Contract, once
from kdkit.testing.examples import pictures, samples
from kdkit.testing.network import offline
from kdkit.testing.tensors import assert_all_near, assert_finite

THREADS = 4
Inputs = Mapping[str, Tensor]


class StudentContract(Contract):
    """Subclass with ``name``, and with the ``options`` of a small student where the default one is large."""

    family: ClassVar[Family] = "student"

    def samples(self) -> list[Sample]:
        """Four samples to go with four pictures of awkward sizes."""
        return samples()

    @once
    def student(self) -> Any:
        """A new student, made with the network cut off, in evaluation mode. No check changes it."""
        return self._new()

    @once
    def inputs(self) -> Inputs:
        """The prepared and stacked samples."""
        return _stack(self._prepared(self.student()))

    def test_outputs(self) -> None:
        """Every declared output is (B, ..., width), float32 and finite; with image and text comes a ``logit_scale``."""
        outputs = self._forward(self.student())
        assert_finite("of the example samples", {n: x for n, x in outputs.items() if x.is_floating_point()})
        declared = self.student().outputs
        for name, width in declared.items():
            x = outputs.get(name)
            assert x is not None, f"the output '{name}' is declared, but forward gives {sorted(outputs)}"
            shape = tuple(x.shape)
            right = x.ndim >= 2 and (shape[0], shape[-1]) == (len(self.samples()), width)
            assert right, f"'{name}': expected ({len(self.samples())}, ..., {width}), got {shape}"
            assert x.dtype == torch.float32, f"'{name}': expected float32, got {x.dtype}"
        if {"image", "text"} <= set(declared):
            scale = outputs.get("logit_scale")
            assert scale is not None, "expected 'logit_scale' beside image and text, got none"
            assert scale.shape == (), f"'logit_scale': expected shape (), got {tuple(scale.shape)}"
            assert float(scale) > 0, f"'logit_scale': expected above 0 (exponentiated), got {float(scale)}"

    def test_prepare(self) -> None:
        """Inputs have equal shapes for all samples, and are the same when prepared again, in threads too."""
        first = self._prepared(self.student())
        shapes = [{name: tuple(x.shape) for name, x in item.items()} for item in first]
        assert all(shape == shapes[0] for shape in shapes), f"expected equal shapes of all samples, got {shapes}"
        pairs = list(zip(pictures(), self.samples(), strict=True)) * THREADS
        with ThreadPoolExecutor(THREADS) as pool:
            items = list(pool.map(lambda pair: self.student().prepare(*pair), pairs))
        for number, item in enumerate(items):
            assert_all_near("prepared in threads", item, first[number % len(first)], 0, fix="is prepare deterministic?")

    def test_deterministic(self) -> None:
        """In evaluation mode, forward gives the same twice, whatever torch's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            first = self._forward(self.student())
            torch.manual_seed(2)
            second = self._forward(self.student())
        assert_all_near("computed again", second, first, 0, fix="is dropout on in evaluation mode?")

    def test_rows_are_independent(self) -> None:
        """In evaluation mode, a row alone is the row in a batch."""
        items = self._prepared(self.student())
        outputs = self._forward(self.student())
        rows = {name: x for name, x in outputs.items() if not isinstance(x, nn.Parameter)}
        whole = {name: x for name, x in rows.items() if x.shape[:1] == (len(items),)}
        alone = [self._forward(self.student(), _stack([item])) for item in items]
        joined = {name: torch.cat([row[name] for row in alone]) for name in whole}
        assert_all_near("alone and in a batch", joined, whole)

    def test_trains(self) -> None:
        """In training mode a gradient reaches the parameters from every output, and is finite."""
        student = self._new().train()
        self._train(student, "")

    def test_trains_in_bf16(self) -> None:
        """Forward and backward under bf16 autocast are finite, and the parameters stay float32."""
        student = self._new().train()
        with torch.autocast("cpu", torch.bfloat16):
            self._train(student, "in bf16")
        kinds = {parameter.dtype for parameter in student.parameters()}
        assert kinds == {torch.float32}, f"expected float32 parameters, got {sorted(map(str, kinds))}"

    def test_seed(self) -> None:
        """Made twice under the same torch seed it has the same weights: runs can be repeated."""
        first, second = self._new().state_dict(), self._new().state_dict()
        for name, x in first.items():
            assert torch.equal(second[name], x), f"'{name}' differs; draw weights from torch's global generator"

    def test_config(self) -> None:
        """``config`` is JSON; the factory makes the same architecture from it."""
        config = dict(self.student().config)
        try:
            again = json.loads(json.dumps(config))
        except (TypeError, ValueError) as error:
            raise AssertionError(f"config is not JSON: {error}") from None
        with offline(), torch.random.fork_rng(devices=[]):
            made = resolve(self.entry.spec.factory)(**again)
        shapes = [{name: tuple(x.shape) for name, x in s.state_dict().items()} for s in (self.student(), made)]
        assert shapes[0] == shapes[1], "factory(**config) has other weights than the student"

    def test_saves_and_loads(self) -> None:
        """Saved and loaded with the network cut off, it computes the same, and says the same of itself."""
        student, folder = self.student(), self._saved()
        with offline():
            again = resolve(self.catalogue.spec(StudentSpec, self.name).loader)(folder).eval()
            found = self._forward(again, _stack(self._prepared(again)))
        assert_all_near("after saving and loading", found, self._forward(student), 1e-6)
        assert dict(again.config) == dict(student.config), "config differs after saving and loading"
        assert dict(again.identity()) == dict(student.identity()), "identity() differs after saving and loading"

    def test_saves_no_pickle(self) -> None:
        """It saves kinds of files that bundles and pulled projects may hold: no pickle, which can run code."""
        files = [path for path in self._saved().rglob("*") if path.is_file()]
        assert files, "expected files, save() wrote none"
        found = [path.name for path in files if not is_known_kind(path.name)]
        assert not found, f"expected safetensors and JSON, got {', '.join(found)}"

    def test_publishes(self) -> None:
        """A publisher that its spec names writes files that load and compute the same, and lines that are Python."""
        spec = self.catalogue.spec(StudentSpec, self.name)
        if not spec.publisher:
            return
        release, pulled = self.scratch() / "release", self.scratch() / "pulled"
        pulled.mkdir()
        with offline():
            published = resolve(spec.publisher)(self._saved(), release, "lab/student", merged=False, skip={})
            for name in published.names:
                assert (release / name).is_file(), f"'{name}' is named, but not written"
                shutil.copyfile(release / name, pulled / name)
            again = resolve(spec.loader)(pulled).eval()
            found = self._forward(again, _stack(self._prepared(again)))
        assert_all_near("after publishing", found, self._forward(self.student()), 1e-6)
        for library, lines in published.lines.items():
            ast.parse(lines + published.probes[library])
            assert "lab/student" in lines, "the lines do not load the repository that they are for"

    def test_evaluates_as_it_trains(self) -> None:
        """A dual encoder's ``encode_image`` and ``encode_text`` give what ``forward`` gives."""
        student = self.student()
        if isinstance(student, DualEncoder):
            pixels = torch.stack([student.preprocess(picture) for picture in pictures()])
            texts = [sample.text for sample in self.samples()]
            with torch.no_grad():
                found = {"image": student.encode_image(pixels), "text": student.encode_text(texts)}
            outputs = self._forward(student)
            assert_all_near("by encode_*", found, {name: outputs[name] for name in found})

    def test_alters_each_row_by_its_own_seed(self) -> None:
        """If it alters inputs, their shapes and types stay, and a row follows from itself and its seed."""
        student, inputs = self.student(), self.inputs()
        if not isinstance(student, AltersInputs):
            return
        seeds = torch.arange(len(self.samples()))
        whole = dict(student.alter(inputs, seeds))
        shapes = [{name: (tuple(x.shape), x.dtype) for name, x in rows.items()} for rows in (inputs, whole)]
        assert shapes[0] == shapes[1], f"expected the shapes and types of the inputs, {shapes[0]}, got {shapes[1]}"
        for row, seed in enumerate(seeds):
            alone = student.alter({name: x[row : row + 1] for name, x in inputs.items()}, seed[None])
            assert_all_near("altered alone", alone, {name: x[row : row + 1] for name, x in whole.items()})
        assert any(not torch.equal(whole[name], x) for name, x in inputs.items()), "the altered inputs are the inputs"
        outputs = self._forward(student, whole)
        assert_finite("of altered inputs", {name: x for name, x in outputs.items() if x.is_floating_point()})

    def _new(self) -> Any:
        """Made under one seed, without network."""
        with offline(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make().eval()

    def _prepared(self, student: Any) -> list[Inputs]:
        return [student.prepare(*pair) for pair in zip(pictures(), self.samples(), strict=True)]

    def _forward(self, student: Any, inputs: Inputs | None = None) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(student(inputs or self.inputs()))

    def _train(self, student: Any, how: str) -> None:
        """Backwards from each output that a loss can use, alone."""
        names = [name for name, x in student(self.inputs()).items() if x.requires_grad]
        lacking = sorted(set(student.outputs) - set(names))
        assert not lacking, f"no graph behind {', '.join(lacking)} {how}".strip()
        assert names, f"no output has a graph {how}".strip()
        for name in names:
            student.zero_grad()
            torch.autograd.backward(student(self.inputs())[name].float().pow(2).sum())
            gradients = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
            reached = any(bool(gradient.any()) for gradient in gradients.values())
            assert reached, f"no gradient from '{name}' reaches a parameter {how}".strip()
            assert_finite(f"(gradient from '{name}') {how}".strip(), gradients)

    @once
    def _saved(self) -> Path:
        folder = self.scratch() / "student"
        self.student().save(folder)
        return folder


def _stack(items: Sequence[Inputs]) -> dict[str, Tensor]:
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}
