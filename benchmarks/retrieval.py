"""Exact ranks of N images among N captions, both ways: time and memory beside a chunked matrix product alone.

    python benchmarks/retrieval.py --rows 20000

The baseline multiplies the same matrices in blocks of 1000 rows and keeps nothing. Its best time and that of the ranks
are compared, measured in turn. Memory is the peak of a process that makes the features and the ranks, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from kdkit.core.evaluation.retrieval import mutual_ranks

Array = np.ndarray[Any, Any]


def features(rows: int, width: int, noise: float) -> tuple[Array, Array]:
    """Unit rows of images, and of captions that resemble them."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((rows, width), dtype=np.float32)
    text = rng.standard_normal((rows, width), dtype=np.float32)
    text *= noise
    text += image
    for part in (image, text):
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return image, text


def products(image: Array, text: Array, chunk: int = 1000) -> None:
    """The baseline: all similarities, in blocks, in float32."""
    images, texts = torch.from_numpy(image), torch.from_numpy(text).T
    block = torch.empty(chunk, len(text))
    for start in range(0, len(image), chunk):
        part = images[start : start + chunk]
        torch.mm(part, texts, out=block[: len(part)])


def timed(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def peak(rows: int, width: int, noise: float) -> float:
    """GiB of resident memory of a process that computes the ranks alone."""
    code = f"import benchmarks.retrieval as b; b.report_peak({rows}, {width}, {noise})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def report_peak(rows: int, width: int, noise: float) -> None:
    """Runs in a process of its own."""
    image, text = features(rows, width, noise)
    own = np.arange(rows)
    mutual_ranks(image, text, np.stack([own, own], axis=1))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="images, and as many captions")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--noise", type=float, default=4.0, help="of captions, relative to their image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    image, text = features(given.rows, given.width, given.noise)
    right = np.stack([np.arange(given.rows)] * 2, axis=1)
    baseline, ranks = [], []
    for _ in range(given.repeats):
        baseline.append(timed(lambda: products(image, text)))
        ranks.append(timed(lambda: mutual_ranks(image, text, right)))
    found = mutual_ranks(image, text, right)[0]
    result = {
        "rows": given.rows,
        "width": given.width,
        "threads": given.threads,
        "matrix_product_seconds": round(min(baseline), 2),
        "ranks_seconds": round(min(ranks), 2),
        "ratio": round(min(ranks) / min(baseline), 3),
        "peak_gib": round(peak(given.rows, given.width, given.noise), 2),
        "recall_at_1": round(float((found == 1).mean()), 4),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
