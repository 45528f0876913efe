"""``kdkit demo``: a whole project through the public commands, on procedural pictures and without a download."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from kdkit.cli import console
from kdkit.cli.demo_steps import Steps, heading
from kdkit.core.base.errors import KdkitError

FIRST_TEACHERS = ("demo-radio", "demo-tissue", "demo-point", "demo-surface")
LAST_TEACHER = "demo-eye"
FIRST_DOMAINS = ("ct", "mri", "xray", "ultrasound", "fundus", "dermoscopy", "histology", "endoscopy")
NEW_DOMAIN = "oct"

BANNER = """\
This is a demonstration on pictures that a program draws. Its teachers are STAND-INS: tiny networks trained on such
pictures. They know nothing about real images, and neither will the student. Nothing is downloaded."""

REGISTRY = """\
# The demo's project. Yours looks the same: change the data, the teachers and the student.
version: 1
use: research

student:
  family: demo-student     # an open_clip dual encoder of 0.2 million parameters

teachers: {{}}

data:
  # Drawn on first use. 'kdkit data check' looks at it.
  - source: procedural
    path: data/first
    options: {{seed: {seed}, train: {train}, calibration: {calibration}, test: {test},
              domains: [{domains}]}}

prompts:
  default: ["{{domain}} showing {{label}}", "{{label}} on {{domain}}", "{{domain}} of a patient with {{label}}"]

optimizer: {{lr: 0.004, batch_size: 64, epochs: 14}}   # the student is tiny and starts from nothing
recipe: kdkit              # 'kdkit recipes show kdkit' prints it
"""

MORE_DATA = """\
  - source: procedural     # added with the teacher that knows it
    path: data/{domain}
    options: {{seed: {seed}, train: {train}, calibration: {calibration}, test: {test}, domains: [{domain}]}}
"""


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("demo")(demo)


def _pictures(kind: str, dual_encoder: int, clinkd: int) -> Any:
    text = f"{kind} pictures of each domain (default: {dual_encoder}; clinkd: {clinkd})."
    return typer.Option(min=1, show_default=False, help=text)


def demo(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="[clinkd]", help="'clinkd': a student that answers questions about images.")
    ] = "",
    folder: Annotated[str, typer.Argument(metavar="[DIR]", help="A new folder for the demo's project.")] = "",
    seed: Annotated[int, typer.Option(help="Of the pictures and of the student.")] = 0,
    train: Annotated[int | None, _pictures("Training", 1200, 300)] = None,
    calibration: Annotated[int | None, _pictures("Calibration", 200, 40)] = None,
    test: Annotated[int | None, _pictures("Test", 300, 60)] = None,
) -> None:
    """Four teachers, a student, a fifth teacher with a new domain: distill, evaluate and export in minutes.

    'kdkit demo clinkd' uses teachers and students that answer. It compares the answers alone with Pseudo-KD, adds a
    second teacher with a new modality, and chooses the best of five answers.
    """
    if what == "clinkd":
        from kdkit.cli.demo_clinkd import Sizes, clinkd_demo

        steps = Steps.in_new_folder(folder or "kdkit-demo-clinkd", context)
        clinkd_demo(steps, Sizes(seed, train or 300, calibration or 40, test or 60))
    elif folder:
        raise KdkitError(
            "KD-CLI-002", f"there is no demo '{what}'", fix="'kdkit demo [DIR]' or 'kdkit demo clinkd [DIR]'"
        )
    else:
        steps = Steps.in_new_folder(what or "kdkit-demo", context)
        dual_encoder_demo(steps, seed, train or 1200, calibration or 200, test or 300)


def dual_encoder_demo(steps: Steps, seed: int, train: int, calibration: int, test: int) -> None:
    start = time.monotonic()
    console.say(BANNER)
    sizes = {"seed": seed, "train": train, "calibration": calibration, "test": test}
    steps.write_registry(REGISTRY.format(domains=", ".join(FIRST_DOMAINS), **sizes))
    first_version(steps, seed)
    increment(steps, seed, MORE_DATA.format(domain=NEW_DOMAIN, **sizes))
    heading("Evaluation on the test split, which no step has read before")
    steps.run("evaluate")
    heading("Export: a folder for stock open_clip")
    steps.run("export", "--to", str(steps.root / "student"))
    summary(steps, time.monotonic() - start)


def first_version(steps: Steps, seed: int) -> None:
    heading("Data: eight imaging modalities, four to five findings each")
    steps.run("data", "check")
    heading("Teachers: four specialists, each knows two or three modalities")
    for name in FIRST_TEACHERS:
        steps.run("add-teacher", name)
    steps.run("features", "extract")
    heading("Trust: how well each teacher knows each domain, measured on the calibration split")
    steps.run("trust")
    heading("The first version of the student")
    steps.run("distill", "--seed", str(seed))


def increment(steps: Steps, seed: int, data: str) -> None:
    heading(f"A fifth specialist appears, and with it a new modality: {NEW_DOMAIN}")
    steps.add_data(data, before="prompts:")
    steps.run("add-teacher", LAST_TEACHER)
    steps.run("distill", "--incremental", "--seed", str(seed), allowed=(0, 1))
    steps.run("versions")


def summary(steps: Steps, seconds: float) -> None:
    """Print the result, whether good or bad, and what to do next."""
    from kdkit.core.evaluation.scores import Evaluation

    reports = sorted(steps.root.glob("reports/*.json"), key=lambda path: path.stat().st_mtime)
    evaluation = Evaluation.load(reports[-1])
    student = evaluation.of_role("student")[0]
    best = max(evaluation.of_role("teacher"), key=lambda teacher: teacher.means["accuracy"])
    ratio = evaluation.ratios[student.name]
    heading(f"Done in {seconds:.0f} s")
    verdict = "above" if student.means["accuracy"] > best.means["accuracy"] else "NOT above"
    console.say(
        f"The student ({student.name}) has {100 * student.means['accuracy']:.1f} % accuracy and AUC "
        f"{student.means['auc']:.3f} over {len(evaluation.domains)} domains:\n"
        f"  {verdict} the best single teacher ({best.name}: {100 * best.means['accuracy']:.1f} %, AUC "
        f"{best.means['auc']:.3f});\n"
        f"  {100 * ratio['accuracy']:.1f} % of the accuracy and {100 * ratio['auc']:.1f} % of the AUC of the oracle, "
        "the best teacher of each domain.\n"
        f"  The chart is in {steps.root / 'reports'}, the student in {steps.root / 'student'}.\n\n"
        "Next, on your own data:\n"
        "  kdkit init my-project          then name your images in registry.yaml (docs/howto/data.md)\n"
        "  kdkit add-teacher biomedclip   'kdkit teachers --available' lists more\n"
        "  kdkit distill                  and, when the next specialist appears: kdkit distill --incremental"
    )
