"""The license of a model, as its files state it, and whether it allows the project's use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.project.licenses import ORDER, Use, allowed, classify, normalize
from kdkit.core.project.registry.chosen import ChosenTeacher
from kdkit.core.project.registry.lock import LicenseSeen

_TEXTS: tuple[tuple[str, str], ...] = (
    (r"attribution-noncommercial-noderiv", "cc-by-nc-nd-4.0"),
    (r"attribution-noderiv", "cc-by-nd-4.0"),
    (r"attribution-noncommercial-sharealike", "cc-by-nc-sa-4.0"),
    (r"attribution-noncommercial", "cc-by-nc-4.0"),
    (r"attribution-sharealike", "cc-by-sa-4.0"),
    (r"creative commons attribution 4\.0|attribution 4\.0 international", "cc-by-4.0"),
    (r"apache license\s+version 2\.0", "apache-2.0"),
    (r"permission is hereby granted, free of charge", "mit"),
    (r"redistribution and use in source and binary forms", "bsd-3-clause"),
    (r"gnu (affero |lesser )?general public license", "gpl-3.0"),
)
_HEAD = 20_000


def require_permission(
    chosen: ChosenTeacher,
    use: Use,
    reporter: Reporter,
    seen: LicenseSeen | None = None,
    *,
    gated: bool = False,
    action: str = "distilling",
) -> None:
    """Check that the license allows the project's use; doubts become warnings.

    Args:
        chosen: the teacher.
        use: the use that the project declares.
        reporter: receives the warnings.
        seen, gated: from the files and the Hub, once they are here.
        action: what would be done, for messages: ``distilling``, or ``starting`` a student.

    Raises:
        KdkitError: with exit code 4, if the license forbids the use.
    """
    verdict = allowed(chosen.license_facts(seen, gated=gated), use)
    if not verdict.allowed:
        raise KdkitError(
            "KD-TEACH-009",
            f"{action} from '{chosen.name}' is not allowed",
            where=chosen.where,
            why=verdict.reason,
            fix=verdict.fix,
            code=ExitCode.DENIED,
        )
    if verdict.warning:
        reporter.warn(f"{'teacher' if action == 'distilling' else 'model'} '{chosen.name}': {verdict.reason}")


def read_license(folder: Path) -> tuple[LicenseSeen | None, bool]:
    """The strictest license in a model card's front matter or a license text, and whether the model is gated."""
    card = _front_matter(folder / "README.md")
    found = [LicenseSeen(name=name, evidence="README.md") for name in _card_licenses(card)]
    for path in sorted(folder.iterdir()):
        if path.is_file() and re.match(r"(LICEN[CS]E|COPYING)", path.name, re.IGNORECASE):
            text = " ".join(path.read_text("utf-8", errors="replace")[:_HEAD].lower().split())
            names = (name for pattern, name in _TEXTS if re.search(pattern, text))
            found.append(LicenseSeen(name=next(names, "unknown"), evidence=path.name))
    gated = any(str(key).startswith("extra_gated") for key in card)
    return (max(found, key=_strictness) if found else None), gated


def read_licenses(folders: Sequence[Path]) -> tuple[LicenseSeen | None, bool]:
    """The license under which models may be used together, and whether one of them is gated.

    Args:
        folders: of a teacher, then of the models that it is built on. One of these without a license is ``unknown``,
            which is stricter than a license that allows everything.
    """
    first, *bases = [read_license(folder) for folder in folders]
    nothing = LicenseSeen(name="unknown", evidence="no license of its base model")
    seen = [*([first[0]] if first[0] else []), *(base or nothing for base, _ in bases)]
    gated = any(gated for _, gated in (first, *bases))
    return (max(seen, key=_strictness_together) if seen else None), gated


def _strictness_together(seen: LicenseSeen) -> float:
    known = _strictness(seen)
    return known if known >= 0 else 1.5  # over share-alike, under non-commercial


def _strictness(seen: LicenseSeen) -> int:
    kind = classify(seen.name)
    return ORDER.index(kind) if kind in ORDER else -1


def _card_licenses(card: dict[Any, Any]) -> list[str]:
    """The card's licenses; ``license: other`` keeps the name in ``license_name``."""
    given = card.get("license")
    names = [str(name) for name in (given if isinstance(given, list) else [given]) if name]
    if names in ([], ["other"]) and card.get("license_name"):
        names = [str(card["license_name"])]
    return [normalize(name) for name in names]


def _front_matter(path: Path) -> dict[Any, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        return {}
    text = path.read_text("utf-8", errors="replace")[:_HEAD]
    match = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        data = YAML(typ="safe", pure=True).load(match[1]) if match else {}
    except YAMLError:
        return {}
    return data if isinstance(data, dict) else {}
