"""Licenses of teachers, and whether they allow distillation.

This prevents accidents; it is no legal advice, because it reads names, not contracts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from kdkit.core.contracts import Distillation

LicenseClass = Literal["permissive", "agreement", "share-alike", "unknown", "non-commercial", "no-derivatives"]
ORDER: tuple[LicenseClass, ...] = ("permissive", "share-alike", "non-commercial", "no-derivatives")
"""From the least to the most restrictive of the known classes."""

Use = Literal["research", "commercial"]

_PERMISSIVE = re.compile(
    r"(mit|mit-0|apache(-2\.0)?|bsd(-.*)?|isc|zlib|cc0(-1\.0)?|cc-by(-\d.*)?|unlicense|wtfpl|afl-3\.0|artistic-2\.0"
    r"|bsl-1\.0|ecl-2\.0|ms-pl|ncsa|postgresql|pddl|odc-by|cdla-permissive-\d\.\d|0bsd|public-domain)"
)
_SHARE_ALIKE = re.compile(
    r"(cc-by-sa(-\d.*)?|gfdl|odbl|cdla-sharing-1\.0|eupl-1\.\d|mpl-2\.0|osl-3\.0|epl-\d\.0|(a|l)?gpl(-.*)?)"
)
_AGREEMENT = "licenseref-"


def normalize(name: str) -> str:
    """A license's name in the spelling of the Hub and SPDX: ``"CC BY-NC 4.0"`` -> ``cc-by-nc-4.0``.

    An unknown name is lower-cased, with dashes.
    """
    word = re.sub(r"[\s_/,]+", "-", name.strip().lower()).strip("-")
    word = re.sub(r"^(the-)?(.+?)-licen[cs]e(-.*)?$", lambda match: match[2] + (match[3] or ""), word)
    word = re.sub(r"-(version-|v)(?=\d)", "-", word)
    word = re.sub(r"^creative-commons-", "cc-", word)
    if re.match(r"cc|(attribution|by)\b", word):
        for long, short in _LONG.items():
            word = word.replace(long, short)
    word = re.sub(r"^cc(by|0)", r"cc-\1", word).replace("cc-0", "cc0").replace("bync", "by-nc")
    return {"apache": "apache-2.0", "apache-2": "apache-2.0", "apache2": "apache-2.0", "": "unknown"}.get(word, word)


_LONG = {
    "attribution": "by",
    "noncommercial": "nc",
    "non-commercial": "nc",
    "noderivatives": "nd",
    "noderivs": "nd",
    "no-derivatives": "nd",
    "sharealike": "sa",
    "share-alike": "sa",
}


def classify(name: str) -> LicenseClass:
    """The class of a license's name; ``unknown`` if in doubt. A name that says ``non-commercial`` is believed.

    ``LicenseRef-...`` (SPDX's form for custom texts) is an ``agreement``: the user asserts a permission of the owner.
    """
    word = normalize(name)
    if word.startswith(_AGREEMENT):
        return "agreement"
    parts = word.split("-")
    if word.startswith("cc-") and "nd" in parts:
        return "no-derivatives"
    if (word.startswith("cc-") and "nc" in parts) or re.search(r"\bnon-?commercial\b", word):
        return "non-commercial"
    if _PERMISSIVE.fullmatch(word):
        return "permissive"
    if _SHARE_ALIKE.fullmatch(word):
        return "share-alike"
    return "unknown"


@dataclass(frozen=True)
class LicenseFacts:
    """The claims about one teacher's license.

    Attributes:
        catalogue: in the teacher's spec.
        asserted: in ``registry.yaml``.
        seen: in the teacher's files.
        distillation: the spec's statement about training on outputs.
        note: the spec's reason.
        gated: the Hub requires accepting terms before download.
    """

    catalogue: str = "unknown"
    asserted: str | None = None
    seen: str | None = None
    distillation: Distillation = "unknown"
    note: str = ""
    gated: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct known names, the asserted one first."""
        given = (self.asserted, self.seen, self.catalogue)
        return tuple(dict.fromkeys(normalize(name) for name in given if name and normalize(name) != "unknown"))

    @property
    def shown(self) -> str:
        """The names, for a table."""
        return " / ".join(self.names) or "unknown"

    @property
    def strictest(self) -> LicenseClass:
        """An asserted agreement, else the most restrictive known class."""
        if self.asserted and classify(self.asserted) == "agreement":
            return "agreement"
        classes = [classify(name) for name in self.names]
        known = [kind for kind in classes if kind in ORDER]
        return max(known, key=ORDER.index) if known else "unknown"


@dataclass(frozen=True)
class Verdict:
    """Whether a student may be distilled from a teacher.

    Attributes:
        allowed: for the project's use.
        reason: one sentence, always given.
        warning: show ``reason`` even if allowed.
        fix: remedy for a refusal.
    """

    allowed: bool
    reason: str
    warning: bool = False
    fix: str = ""


def allowed(facts: LicenseFacts, use: Use) -> Verdict:
    """Judge by the strictest claim.

    An asserted agreement overrides all claims. No-derivatives, or outputs that count as derivatives: denied.
    Non-commercial: for research. Unknown: for research, with a warning. Gated: by its license, with a reminder of the
    accepted terms. An asserted license that kdkit does not know (perhaps a typing error) adds a warning.
    """
    verdict = _judge(facts, use)
    if verdict.allowed and facts.asserted and facts.strictest != "unknown" and classify(facts.asserted) == "unknown":
        reason = f"{verdict.reason}; kdkit does not know the asserted license '{facts.asserted}'"
        verdict = replace(verdict, reason=reason, warning=True)
    if not facts.gated or not verdict.allowed:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; gated: its terms must be accepted", warning=True)


def _judge(facts: LicenseFacts, use: Use) -> Verdict:
    kind, named = facts.strictest, facts.shown
    agreement = "if the owner permits it, record that: --license LicenseRef-AGREEMENT (license: in registry.yaml)"
    if kind == "agreement":
        others = "; the published license is " + " / ".join(facts.names[1:]) if facts.names[1:] else ""
        return Verdict(True, f"by agreement {facts.asserted}{others}", warning=True)
    if kind == "no-derivatives" or facts.distillation == "forbidden":
        why = facts.note or "a student trained on its outputs is a derivative"
        return Verdict(False, f"{named} allows no derivatives: {why}", fix=agreement)
    if kind == "non-commercial" or facts.distillation == "non-commercial":
        if use == "research":
            return Verdict(True, f"{named}: the student will be for non-commercial use only")
        fix = f"remove it, or 'use: research' if that is what the student is for; {agreement}"
        return Verdict(False, f"{named} allows no commercial use, and this project declares use: {use}", fix=fix)
    if kind == "share-alike":
        return Verdict(True, f"{named}: the student may have to carry the same license", warning=True)
    if kind == "unknown" and facts.distillation != "allowed":
        if use == "research":
            return Verdict(True, f"license {named}: no known permission to distill", warning=True)
        fix = f"find its license and write it into registry.yaml as 'license:'; {agreement}"
        return Verdict(False, f"license {named}, and this project declares use: {use}", fix=fix)
    return Verdict(True, f"{named} allows it")
