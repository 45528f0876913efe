"""Features of a model for evaluation: stored (a teacher), or computed (the student)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE, TEXT, DualEncoder, Sample
from kdkit.core.data.images import decoding_threads, open_image
from kdkit.core.data.prompts import all_prompts
from kdkit.core.evaluation.zero_shot import Prompts, unit_rows

if TYPE_CHECKING:
    from torch import Tensor

    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column

Array = np.ndarray[Any, Any]
Reads = Literal["features", "image", "text", "answers"]
"""As of ``TaskSpec``."""
BATCH = 128
TEXT_BATCH = 256


def signal_alone(column: Column) -> str:
    """``image`` or ``text`` if a column has one of them alone, so that no image can be compared with a prompt; else
    empty."""
    given = [spec.name for spec in column.signals if spec.name in (IMAGE, TEXT)]
    return given[0] if len(given) == 1 else ""


class StoredFeatures:
    """A teacher's column of the feature store; the teacher itself may be gone.

    Args:
        name: in the evaluation.
        column: of the store.
        table: index of the samples.
        prompts: the prompts of the evaluation, for :meth:`covered`.
        reads: what the evaluation reads, as of ``TaskSpec``.
        training: the samples that the evaluation fits on, for :meth:`covered`.
    """

    def __init__(
        self,
        name: str,
        column: Column,
        table: SampleIndex,
        prompts: Prompts | None = None,
        *,
        reads: Reads = "features",
        training: Sequence[Sample] = (),
    ) -> None:
        self._name, self._column, self._prompts = name, column, prompts or {}
        self._signals = {"image": (IMAGE,), "text": (TEXT,)}.get(reads, (IMAGE, TEXT))
        places = column.locate(table)
        self._place = dict(zip(table.ids, places.tolist(), strict=True))
        self._incomplete = {sample.domain for sample in training if self._place.get(sample.id, -1) < 0}

    @property
    def name(self) -> str:
        return self._name

    @property
    def lacks(self) -> tuple[str, ...]:
        """Signals that the evaluation reads and the teacher never gives, so that it cannot be scored."""
        given = {spec.name for spec in self._column.signals}
        return tuple(signal for signal in self._signals if signal not in given)

    def fingerprint(self) -> str:
        """Digest of everything that its features depend on."""
        return f"{self._column.fingerprint} {self._column.text_digest(all_prompts(self._prompts))}"

    def covered(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples of the domains whose samples and prompts are all in the column.

        A domain is compared on all of its samples or not at all: accuracies on different samples are not comparable.
        """
        lacking = {sample.domain for sample in samples if self._place.get(sample.id, -1) < 0} | self._incomplete
        for domain, classes in self._prompts.items():
            if any(text not in self._column.texts for group in classes.values() for text in group):
                lacking.add(domain)
        return [sample for sample in samples if sample.domain not in lacking]

    def image(self, samples: Sequence[Sample]) -> Array:
        """(N, D) float32, unit rows.

        Raises:
            KdkitError: a sample that is not extracted, or a NaN feature.
        """
        return self._rows(IMAGE, samples)

    def captions(self, samples: Sequence[Sample]) -> Array:
        """(N, D) float32, unit rows. Raises: as :meth:`image`."""
        return self._rows(TEXT, samples)

    def text(self, texts: Sequence[str]) -> Array:
        """(N, D) float32, unit rows."""
        rows = self._column.text_features(texts)
        return unit_rows(rows, what="prompt features", where=f"teacher '{self._name}'")

    def _rows(self, signal: str, samples: Sequence[Sample]) -> Array:
        places = np.array([self._place.get(sample.id, -1) for sample in samples], dtype=np.int64)
        if (places < 0).any():
            raise KdkitError(
                "KD-EVAL-012",
                f"teacher '{self._name}' has no features of {int((places < 0).sum())} samples "
                f"(the first is '{samples[int((places < 0).argmax())].id}')",
                fix=self._column.header.remedy,
            )
        names = [sample.id for sample in samples]
        rows = self._column.gather(signal, places)
        return unit_rows(rows, what=f"{signal} features", where=f"teacher '{self._name}'", names=names)


class StudentFeatures:
    """A dual encoder in evaluation mode, without gradients.

    Args:
        name: in the evaluation.
        student: an ``nn.Module`` too; moved to ``device``; its mode is restored.
        batch: images at a time.
        progress: called after every batch with its number of images.
    """

    def __init__(
        self,
        name: str,
        student: DualEncoder,
        *,
        device: str = "cpu",
        batch: int = BATCH,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._name, self._student, self._device, self._batch = name, student, device, batch
        self._progress = progress

    @property
    def name(self) -> str:
        return self._name

    def image(self, samples: Sequence[Sample]) -> Array:
        """(N, D) float32, unit rows. Decoding and preprocessing run in threads, one batch ahead.

        Raises:
            KdkitError: an unreadable image, or a NaN feature.
        """
        rows: list[Array] = []
        with evaluating(self._student, self._device, inference=True):
            for pixels in self._batches(samples):
                rows.append(self._student.encode_image(pixels.to(self._device)).float().cpu().numpy())
                if self._progress:
                    self._progress(len(pixels))
        names = [sample.id for sample in samples]
        return unit_rows(np.concatenate(rows), what="image features", where=f"student '{self._name}'", names=names)

    def captions(self, samples: Sequence[Sample]) -> Array:
        """(N, D) float32, unit rows; equal texts are encoded once."""
        texts = {text: row for row, text in enumerate(dict.fromkeys(sample.text for sample in samples))}
        return self.text(list(texts))[[texts[sample.text] for sample in samples]]

    def text(self, texts: Sequence[str]) -> Array:
        """(N, D) float32, unit rows."""
        parts = [texts[start : start + TEXT_BATCH] for start in range(0, len(texts), TEXT_BATCH)]
        with evaluating(self._student, self._device, inference=True):
            rows = [self._student.encode_text(part).float().cpu().numpy() for part in parts]
        return unit_rows(np.concatenate(rows), what="prompt features", where=f"student '{self._name}'")

    def _batches(self, samples: Sequence[Sample]) -> Iterator[Tensor]:
        import torch

        def prepare(sample: Sample) -> Tensor:
            return self._student.preprocess(open_image(sample))

        groups = [samples[start : start + self._batch] for start in range(0, len(samples), self._batch)]
        with ThreadPoolExecutor(decoding_threads()) as pool:
            ahead = [pool.submit(prepare, sample) for sample in groups[0]] if groups else []
            for number in range(len(groups)):
                now = ahead
                following = groups[number + 1] if number + 1 < len(groups) else ()
                ahead = [pool.submit(prepare, sample) for sample in following]
                yield torch.stack([item.result() for item in now])


@contextmanager
def evaluating(model: object, device: str, *, inference: bool = False) -> Iterator[None]:
    """A module in evaluation mode on the device, with ``inference`` under torch's inference mode; restores its mode."""
    import torch

    training = bool(getattr(model, "training", False))
    if isinstance(model, torch.nn.Module):
        model.to(device).eval()
    try:
        with torch.inference_mode() if inference else nullcontext():
            yield
    finally:
        if isinstance(model, torch.nn.Module):
            model.train(training)
