"""A project with stored features of two teachers: rotated copies of one latent world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from kdkit.core.contracts import SignalSpec
from kdkit.core.data import load_index
from kdkit.core.features import FeatureStore, Header
from kdkit.core.features.store.shard import PRESENT, Shard
from kdkit.core.project.project import Project

REGISTRY = """\
version: 1
teachers:
  narrow: {from: "local:narrow", loader: open_clip}
  wide: {from: "local:wide", loader: open_clip}
  unread: {from: "local:unread", loader: open_clip}
data:
  - {source: csv, path: pairs.csv}
"""
WIDTHS = {"narrow": 6, "wide": 10}


def make_project(folder: Path, samples: int = 60, calibration: int = 10) -> Project:
    """``samples`` for training, then ``calibration`` with NaN features, so that reading them shows."""
    (folder / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    lines = ["id,image,text,domain,split"]
    for number in range(samples + calibration):
        Image.new("L", (4, 4), number).save(folder / f"{number}.png")
        split = "train" if number < samples else "calibration"
        lines.append(f"s{number},{number}.png,picture {number},CT,{split}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    project = Project(folder)
    table = load_index(project)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(len(table), 5))
    latent = {"image": image, "text": image + 0.3 * rng.normal(size=image.shape)}
    for name, width in WIDTHS.items():
        axes = np.linalg.qr(rng.normal(size=(width, width)))[0][:5]
        values = {s: (x @ axes).astype(np.float16) for s, x in latent.items()}
        for array in values.values():
            array[samples:] = np.nan
        signals = tuple(SignalSpec(signal, (width,)) for signal in values)
        column = FeatureStore(project.features).create(Header(name, "ab" * 32, {}, signals))
        shard = Shard(column.add_shard(table.ids, table.digests), writable=True)
        for block in shard.pending():
            rows = shard.rows_of(block)
            status = np.full(rows.stop - rows.start, PRESENT, np.uint8)
            shard.commit(block, {s: array[rows] for s, array in values.items()}, status)
    return project
