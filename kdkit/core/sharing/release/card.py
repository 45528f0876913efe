"""The card of a release, ``README.md``: computed from its record, its figures and its license."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdkit.core.evaluation.scores import METHOD
from kdkit.core.project.import_record import ImportRecord
from kdkit.core.project.lineage import HUB, Environment
from kdkit.core.project.recipe import Recipe
from kdkit.core.project.training_record import StageRecord, TrainingRecord
from kdkit.core.sharing.release.card_facts import CardFacts, front_matter
from kdkit.core.sharing.release.card_tables import (
    cell,
    data_table,
    figures_text,
    increments_table,
    interval,
    link,
    means_table,
    metric_name,
    metrics_table,
    results_table,
    table,
    teachers_table,
)
from kdkit.core.sharing.release.layout import CARD, README, RECORD, RESULTS
from kdkit.core.sharing.release.license import UNDETERMINED

_HEADLINES = ("accuracy", "auc")
"""Metrics that every domain has; others depend on the task."""
FEW = 100
"""Smallest number of images per domain without a note under Limits."""


def write_card(folder: Path, facts: CardFacts) -> None:
    """Write ``README.md`` into ``folder``, and ``kdkit/card.md``, by which the next push knows what people edited."""
    for name in (README, CARD):
        (folder / name).write_text(card_text(facts), encoding="utf-8")


def card_text(facts: CardFacts) -> str:
    parts = (_what, _loading, _results, _teachers, _data, _making, _limits, _license, _citation)
    body = "\n\n".join(paragraph for part in parts for paragraph in part(facts))
    return f"---\n{front_matter(facts)}\n---\n\n{body}\n"


def _what(facts: CardFacts) -> Iterator[str]:
    record, lineage, own = facts.record, facts.record.lineage, facts.own
    steps = _count(len(record.history), "step")
    made = f"distilled with kdkit from {_count(len(facts.teachers), 'teacher')} into one student"
    made = made if facts.teachers else "trained with kdkit on the samples' own texts, without a teacher"
    made = f"{made}, in {steps}" if lineage.imported is None else "published as it was imported: kdkit trained nothing"
    yield f"# {facts.title}"
    yield (
        f"{facts.published.kind}, {made}. This is "
        f"version **{record.version}** of {lineage.created[:10]}. {facts.published.summary}"
    )
    known = "Training domains" if lineage.imported is None else "Measured domains"
    yield f"{known}: {', '.join(map(cell, lineage.data.known)) or 'none'}."
    if own["domains"]:
        means = (
            f"means over {_count(len(own['domains']), 'domain')}, {facts.words.task}, {facts.results['split']} split"
        )
        yield f"{figures_text(own['mean'], _HEADLINES)} ({means})."
    if record.origin is not None:
        it = record.origin
        place = link(it.repository, it.endpoint)
        yield f"It continues version {cell(it.version)} of {place}, commit `{it.commit[:12]}`."
    guard = lineage.guard
    if guard is not None and not guard.promoted:
        yield (
            "> **The promotion guard refused this version**: it lost more accuracy than its owner allowed "
            f"({', '.join(map(cell, guard.failed)) or 'on average'}). Its owner published it nevertheless."
        )
    yield (
        "> **Not a medical device.** It has not been evaluated for diagnosis, triage or any other clinical use. Do not "
        "use it for decisions about patients."
    )


def _loading(facts: CardFacts) -> Iterator[str]:
    record = facts.record
    yield "## How to load it"
    for library, code in facts.form.lines.items():
        yield f"With {library}:"
        yield f"```python\n{code}```"
    yield from facts.notes
    yield _proof(facts)
    for library, why in facts.published.missing.items():
        yield f"There is no {library} form: {why}."
    yield (
        f"To teach it more: `kdkit pull {record.repository}`, then add a teacher and your data, and run "
        "`kdkit distill --incremental`."
    )


def _proof(facts: CardFacts) -> str:
    """Result of the comparison with stock libraries, and requirements of the lines."""
    form = facts.form
    differences = (figures.items() for figures in form.checks.values() if "missing" not in figures)
    worst = max(value for figures in differences for name, value in figures if name.endswith("_difference"))
    known = ", ".join(f"{library} {version}" for library, version in form.environment.items())
    kdkit = "" if "kdkit" in form.published.needs else " and without kdkit"
    needs = ["this repository", *([link(form.base.repository, facts.endpoint)] if form.base is not None else [])]
    needs += [f"`pip install {' '.join(form.published.needs)}`"] if form.published.needs else []
    return (
        f"These lines were run on these files before they were published, without network{kdkit}. They gave the "
        f"version's {facts.words.compared} (largest relative difference {worst:.1g}) with {known}. "
        f"They need nothing but {' and '.join(needs)}."
    )


def _results(facts: CardFacts) -> Iterator[str]:
    results = facts.results
    yield "## Results"
    if not facts.own["domains"]:
        if not results.get("tasks"):
            yield "This version was not evaluated."
        yield from _other_tasks(facts)
        return
    level = next(score["level"] for score in facts.own["domains"].values())
    yield (
        f"Accuracy of {facts.words.task} in %, {results['split']} split, with {100 * level:g} % bootstrap intervals. "
        f"{results['note']} All figures: [{RESULTS}]({RESULTS})."
    )
    yield results_table(results, facts.words.judged)
    detail = metrics_table(facts.own)
    if detail:
        yield f"All metrics of {cell(facts.record.version)}, per domain."
        yield detail
    oracles = (
        " `oracle` takes, per domain, the teacher that was best on the calibration split; `oracle-on-test` the one "
        "that is best on the reported images: an upper bound."
    )
    yield "Means over the domains." + (oracles if results["ratios"] else "")
    shown = _HEADLINES if detail else results["metrics"]
    yield means_table(results, shown)
    ratio = results["ratios"].get(facts.record.version, {})
    if shares := [f"{100 * ratio[name]:.1f} % of its {metric_name(name)}" for name in shown if name in ratio]:
        yield f"Against the oracle the student has {' and '.join(shares)}."
    yield from _other_tasks(facts)
    if increments := increments_table(facts.record.history):
        one = facts.words.judged.removesuffix("s")
        yield "### What each increment kept"
        yield (
            f"Accuracy on the domains that were known before, on the calibration split, {one} by {one} against the "
            "version before; in points, with 95 % intervals."
        )
        yield increments


def _other_tasks(facts: CardFacts) -> Iterator[str]:
    """A table per further task that was evaluated: its headline, per domain and model."""
    for other in facts.results.get("tasks", ()):
        task, headline = other["settings"]["task"], other["settings"]["headline"]
        yield f"### Task `{cell(task)}`"
        yield f"{metric_name(headline)} on the {other['split']} split, in %, with bootstrap intervals."
        yield results_table(other, "samples", headline)
        if method := other["settings"].get(METHOD):
            yield "\n".join(f"- {cell(name)}: {cell(' '.join(text.split()))}" for name, text in method.items())


def _teachers(facts: CardFacts) -> Iterator[str]:
    yield "## Teachers"
    if facts.record.lineage.imported is not None:
        yield "None: its weights were imported."
        return
    if facts.teachers:
        yield (
            "Trust is a teacher's own accuracy in %, measured on the calibration split; it decides where a "
            "teacher teaches. The teachers' weights are not in this repository."
        )
    yield teachers_table(facts.teachers, facts.endpoint)


def _data(facts: CardFacts) -> Iterator[str]:
    yield "## Data"
    if facts.record.lineage.imported is not None:
        yield "kdkit taught it no sample. This record does not know the data that its initial weights were trained on."
        yield data_table(facts.record.history, facts.results)
        return
    yield (
        f"{_count(facts.taught, facts.words.taught)} over all versions. They are not published: this repository holds "
        "no image, no text and no name of a sample. A version's column counts its training pairs, replayed ones "
        "included."
    )
    yield data_table(facts.record.history, facts.results)
    if uncovered := facts.record.lineage.data.domains_without_teacher:
        yield f"No teacher was trusted in: {', '.join(map(cell, uncovered))}."
    captions = facts.record.lineage.data.captions
    if any(weight < 1 for weight in captions.values()):
        weights = ", ".join(f"{cell(domain)} {weight:.2f}" for domain, weight in captions.items())
        yield f"Weight of the samples' own captions, beside teachers' weights of 0 to 1: {weights}."


def _taught_how(facts: CardFacts) -> Iterator[tuple[str, str]]:
    recipe, previous = facts.record.lineage.recipe, facts.record.lineage.training.previous
    if previous and previous.altered:
        yield "kept from its parent", f"its outputs on altered inputs (weight {previous.altered:g})"
    if previous and previous.frozen_energy:
        yield "kept from its parent", f"the strongest directions of the weights ({100 * previous.frozen_energy:g} %)"
    if not facts.record.lineage.teachers:
        yield "teachers", "none: its losses read only the samples"
        return
    if facts.words.compared == "features":
        yield "space", "the teachers' own, through heads" if recipe.space == "heads" else "shared, through aligners"
    if own := facts.record.lineage.on_policy:
        names = ", ".join(own.teachers)
        yield "own answers", f"about {own.answers:,} of {own.drawn:,} drawn samples, scored by {names} while it trained"
    options = ", ".join(f"{name} {value}" for name, value in recipe.trust.options.items())
    measured = recipe.trust.measured and f", {recipe.trust.measured}"
    yield "trust", (f"{recipe.trust.policy} ({options})" if options else recipe.trust.policy) + measured


def _terms(recipe: Recipe, training: TrainingRecord) -> Iterator[str]:
    yield from (f"{part.weight:g} {part.name}" for part in recipe.losses)
    if (previous := training.previous) and previous.weight:
        yield f"{previous.weight:g} {previous.loss} against the previous version"


def _stage(recipe: Recipe, stage: StageRecord) -> str:
    """A stage before the last one."""
    training = stage.training
    terms = " + ".join(_terms(recipe.in_order[stage.number - 1], training))
    return f"{stage.name}: {terms}; {_count(training.steps, 'step')} of {training.batch_size}, rate {training.lr:g}"


def _started(facts: CardFacts) -> Iterator[tuple[str, str]]:
    """The initial weights, with their license."""
    if start := facts.record.history[0].student.start:
        base = facts.form.base.repository if facts.form.base is not None else ""
        named = [(part.repository or base or "not published", part.license_facts.shown) for part in start.parts]
        yield "initial weights", "; ".join(f"{place}; license: {terms}" for place, terms in named)


def _made_with(environment: Environment) -> Iterator[tuple[str, str]]:
    yield "made with", ", ".join(f"{name} {getattr(environment, name)}" for name in ("kdkit", "python", "torch"))
    yield "plugins", ", ".join(f"{name} {version}" for name, version in environment.plugins.items())


def _training(facts: CardFacts) -> Iterator[tuple[str, str]]:
    """Recipe, losses and course of the training."""
    lineage = facts.record.lineage
    recipe, training = lineage.recipe, lineage.training
    source = f" ({recipe.source})" if recipe.source and not recipe.source.startswith("docs/") else ""
    schedule = f"{_count(training.steps, 'step')} of {training.batch_size}, learning rate {training.lr:g}"
    yield "recipe", f"{recipe.name}: {recipe.summary}{source}"
    yield from ((f"stage {stage.number}", _stage(recipe, stage)) for stage in lineage.stages)
    yield "losses", " + ".join(_terms(recipe, training)) + (" (last stage)" if lineage.stages else "")
    yield from _started(facts)
    yield from _taught_how(facts)
    yield "training", f"{schedule}, seed {training.seed}"
    yield "machine", f"{training.machine.device}, {lineage.seconds:.0f} s"


def _imported(facts: CardFacts, imported: ImportRecord) -> Iterator[tuple[str, str]]:
    yield "training", "none: the initial weights as they are"
    yield from _started(facts)
    yield "files", f"{_count(len(imported.files), 'file')}; their sha256 is in {RECORD}"


def _making(facts: CardFacts) -> Iterator[str]:
    lineage = facts.record.lineage
    rows = _training(facts) if lineage.imported is None else _imported(facts, lineage.imported)
    yield "## How it was made"
    yield table(
        ("", cell(facts.record.version)),
        [(name, cell(value)) for name, value in (*rows, *_made_with(lineage.environment))],
    )
    yield (
        f"[{RECORD}]({RECORD}) holds the record of every version and the sha256 of every file. `kdkit push` computed "
        "this page from it."
    )


def _limits(facts: CardFacts) -> Iterator[str]:
    results, scores = facts.results, facts.own["domains"]
    limits = ["It was trained only on the domains above, as its data show them; no other domain was measured."]
    if facts.record.lineage.imported is not None:
        limits = ["No domain but those above was measured."]
    if scores and results["split"] != "test":
        limits.append("It was not evaluated on a test split; the figures above are optimistic.")
    if few := [f"{cell(domain)} ({score['count']})" for domain, score in scores.items() if score["count"] < FEW]:
        limits.append(f"Few evaluated {facts.words.judged}: {', '.join(few)}.")
    limits += [f"{cell(domain)} was not evaluated: {cell(why)}." for domain, why in results["skipped"].items()]
    known = facts.record.lineage.data.known
    if unmeasured := [cell(domain) for domain in known if scores and domain not in {**scores, **results["skipped"]}]:
        limits.append(f"Not evaluated in this version, and perhaps forgotten: {', '.join(unmeasured)}.")
    limits += _behind(facts)
    limits.append("This page has no figures by age, sex, origin or scanner: it may be worse for some groups.")
    limits.append("It may repeat mistakes and biases of its teachers.")
    yield "## Limits"
    yield "\n".join(f"- {limit}" for limit in limits)


def _behind(facts: CardFacts) -> Iterator[str]:
    """Domains on which a teacher's interval lies above the student's."""
    for domain, score in facts.own["domains"].items():
        mine = score["metrics"].get("accuracy", {})
        better = []
        for model in facts.results["models"]:
            theirs = model["domains"].get(domain, {}).get("metrics", {}).get("accuracy", {})
            low, high = theirs.get("low"), mine.get("high")
            if model["role"] == "teacher" and low is not None and high is not None and low > high:
                better.append(f"{cell(model['name'])}, {interval(theirs)}")
        if better:
            yield f"On {cell(domain)} it is behind {'; '.join(better)}. It has {interval(mine)} itself."


def _license(facts: CardFacts) -> Iterator[str]:
    license, because = facts.license, ", ".join(map(cell, facts.license.because))
    yield "## License"
    if license.name == UNDETERMINED:
        yield f"Undetermined: the license of {because} is unknown. Get permission before you use or share it."
    elif not because:
        yield f"`{license.name}`. No teacher requires another."
    elif license.stated:
        yield f"`{license.name}`, chosen by its owner. The strictest of its sources: {because}."
    else:
        yield f"`{license.name}`, because of {because}, the strictest of its sources."
    yield "This is no legal advice."


def _citation(facts: CardFacts) -> Iterator[str]:
    record = facts.record
    year = record.lineage.created[:4]
    key = "".join(char for char in facts.title.lower() if char.isalnum()) or "student"
    fields = {
        "title": f"{facts.title}, version {record.version}",
        "year": year,
        "howpublished": f"Hugging Face Hub, {record.repository}"
        if facts.endpoint == HUB
        else f"{facts.endpoint}/{record.repository}",
        "note": f"Distilled with kdkit {record.kdkit}",
    }
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    yield "## Citation"
    yield f"```bibtex\n@misc{{{key}{year},\n{lines}\n}}\n```"
    if papers := [f"- {cell(teacher.name)}: {cell(teacher.paper)}" for teacher in facts.teachers if teacher.paper]:
        yield "Its teachers:"
        yield "\n".join(papers)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
