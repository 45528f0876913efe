"""What does a student gain from a teacher without text? Demo world, the same run with and without it, several seeds.

    python benchmarks/vision_teacher.py [--seeds 0 1 2] [--train 500] [--epochs 10]

Two of the demo's dual encoders know four of six domains. In the other two, captions alone teach: half of them name the
modality alone, a tenth a wrong finding. A small convnet of timm, trained on labels of these two, is added as a teacher
without text. A seed draws new pictures and a new student; the teachers stay. Test split; differences are paired over
the pictures of all seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from projects import Size, copy_project, demo_project, print_table, run, score_on_test, spread
from safetensors.torch import save_file
from torch.nn import functional as F
from train_demo_teachers import normalize_pixels

from kdkit.core.contracts import DomainScore, Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.evaluation.metrics import paired_difference
from kdkit.core.evaluation.trust.report import report_trust
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher
from kdkit.plugins.demo.canvas import SIZE
from kdkit.plugins.demo.dataset import draw_split
from kdkit.plugins.demo.images import FINDINGS
from kdkit.plugins.demo.student import PREPROCESS_CONFIG

KNOWN = ("ct", "mri", "dermoscopy", "histology")
"""Domains of the dual encoders."""
TEACHERS = ("demo-radio", "demo-tissue")
OWN = ("fundus", "oct")
"""Domains that only the teacher without text has seen."""
ARCHITECTURE = "test_efficientnet_gn"
SEED, STEPS, BATCH, RATE = 77, 400, 64, 3e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=500, help="training pictures of each domain")
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = Size(train=given.train, calibration=100, test=300, epochs=given.epochs)
    scores: dict[str, list[Mapping[str, DomainScore]]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "vision"
        train_convnet(folder)
        for seed in given.seeds:
            base = demo_project(
                Path(scratch) / f"without-{seed}", seed=seed, size=size, domains=(*KNOWN, *OWN), teachers=TEACHERS
            )
            prepare(base, Options(cpu=True), Silent())  # draws the pictures and extracts what both runs read
            more = copy_project(base.root, Path(scratch) / f"with-{seed}")
            add_teacher(more, "convnet", {"from": f"local:{folder}", "license": "apache-2.0"})
            for name, project in (("without", base), ("with", more)):
                run(Project(project.root), seed=seed)
                scores[name].append(score_on_test(project).of_role("student")[0].domains)
            print_trust(Project(more.root), seed)
    print_differences(scores)


def train_convnet(folder: Path) -> None:
    """A classifier of the findings of :data:`OWN`, as timm's ``push_to_hf_hub`` lays it out."""
    torch.manual_seed(SEED)
    classes = [(domain, label) for domain in OWN for label in FINDINGS[domain]]
    rows = [drawn for domain in OWN for drawn in draw_split(domain, "train", seed=SEED, count=1000)]
    images = normalize_pixels([picture for _, picture in rows])
    labels = torch.tensor([classes.index((row["domain"], row["label"])) for row, _ in rows])
    model = timm.create_model(ARCHITECTURE, num_classes=len(classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(images), (BATCH,))
        loss = F.cross_entropy(model(images[chosen]), labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    data = {key: PREPROCESS_CONFIG[key] for key in ("mean", "std", "interpolation")}
    described = {"input_size": [3, SIZE, SIZE], "crop_pct": 1.0, "crop_mode": "squash", **data}
    folder.mkdir(parents=True)
    config = {"architecture": ARCHITECTURE, "num_classes": len(classes), "pretrained_cfg": described}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(model.state_dict(), folder / "model.safetensors")


def print_trust(project: Project, seed: int) -> None:
    """What the convnet is measured to be worth, and its weight."""
    report = report_trust(project)
    table, row = report.table, report.table.teachers.index("convnet")
    print(f"\nseed {seed}: trust in the teacher without text\n")
    columns = zip(table.domains, table.accuracy[row], table.lower[row], table.upper[row], table.chance, strict=True)
    rows = [
        [domain, f"{100 * mean:.0f} ({100 * low:.0f} to {100 * high:.0f})", f"{100 * chance:.0f}", f"{weight:.2f}"]
        for (domain, mean, low, high, chance), weight in zip(columns, report.chosen.weights.teachers[row], strict=True)
    ]
    print_table(("domain", "accuracy of the probes, 95 % interval", "chance", "weight"), rows)


def print_differences(scores: Mapping[str, Sequence[Mapping[str, DomainScore]]]) -> None:
    """Accuracy of the student per domain, and the paired differences."""
    print("\nZero-shot accuracy of the student, mean over seeds (smallest to largest)\n")
    rows = []
    for title, domains in [*((domain, (domain,)) for domain in (*KNOWN, *OWN)), ("known", KNOWN), ("own", OWN)]:
        outcomes = {
            name: [np.concatenate([found[domain].outcomes["accuracy"] for domain in domains]) for found in seeds]
            for name, seeds in scores.items()
        }
        parts = [paired_difference(*pair) for pair in zip(outcomes["without"], outcomes["with"], strict=True)]
        pooled = paired_difference(*(np.concatenate(outcomes[name]) for name in ("without", "with")))
        rows.append(
            [
                title,
                *(spread([part.mean() for part in outcomes[name]]) for name in ("without", "with")),
                " / ".join(f"{100 * part[0]:+.1f}" for part in parts),
                f"{100 * pooled[0]:+.1f} ({100 * pooled[1]:+.1f} to {100 * pooled[2]:+.1f})",
            ]
        )
    print_table(("domain", "without", "with", "difference of each seed", "all seeds, 95 % interval"), rows)


if __name__ == "__main__":
    main()
