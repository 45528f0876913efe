"""License names and what follows from them."""

from __future__ import annotations

from itertools import product

import pytest

from kdkit.core.contracts import Distillation
from kdkit.core.project.licenses import LicenseFacts, Use, allowed, classify, normalize


@pytest.mark.parametrize(
    ("written", "name", "kind"),
    [
        ("MIT License", "mit", "permissive"),
        ("The MIT License", "mit", "permissive"),
        ("Apache License, Version 2.0", "apache-2.0", "permissive"),
        ("Apache 2.0", "apache-2.0", "permissive"),
        ("BSD 3-Clause License", "bsd-3-clause", "permissive"),
        ("CC BY 4.0", "cc-by-4.0", "permissive"),
        ("CC0 1.0", "cc0-1.0", "permissive"),
        ("Public Domain", "public-domain", "permissive"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0", "share-alike"),
        ("GPL-3.0-only", "gpl-3.0-only", "share-alike"),
        ("AGPL-3.0", "agpl-3.0", "share-alike"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0", "non-commercial"),
        ("CC-BY-NC-SA 4.0", "cc-by-nc-sa-4.0", "non-commercial"),
        ("cc-by-nd-4.0", "cc-by-nd-4.0", "no-derivatives"),
        ("CC-BY-NC-ND 4.0", "cc-by-nc-nd-4.0", "no-derivatives"),
        ("Creative Commons Attribution NonCommercial NoDerivatives", "cc-by-nc-nd", "no-derivatives"),
        ("LicenseRef-Hospital-2026", "licenseref-hospital-2026", "agreement"),
        ("other", "other", "unknown"),
        ("hai-def-terms", "hai-def-terms", "unknown"),
        ("openrail", "openrail", "unknown"),
        ("mitigated", "mitigated", "unknown"),
        ("", "unknown", "unknown"),
    ],
)
def test_names(written: str, name: str, kind: str) -> None:
    assert normalize(written) == name
    assert normalize(name) == name, "normalizing twice changes nothing"
    assert classify(written) == kind


# asserted, seen, catalogue, distillation -> (research, commercial), each "yes", "warned" or "no"
CASES: list[tuple[str | None, str | None, str, Distillation, str, str]] = [
    ("mit", None, "unknown", "unknown", "yes", "yes"),
    (None, "mit", "unknown", "unknown", "yes", "yes"),
    (None, None, "mit", "allowed", "yes", "yes"),
    (None, None, "unknown", "allowed", "yes", "yes"),
    (None, None, "unknown", "unknown", "warned", "no"),
    (None, "other", "unknown", "unknown", "warned", "no"),
    ("mit", "other", "unknown", "unknown", "yes", "yes"),
    (None, None, "cc-by-sa-4.0", "unknown", "warned", "warned"),
    (None, None, "cc-by-nc-4.0", "unknown", "yes", "no"),
    ("mit", "cc-by-nc-4.0", "unknown", "unknown", "yes", "no"),
    (None, None, "mit", "non-commercial", "yes", "no"),
    (None, None, "mit", "forbidden", "no", "no"),
    ("apache-2.0", "mit", "cc-by-nc-nd-4.0", "allowed", "no", "no"),
    ("LicenseRef-deal", "cc-by-nc-nd-4.0", "mit", "forbidden", "warned", "warned"),
]


@pytest.mark.parametrize(("case", "use"), list(product(CASES, ("research", "commercial"))))
def test_the_strictest_claim_decides(
    case: tuple[str | None, str | None, str, Distillation, str, str], use: Use
) -> None:
    asserted, seen, catalogue, distillation, research, commercial = case
    facts = LicenseFacts(catalogue, asserted, seen, distillation, note="its clause")
    verdict = allowed(facts, use)
    outcome = "no" if not verdict.allowed else "warned" if verdict.warning else "yes"
    assert outcome == (research if use == "research" else commercial)
    assert verdict.reason
    assert verdict.allowed or verdict.fix, "a refusal says what could change it"
    if distillation == "forbidden" and not verdict.allowed:
        assert "its clause" in verdict.reason


def test_gated_adds_a_warning_and_denials_stay() -> None:
    gated = allowed(LicenseFacts("mit", gated=True), "research")
    assert gated.allowed
    assert gated.warning
    assert "gated" in gated.reason
    assert not allowed(LicenseFacts("cc-by-nc-nd-4.0", gated=True), "research").allowed


def test_an_unknown_asserted_license_adds_a_warning() -> None:
    verdict = allowed(LicenseFacts(asserted="by-nc 4", seen="mit"), "commercial")
    assert (verdict.allowed, verdict.warning) == (True, True)
    assert "'by-nc 4'" in verdict.reason
