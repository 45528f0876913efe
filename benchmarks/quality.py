"""How good is the student? Demo world, all five specialists, every recipe, several seeds, on the test split.

    python benchmarks/quality.py [--seeds 0 1 2] [--recipes kdkit mmkd-paper ...] [--others 3]

The specialists and the oracle (on each domain the teacher that is best on the calibration split) are scored in the
same run on the same pictures. A seed draws new pictures and a new student; the teachers stay.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

from projects import (
    FIRST_TEACHERS,
    LAST_TEACHER,
    NEW,
    OLD,
    Size,
    copy_project,
    demo_project,
    print_table,
    run,
    score_on_test,
    spread,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", default=["kdkit", "mmkd-paper", "mmkd-released", "clipkd"])
    parser.add_argument("--others", type=int, default=3, help="on how many seeds the recipes after the first run")
    parser.add_argument("--train", type=int, default=1200, help="training pictures of each domain")
    parser.add_argument("--epochs", type=int, default=14)
    arguments = parser.parse_args()
    size = Size(train=arguments.train, epochs=arguments.epochs)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            base = Path(scratch) / "base"
            demo_project(base, seed=seed, size=size, domains=(*OLD, NEW), teachers=(*FIRST_TEACHERS, LAST_TEACHER))
            chosen = arguments.recipes[: None if arguments.seeds.index(seed) < arguments.others else 1]
            for number, recipe in enumerate(chosen):
                project = copy_project(base, Path(scratch) / recipe)
                seconds = run(project, recipe=recipe, seed=seed).version.lineage.training.seconds
                evaluation = score_on_test(project)
                if number == 0:
                    base = project.root  # the features are extracted now: the next recipes start from them
                for model in evaluation.models:
                    name = f"student, recipe {recipe}" if model.role == "student" else model.name
                    if model.role == "student" or number == 0:
                        for metric, value in model.means.items():
                            found[name][metric].append(value)
                student = evaluation.of_role("student")[0]
                for metric, ratio in evaluation.ratios[student.name].items():
                    found[f"student, recipe {recipe}"][f"{metric} of the oracle's"].append(ratio)
                found[f"student, recipe {recipe}"]["seconds"].append(seconds / 100)
                print(f"seed {seed}, {recipe}: { ({k: round(v, 4) for k, v in student.means.items()}) }", flush=True)
    columns = ("accuracy", "auc", "accuracy of the oracle's", "auc of the oracle's", "seconds")
    rows = [[name, *(spread(v[c]) if c in v else "" for c in columns)] for name, v in found.items()]
    print(f"\nMeans over {len(OLD) + 1} domains in %, mean over seeds {arguments.seeds} (smallest to largest):\n")
    print_table(("model", *columns), rows)


if __name__ == "__main__":
    main()
