"""The built-in recipes: the YAML files of this folder."""

from __future__ import annotations

from kdkit.core.contracts import RecipeSpec
from kdkit.core.contracts.hookspecs import hookimpl


@hookimpl
def kdkit_recipes() -> tuple[RecipeSpec, ...]:
    """The default recipe, and published methods to compare with."""
    return (
        _spec(
            "kdkit", "teachers through heads and one similarity row, and captions, each by its evidence; the default"
        ),
        _spec("mmkd-paper", "MMKD-CLIP as in its paper: CLIP on pairs, then FD + ICL + 0.1 CLIP, gate at 0.90"),
        _spec(
            "mmkd-released", "MMKD-CLIP as in its released code, oddities included: CLIP on pairs, then distillation"
        ),
        _spec("clipkd", "CLIP-KD: CLIP + CRD + ICL + 2000 FD"),
        _spec(
            "clinkd",
            "ClinKD: (CE + a T^2 KL) / (1 + a) of answers, from stored next-token distributions; a = 0.5",
        ),
        _spec("sft", "supervised fine-tuning on the answers alone: no teacher"),
        _spec("captions", "CLIP on the captions alone: no teacher"),
        _spec("clip", "CLIP on pairs with random crops, as MMKD-CLIP's stage 1: no teacher"),
    )


def _spec(name: str, summary: str) -> RecipeSpec:
    return RecipeSpec(name=name, summary=summary, resource=f"{__name__}:{name}.yaml")
