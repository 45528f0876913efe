"""Is the loss of the recipe 'mmkd-released' that of MMKD-CLIP's released code? On the samples of its release.

    python benchmarks/mmkd_parity.py MMKDCLIP_DATA [--draws 100]

MMKDCLIP_DATA is the folder of that name in github.com/wangshansong1/MMKD-CLIP. kdkit's side reads it as 'kdkit features
import --projected' does and computes the recipe's losses in float32. The reference reads the same files and computes
KDClipLoss of src/open_clip/loss.py with loops in float64. Each draw has other student features and another teacher per
sample out of its 'available_clips'. Ends with 1 if a term differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from projects import print_table
from ruamel.yaml import YAML

from kdkit.core.contracts import CaptionView, LossInput, TeacherView
from kdkit.core.features.imports.open import open_rows
from kdkit.core.features.imports.rows import ReadOptions
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.recipe_file import recipe_file

LIMIT = 1e-5
SCALE = 1 / 0.07
Rows = dict[str, dict[str, np.ndarray]]
"""Sample -> signal -> (D,)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="MMKDCLIP_DATA")
    parser.add_argument("--draws", type=int, default=100)
    given = parser.parse_args()
    if not (given.folder / "meta.jsonl").is_file():
        sys.exit(f"no meta.jsonl in {given.folder}: it is a folder of github.com/wangshansong1/MMKD-CLIP")
    samples = [json.loads(line) for line in (given.folder / "meta.jsonl").read_text().splitlines() if line.strip()]
    names = sorted({name for sample in samples for name in sample["available_clips"]})
    imported = {name: read_imported(given.folder, name) for name in names}
    recipe = YAML(typ="safe").load(recipe_file("mmkd-released", load_catalogue()).text)["stages"][-1]
    losses = {part["name"]: (part["weight"], make(part)) for part in recipe["losses"]}
    terms: dict[str, list[tuple[float, float]]] = {name: [] for name in (*losses, "total")}
    for draw in range(given.draws):
        teachers = [random.Random(f"{draw} {s['id']}").choice(s["available_clips"]) for s in samples]
        student = torch.randn(2, len(samples), 512, generator=torch.Generator().manual_seed(draw))
        ours = by_kdkit(losses, student, teachers, [s["id"] for s in samples], imported)
        theirs = by_loops(
            student.double().numpy(), [released(given.folder, *pair) for pair in zip(samples, teachers, strict=True)]
        )
        for name, values in terms.items():
            values.append((ours[name], theirs[name]))
    rows, worst = [], 0.0
    for name, values in terms.items():
        apart = max(abs(one - other) for one, other in values)
        worst = max(worst, apart)
        rows.append([name, f"{values[0][0]:.6f}", f"{values[0][1]:.6f}", f"{apart:.1e}"])
    print(f"{len(samples)} samples, {len(names)} teachers, {given.draws} draws")
    print_table(("term, weighted", "kdkit, first draw", "reference", "largest difference"), rows)
    sys.exit(int(worst > LIMIT))


def read_imported(folder: Path, teacher: str) -> Rows:
    """As ``kdkit features import --key TEACHER --projected`` reads them."""
    rows: Rows = {}
    for part in open_rows([folder], ReadOptions(key=teacher, projected=True)).parts():
        for number, id_ in enumerate(part.ids):
            rows[id_] = {signal: values[number] for signal, values in part.values.items()}
    return rows


def released(folder: Path, sample: Mapping[str, Any], teacher: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and text vector (512,) float64, read from the release itself."""
    path = folder / "features" / sample["folderid"] / sample["id"] / "clips_project_output.pt"
    found = torch.load(path, weights_only=True)
    return found[f"{teacher}_img"].double().flatten().numpy(), found[f"{teacher}_txt"].double().flatten().numpy()


def make(part: Mapping[str, Any]) -> Any:
    return load_catalogue().make("loss", part["name"], **part.get("options", {}))


def by_kdkit(
    losses: Mapping[str, tuple[float, Any]],
    student: torch.Tensor,
    teachers: Sequence[str],
    ids: Sequence[str],
    imported: Mapping[str, Rows],
) -> dict[str, float]:
    """Weighted terms: one teacher per sample, the others with weight 0."""
    outputs = {"image": student[0], "text": student[1], "logit_scale": torch.tensor(SCALE)}
    views = []
    for name in dict.fromkeys(teachers):
        target = {
            signal: torch.from_numpy(
                np.stack(
                    [
                        imported[name][id_][signal] if own == name else np.zeros(512, np.float32)
                        for id_, own in zip(ids, teachers, strict=True)
                    ]
                )
            )
            for signal in ("image", "text")
        }
        weight = torch.tensor([float(own == name) for own in teachers])
        views.append(TeacherView(name, weight, target, {"image": student[0], "text": student[1]}))
    captions = CaptionView(torch.ones(len(ids)), torch.arange(len(ids)))
    batch = LossInput(outputs, tuple(views), torch.zeros(len(ids), dtype=torch.int64), captions=captions)
    found = {name: weight * float(loss(batch)) for name, (weight, loss) in losses.items()}
    return {**found, "total": sum(found.values())}


def by_loops(student: np.ndarray, target: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Weighted terms of KDClipLoss with train.py's ``task + 50 fd + icl``, from ``student`` (2, B, 512) float64."""
    image, text = ([row / math.sqrt(sum(row * row)) for row in rows] for rows in student)
    t_image, t_text = [pair[0] for pair in target], [pair[1] for pair in target]
    square = [np.mean((s - t) ** 2) for s, t in zip([*image, *text], [*t_image, *t_text], strict=True)]
    fd = np.mean(square[: len(image)]) + np.mean(square[len(image) :])
    cross = math.log(SCALE)  # KDClipLoss uses its parameter without exp
    icl = (cross_entropy(cross, image, t_text) + cross_entropy(cross, text, t_image)) / 2
    task = (cross_entropy(SCALE, image, text) + cross_entropy(SCALE, text, image)) / 2
    return {"clip": task, "fd": 50 * fd, "icl": icl, "total": task + 50 * fd + icl}


def cross_entropy(scale: float, queries: Sequence[np.ndarray], keys: Sequence[np.ndarray]) -> float:
    """Mean over queries; the own key is the answer."""
    values = []
    for number, query in enumerate(queries):
        logits = [scale * float(query @ key) for key in keys]
        highest = max(logits)
        values.append(highest + math.log(sum(math.exp(x - highest) for x in logits)) - logits[number])
    return float(np.mean(values))


if __name__ == "__main__":
    main()
