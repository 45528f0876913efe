"""``kdkit demo``: the whole way, through the public commands, on made-up pictures and without a download."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from kdkit.cli import console
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
    what: Annotated[
        str, typer.Argument(metavar="[clinkd]", help="'clinkd': a student that answers questions about images.")
    ] = "",
    folder: Annotated[str, typer.Argument(metavar="[DIR]", help="A new folder for the demo's project.")] = "",
    seed: Annotated[int, typer.Option(help="Of the pictures and of the student.")] = 0,
    train: Annotated[int | None, _pictures("Training", 1200, 300)] = None,
    calibration: Annotated[int | None, _pictures("Calibration", 200, 40)] = None,
    test: Annotated[int | None, _pictures("Test", 300, 60)] = None,
) -> None:
    """Four teachers, a student, a fifth teacher with a new domain: distil, evaluate, export, in minutes.

    'kdkit demo clinkd' does it with teachers and a student that answer: baseline, Pseudo-KD, RoPE variants, selective
    generation side by side, then a second teacher with a new modality.
    """
    if what != "clinkd":
        if folder:
            raise KdkitError(
                "KD-CLI-002", f"there is no demo '{what}'", fix="'kdkit demo [DIR]' or 'kdkit demo clinkd [DIR]'"
            )
        dual_encoder_demo(what or "kdkit-demo", seed, train or 1200, calibration or 200, test or 300)
        return
    from kdkit.cli.demo_clinkd import Sizes, clinkd_demo

    folder = folder or "kdkit-demo-clinkd"
    refuse_existing(folder)
    clinkd_demo(folder, Sizes(seed, train or 300, calibration or 40, test or 60))


def refuse_existing(folder: str) -> None:
    if Path(folder).exists():
        raise KdkitError(
            "KD-CLI-003",
            f"'{folder}' exists already",
            fix="name another folder: 'kdkit demo DIR'; or remove it to start again",
        )


def dual_encoder_demo(folder: str, seed: int, train: int, calibration: int, test: int) -> None:
    """The demo of dual encoders, into a new folder."""
    refuse_existing(folder)
    root = Path(folder)
    begun = time.monotonic()
    console.say(BANNER)
    sizes = {"seed": seed, "train": train, "calibration": calibration, "test": test}
    root.mkdir(parents=True)
    registry = REGISTRY.format(domains=", ".join(FIRST_DOMAINS), **sizes)
    (root / "registry.yaml").write_text(registry, encoding="utf-8")
    console.say(f"\nwrote {root / 'registry.yaml'}")
    first_version(root, seed)
    one_more_teacher(root, seed, MORE_DATA.format(domain=NEW_DOMAIN, **sizes))
    use_it(root)
    summary(root, time.monotonic() - begun)


def first_version(root: Path, seed: int) -> None:
    """Look at the data, choose four teachers, make the first version."""
    heading("Data: eight imaging modalities, four to five findings each")
    call(root, "data", "check")
    heading("Teachers: four specialists, each knows two or three modalities")
    for name in FIRST_TEACHERS:
        call(root, "add-teacher", name)
    call(root, "features", "extract")
    heading("Trust: who may teach what, measured on the calibration split")
    call(root, "trust")
    heading("The first version of the student")
    call(root, "distill", "--seed", str(seed))


def one_more_teacher(root: Path, seed: int, data: str) -> None:
    """A new specialist is published; it brings a domain that nobody knew."""
    heading(f"A fifth specialist appears, and with it a new modality: {NEW_DOMAIN}")
    path = root / "registry.yaml"
    text = path.read_text(encoding="utf-8")
    place = text.index("prompts:")
    path.write_text(text[:place].rstrip() + "\n" + data + "\n" + text[place:], encoding="utf-8")
    console.say(f"added to {path}:\n{data.rstrip()}")
    call(root, "add-teacher", LAST_TEACHER)
    call(root, "distill", "--incremental", "--seed", str(seed), allowed=(0, 1))
    call(root, "versions")


def use_it(root: Path) -> None:
    """Report on the test split, which nothing has looked at until now; export."""
    heading("Evaluation on the test split, which nothing has looked at until now")
    call(root, "evaluate")
    heading("Export: a folder for stock open_clip")
    call(root, "export", "--to", str(root / "student"))


def heading(text: str) -> None:
    console.say(f"\n== {text}")


def call(root: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> None:
    """Run a public command in this process (importing torch anew for each would double the demo's time)."""
    from kdkit.cli.main import app

    console.say(f"\n$ kdkit {' '.join(arguments)}")
    code = app([*arguments, "--project", str(root)], prog_name="kdkit", standalone_mode=False)
    if isinstance(code, int) and code not in allowed:
        raise typer.Exit(code)


def summary(root: Path, seconds: float) -> None:
    """What happened, honestly, and what to do next."""
    from kdkit.core.evaluation.scores import Evaluation

    reports = sorted(root.glob("reports/*.json"), key=lambda path: path.stat().st_mtime)
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
        f"  {100 * ratio['accuracy']:.1f} % of the accuracy and {100 * ratio['auc']:.1f} % of the AUC of the oracle "
        "that asks the best teacher of each domain.\n"
        f"  Look at the picture in {root / 'reports'} and the student in {root / 'student'}.\n\n"
        "Next, on your own data:\n"
        "  kdkit init my-project          then name your images in registry.yaml (docs/data.md)\n"
        "  kdkit add-teacher biomedclip   'kdkit teachers --available' lists more\n"
        "  kdkit distill                  and, when the next specialist appears: kdkit distill --incremental"
    )
