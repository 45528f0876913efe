"""Prompts of zero-shot classification: templates filled with the classes of each domain, or prompts per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.data.index import SampleIndex
from kdkit.core.project.registry.schema import FindingPrompts, Registry

DEFAULT_TEMPLATES = (
    "a {domain} image of {label}.",
    "{domain} showing {label}.",
    "{label} presented in {domain}.",
)
PromptSets = dict[str, dict[str, list[str]]]
FindingSets = dict[str, dict[str, tuple[list[str], list[str]]]]
"""Domain -> finding -> its positive and negative prompts."""


def prompt_sets(registry: Registry, index: SampleIndex) -> PromptSets:
    """Domain -> label -> prompts, for every domain that has labels.

    Prompts come from ``prompts`` in the registry: those of the class, else the templates of the domain, else of
    ``default``, else :data:`DEFAULT_TEMPLATES`. Underscores in domains and labels become spaces.

    Raises:
        KdkitError: prompts of a class that no sample of the domain has.
    """
    return {
        domain: {label: _class_prompts(registry, domain, label) for label in labels}
        for domain, labels in index.classes.items()
        if labels and _known(registry, domain, {*labels, *index.findings.get(domain, ())})
    }


def finding_sets(registry: Registry, index: SampleIndex) -> FindingSets:
    """Domain -> finding -> prompts with it and without it, for domains whose samples have findings.

    Without prompts of its own, the negative ones are those of ``no FINDING`` (Tiu et al., Expert-level detection of
    pathologies from unannotated chest X-ray images, Nature Biomedical Engineering 6, 2022).

    Raises:
        KdkitError: as :func:`prompt_sets`.
    """
    return {
        domain: {name: _finding_prompts(registry, domain, name) for name in names}
        for domain, names in index.findings.items()
        if _known(registry, domain, {*names, *index.classes[domain]})
    }


def project_prompts(registry: Registry, index: SampleIndex) -> tuple[str, ...]:
    """Every text beside the captions that an evaluation may compare with images, once, in a fixed order: prompts of
    classes and of findings, and questions. Raises: KdkitError as :func:`prompt_sets`."""
    findings = finding_sets(registry, index)
    texts = [
        *all_prompts(prompt_sets(registry, index)),
        *(text for names in findings.values() for sides in names.values() for side in sides for text in side),
        *index.questions,
    ]
    return tuple(dict.fromkeys(texts))


def all_prompts(sets: Mapping[str, Mapping[str, Sequence[str]]]) -> tuple[str, ...]:
    """Every prompt once, in a fixed order."""
    return tuple(dict.fromkeys(p for labels in sets.values() for prompts in labels.values() for p in prompts))


def _class_prompts(registry: Registry, domain: str, label: str) -> list[str]:
    given = registry.prompts.get(domain)
    own = given.get(label) if isinstance(given, Mapping) else None
    if isinstance(own, FindingPrompts):
        own = own.positive
    return [_fill(template, domain, label) for template in own or templates_of(registry, domain)]


def _finding_prompts(registry: Registry, domain: str, name: str) -> tuple[list[str], list[str]]:
    given = registry.prompts.get(domain)
    own = given.get(name) if isinstance(given, Mapping) else None
    if isinstance(own, FindingPrompts):
        fill = partial(_fill, domain=domain, label=name)
        return [*map(fill, own.positive)], [*map(fill, own.negative)]
    positive = _class_prompts(registry, domain, name)
    return positive, [] if own else [_fill(text, domain, f"no {name}") for text in templates_of(registry, domain)]


def _known(registry: Registry, domain: str, classes: set[str]) -> bool:
    """True; raises KdkitError for prompts of a class that the domain does not have."""
    given = registry.prompts.get(domain)
    for name in given if isinstance(given, Mapping) else ():
        if name not in classes:
            raise KdkitError(
                "KD-DATA-230",
                f"no sample of the domain '{domain}' has the class '{name}'",
                where=f"registry.yaml, prompts.{domain}",
                fix=did_you_mean(name, sorted(classes)),
            )
    return True


def templates_of(registry: Registry, domain: str = "default") -> Sequence[str]:
    """The templates of a domain, else those of all domains."""
    for name in (domain, "default"):
        given = registry.prompts.get(name)
        if given and not isinstance(given, Mapping):
            return given
    return DEFAULT_TEMPLATES


def _fill(template: str, domain: str, label: str) -> str:
    if "{" not in template:
        return template
    return template.format(label=label.replace("_", " "), domain=domain.replace("_", " "))
