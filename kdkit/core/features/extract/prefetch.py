"""Images decoded and preprocessed in threads, ahead of the models that take them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.core.data.images import UnreadableImage, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

Prepare = Callable[["Image", Sample], Any]
Work = tuple[Sample, Sequence[Prepare]]
Prepared = list[Any] | KdkitError


def prefetch(work: Iterable[Work], workers: int, ahead: int) -> Generator[Prepared, None, None]:
    """Decode each sample's image once and call its functions on it, in order; equal functions are called once.

    Args:
        work: pairs of a sample and the functions to call with its image; read no further than ``ahead``.
        workers: threads.
        ahead: how many results may wait to be consumed.

    Yields:
        One result per function, or the error when an image cannot be read. Other errors of functions are raised.
    """
    waiting: deque[Future[Prepared]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="prepare")
    try:
        for sample, functions in work:
            waiting.append(pool.submit(_prepare, sample, functions))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(sample: Sample, functions: Sequence[Prepare]) -> Prepared:
    try:
        image = open_image(sample)
        prepared = {function: function(image, sample) for function in dict.fromkeys(functions)}
        return [prepared[function] for function in functions]
    except UnreadableImage as error:  # also of a further image, which a function opens
        return error
