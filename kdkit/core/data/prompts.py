"""Prompts of zero-shot classification: templates filled with the classes of each domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdkit.core.data.index import SampleIndex
from kdkit.core.project.registry.schema import Registry

DEFAULT_TEMPLATES = (
    "a {domain} image of {label}.",
    "{domain} showing {label}.",
    "{label} presented in {domain}.",
)
PromptSets = dict[str, dict[str, list[str]]]


def prompt_sets(registry: Registry, index: SampleIndex) -> PromptSets:
    """Domain -> label -> prompts, for every domain that has labels.

    Templates come from ``prompts`` in the registry (of the domain, else ``default``), else from
    :data:`DEFAULT_TEMPLATES`. Underscores in domains and labels become spaces. The registry has checked the templates.
    """
    return {
        domain: {
            label: [_fill(template, domain, label) for template in _templates(registry, domain)] for label in labels
        }
        for domain, labels in index.classes.items()
        if labels
    }


def all_prompts(sets: Mapping[str, Mapping[str, Sequence[str]]]) -> tuple[str, ...]:
    """Every prompt once, in a fixed order."""
    return tuple(dict.fromkeys(p for labels in sets.values() for prompts in labels.values() for p in prompts))


def _templates(registry: Registry, domain: str) -> Sequence[str]:
    return registry.prompts.get(domain) or registry.prompts.get("default") or DEFAULT_TEMPLATES


def _fill(template: str, domain: str, label: str) -> str:
    return template.format(label=label.replace("_", " "), domain=domain.replace("_", " "))
