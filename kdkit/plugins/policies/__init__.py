"""Built-in trust policies."""

from __future__ import annotations

from collections.abc import Iterable

from kdkit.core.contracts import TrustPolicySpec
from kdkit.core.contracts.hookspecs import hookimpl

_AT = "kdkit.plugins.policies.policies:"


@hookimpl
def kdkit_trust_policies() -> Iterable[TrustPolicySpec]:
    return [
        TrustPolicySpec(
            name="threshold",
            summary="teachers that reach a fixed accuracy, 0.90 by default",
            factory=_AT + "Threshold",
            options={"value": 0.90, "on": "estimate", "fallback": "none"},
        ),
        TrustPolicySpec(
            name="top-k",
            summary="the k best teachers of each domain, if better than guessing",
            factory=_AT + "TopK",
            options={"k": 1},
        ),
        TrustPolicySpec(
            name="soft",
            summary="weights that fall with the distance to the domain's best teacher; 0 near chance",
            factory=_AT + "Soft",
            options={"sharpness": 8.0, "floor": 0.2},
        ),
        TrustPolicySpec(
            name="evidence",
            summary="teachers and captions by their log odds against guessing; the better of them has weight 1",
            factory=_AT + "Evidence",
            options={"sharpness": 30.0, "floor": 0.5},
            weighs_captions=True,
        ),
        TrustPolicySpec(
            name="all",
            summary="every teacher in every domain where it was measured: no gate",
            factory=_AT + "All",
            options={"unmeasured": False},
        ),
    ]
