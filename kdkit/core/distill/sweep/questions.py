"""The questions of ``kdkit sweep``: each gives the variations that answer it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import TrustPolicySpec
from kdkit.core.distill.sweep.values import STUDENT, SweptKey, grid, parse_keys, with_student_values, with_values
from kdkit.core.distill.sweep.variation import Asked, Question, Variation
from kdkit.core.project.recipe import Recipe, changed_optimizer
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.project.registry.schema import TrustEntry
from kdkit.core.teachers.initial_weights import TEACHER

POLICIES = ("threshold", "all", "soft", "top-k", "evidence")
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAVE_ONE_OUT, COUNTS, ORDER = "leave-one-out", "counts", "order"
MOST_ORDERS = 3
"""Up to so many teachers, all orders are compared; of more, those in which each teacher is once at each place."""


def recipe_question(asked: Asked) -> Question:
    """Any key of the recipe, and of the student's config; several keys are a grid."""
    keys = parse_keys(asked.arguments)
    if not keys:
        raise KdkitError(
            "KD-DIST-386",
            "no key to sweep is given",
            fix="for example 'kdkit sweep recipe losses.1.weight=0.5,1,2'; 'kdkit recipes show NAME' shows the keys",
        )
    baseline = asked.baseline
    rows = [_row(asked, keys, chosen) for chosen in grid(keys)]
    axis = keys[0].key if len(keys) == 1 and keys[0].numbers else ""
    return Question((baseline, *rows), axis)


def _row(asked: Asked, keys: Sequence[SweptKey], chosen: Mapping[str, int]) -> Variation:
    ours = [key for key in keys if key.path[0] == STUDENT]
    values = {key.key: key.values[chosen[key.key]] for key in keys}
    recipe = with_values(asked.recipe, [key for key in keys if key not in ours], chosen)
    project = asked.project
    if ours:
        registry = project.registry
        config = with_student_values(registry.student.config, ours, chosen)
        student = registry.student.model_copy(update={"config": config})
        project = project.with_registry(registry.model_copy(update={"student": student}))
    return Variation(", ".join(f"{key}={shown(value)}" for key, value in values.items()), project, recipe, values)


def shown(value: Any) -> str:
    """A value as in YAML.

    Example:
        >>> shown(0.5), shown(True), shown(None), shown([0.9, 0.98])
        ('0.5', 'true', 'null', '[0.9, 0.98]')
    """
    plain = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    return plain or ("null" if value is None else str(value))


def trust_question(asked: Asked) -> Question:
    """Trust policies, each with its own options."""
    catalogue = asked.project.catalogue
    names = tuple(dict.fromkeys(asked.arguments)) or POLICIES
    for number, name in enumerate(names, 1):
        try:
            catalogue.spec(TrustPolicySpec, name)
        except KdkitError as error:
            raise error.at(f"argument {number} ('{name}')") from None
    rows = []
    for name in names:
        recipe = asked.recipe.in_every_stage(partial(_with_policy, name=name))
        rows.append(Variation(name, asked.project, recipe, {"trust.policy": name}))
    own = ", ".join(f"{key} {value}" for key, value in asked.recipe.trust.options.items())
    note = (
        f"As it is: policy {asked.recipe.trust.policy}{f' ({own})' if own else ''}; the others with their default "
        "options. 'kdkit sweep recipe trust.options.KEY=...' varies options"
    )
    return Question((asked.baseline, *rows), notes=(note,))


def _with_policy(recipe: Recipe, *, name: str) -> Recipe:
    options = recipe.trust.options if name == recipe.trust.policy else {}
    entry = TrustEntry.model_validate({**recipe.trust.model_dump(), "policy": name, "options": options})
    return recipe.model_copy(update={"trust": entry})


def imbalance_question(asked: Asked) -> Question:
    """Domains drawn with probability ~ n^alpha: ``sampling.domain_power``."""
    keys = parse_keys([f"sampling.domain_power={','.join(asked.arguments) or ','.join(map(str, POWERS))}"])
    rows = []
    for chosen in grid(keys):
        value = keys[0].values[chosen[keys[0].key]]
        recipe = asked.recipe.in_every_stage(partial(with_values, keys=keys, chosen=chosen))
        rows.append(Variation(f"{keys[0].key}={shown(value)}", asked.project, recipe, {keys[0].key: value}))
    notes = ["Domains are drawn with probability ~ n^alpha of their n training samples: 0 draws all alike, 1 by size"]
    _, sizes = np.unique(asked.index.domain_index[asked.index.select("train")], return_counts=True)
    if len(set(sizes.tolist())) == 1:
        notes.append("All domains have the same number of training samples: alpha changes nothing but chance")
    return Question((asked.baseline, *rows), keys[0].key, tuple(notes))


def held_out_question(asked: Asked) -> Question:
    """A domain without its training samples, evaluated on its held-out ones."""
    known = [asked.index.domains[number] for number in np.unique(asked.index.domain_index[asked.index.select("train")])]
    if not asked.arguments:
        raise KdkitError(
            "KD-DIST-387",
            "no domain is named",
            fix=f"name one or several, each is held out by itself: {', '.join(known)}",
        )
    for number, domain in enumerate(asked.arguments, 1):
        if domain not in known:
            raise KdkitError(
                "KD-DIST-388",
                f"the training split has no domain '{domain}'",
                where=f"argument {number}",
                fix=did_you_mean(domain, known),
            )
    if len(known) == 1:
        raise KdkitError(
            "KD-DIST-389",
            f"'{known[0]}' is the only domain: without it nothing is left to learn from",
            fix="add data of another domain",
        )
    rows = [
        Variation(
            f"without {domain}", asked.project, asked.recipe, {"held out": domain}, without=(domain,), domains=(domain,)
        )
        for domain in dict.fromkeys(asked.arguments)
    ]
    notes = (
        "Each row is scored on the domain whose training samples it left out, beside the student that saw them. Its "
        "calibration samples were read to measure the teachers; the teachers may have seen such images",
        "Fewer samples take fewer steps: an epoch is shorter",
    )
    return Question((asked.baseline, *rows), notes=notes)


def teachers_question(asked: Asked) -> Question:
    """Without each teacher, with the best one, two, ..., and in what order they arrive."""
    wanted = tuple(asked.arguments) or (LEAVE_ONE_OUT, COUNTS, ORDER)
    for number, part in enumerate(wanted, 1):
        if part not in (LEAVE_ONE_OUT, COUNTS, ORDER):
            raise KdkitError(
                "KD-DIST-390",
                f"'{part}' is no part of this question",
                where=f"argument {number}",
                fix=did_you_mean(part, (LEAVE_ONE_OUT, COUNTS, ORDER)),
            )
    names = asked.inventory.teachers
    if len(names) < 2:
        raise KdkitError(
            "KD-DIST-391",
            f"the recipe reads {len(names)} teacher{'s' * (len(names) != 1)}: nothing can be left out or ordered",
            where=str(asked.project.registry_path),
            why="" if names else f"recipe {asked.recipe.name} or the registry names none",
            fix="'kdkit add-teacher NAME'; 'kdkit teachers --available' lists them",
        )
    baseline = Variation("all teachers", asked.project, asked.recipe, parts=wanted)
    rows = list[Variation]()
    if LEAVE_ONE_OUT in wanted:
        for name in names:
            left = [other for other in names if other != name]
            rows.append(_with_some(asked, f"without {name}", left, {"without": name}, LEAVE_ONE_OUT))
    if COUNTS in wanted:
        best = best_first(asked)
        for count in range(1, len(names)):
            chosen = best[:count]
            title = f"the best {count}: {', '.join(chosen)}"
            rows.append(_with_some(asked, title, chosen, {"teachers": count}, COUNTS))
    if ORDER in wanted:
        for order in orders(names):
            row = _with_some(asked, f"order {', '.join(order)}", order[:1], {"order": list(order)}, ORDER)
            rows.append(replace(row, project=asked.project, arrival=order))
    notes = []
    if COUNTS in wanted:
        notes.append("Counts: the best teachers by their mean accuracy over domains on the calibration split")
    if ORDER in wanted:
        notes.append(
            "Order: the first teacher makes a student, each later one an increment of the recipe, which takes steps "
            "beside those of 'all teachers'. The guard refuses nothing here, and repairs nothing"
        )
    return Question((baseline, *rows), notes=tuple(notes))


def stages_question(asked: Asked) -> Question:
    """Stages one after the other, against each of them alone for as many steps, and against the other order."""
    project, recipe = asked.project, asked.recipe
    if asked.arguments:
        stages = [
            load_recipe(name, project.catalogue, project.root).changed_by(project.registry) for name in asked.arguments
        ]
        nested = next((stage.name for stage in stages if stage.stages), "")
    else:
        stages, nested = list(recipe.stages), ""
    if len(stages) < 2 or nested:
        raise KdkitError(
            "KD-PROJ-384",
            f"recipe {nested} has stages of its own" if nested else f"stages are compared, and there are {len(stages)}",
            where="arguments" if asked.arguments else f"recipe {recipe.name}",
            fix="name the recipes of two stages or more: kdkit sweep stages clinkd sft; or a recipe with stages",
        )
    titles = stage_titles(stages)
    whole = recipe if not asked.arguments else _staged(stages)
    rows = [Variation(", then ".join(titles), project, whole, {"stages": titles})]
    samples = len(asked.index.select("train"))
    steps = sum(stage.optimizer.length(samples) for stage in stages)
    for title, stage in dict(zip(titles, stages, strict=True)).items():
        optimizer = changed_optimizer(stage.optimizer, {"steps": steps})
        direct = Recipe.model_validate({**stage.model_dump(mode="json"), "optimizer": optimizer})
        rows.append(Variation(f"{title} alone", project, direct, {"stages": [title]}))
    if len(stages) == 2 and stages[0] != stages[1]:
        back = titles[::-1]
        rows.append(Variation(", then ".join(back), project, _staged(stages[::-1]), {"stages": back}))
    notes = (
        "A stage alone takes as many steps as all stages together, at its own rate and schedule; if it skips samples "
        "that others use, or its pass takes one caption of an image or some samples of a group, the numbers of steps "
        "in the table differ",
    )
    return Question(tuple(rows), notes=notes)


def stage_titles(stages: Sequence[Recipe]) -> list[str]:
    """Names of stages; those that share a name and differ in their settings have their number too."""
    by_name = {stage.name: [other for other in stages if other.name == stage.name] for stage in stages}
    alike = {name: all(stage == own[0] for stage in own) for name, own in by_name.items()}
    return [stage.name if alike[stage.name] else f"{stage.name} {n}" for n, stage in enumerate(stages, 1)]


def _with_some(asked: Asked, title: str, names: Sequence[str], values: Mapping[str, Any], part: str) -> Variation:
    """A row with some of the teachers; impossible if the student starts from the files of another one."""
    config = json.dumps(asked.project.registry.student.config)
    lacking = [name for name in asked.project.registry.teachers if f'"{TEACHER}{name}"' in config and name not in names]
    why = (
        f"the student starts from the files of {', '.join(lacking)} ('{TEACHER}NAME' in its config)" if lacking else ""
    )
    return Variation(title, asked.with_teachers(names), asked.recipe, values, parts=(part,), impossible=why)


def _staged(stages: Sequence[Recipe]) -> Recipe:
    name = "-".join(stage.name for stage in stages)
    return Recipe.model_validate({"name": name, "summary": "stages of a sweep", "stages": tuple(stages)})


def best_first(asked: Asked) -> tuple[str, ...]:
    """Teachers by their mean accuracy over the domains that all of them are measured in, else over their own."""
    accuracy = asked.inventory.trust.accuracy
    shared = ~np.isnan(accuracy).any(axis=0)
    with np.errstate(invalid="ignore"):
        scores = [
            float(np.nanmean(row[shared] if shared.any() else row)) if (~np.isnan(row)).any() else -1.0
            for row in accuracy
        ]
    names = asked.inventory.trust.teachers
    return tuple(name for _, name in sorted(zip(scores, names, strict=True), key=lambda pair: -pair[0]))


def orders(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Orders of arrival: all of them for few teachers, else a Latin square.

    Example:
        >>> orders(["a", "b"])
        [('a', 'b'), ('b', 'a')]
        >>> orders(["a", "b", "c", "d"])[1]
        ('b', 'c', 'd', 'a')
    """
    if len(names) <= MOST_ORDERS:
        return list(permutations(names))
    return [(*names[start:], *names[:start]) for start in range(len(names))]
