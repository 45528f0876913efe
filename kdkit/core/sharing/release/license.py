"""Derive a student's license: the strictest of its teachers' and data's. No legal advice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.project.licenses import ORDER, LicenseClass, LicenseFacts, Use, classify, normalize

UNDETERMINED = "undetermined"
"""Name if a teacher's license is unknown; private repositories only."""
DEFAULT = "apache-2.0"
"""License if no teacher requires another."""
_NON_COMMERCIAL = "cc-by-nc-4.0"

# Permissive licenses by their requirements; the student takes the most demanding one.
_NO_NOTICE = re.compile(r"cc0.*|unlicense|0bsd|mit-0|wtfpl|pddl")
_CREDIT = re.compile(r"cc-by-\d.*|cc-by|odc-by")

# Share-alike licenses whose terms allow redistribution under another one: later versions of CC BY-SA (3.0,
# section 4b), CC BY-SA 4.0 under GPL-3.0 (creativecommons.org/compatiblelicenses), LGPL under GPL (LGPL-3.0,
# section 4; LGPL-2.1, section 3), GPL-3.0 with AGPL-3.0 (GPL-3.0, section 13), MPL-2.0 (section 1.12).
_MAY_BECOME: Mapping[str, tuple[str, ...]] = {
    "cc-by-sa-2.0": ("cc-by-sa-2.5", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    "cc-by-sa-2.5": ("cc-by-sa-3.0", "cc-by-sa-4.0"),
    "cc-by-sa-3.0": ("cc-by-sa-4.0",),
    "cc-by-sa-4.0": ("gpl-3.0",),
    "mpl-2.0": ("lgpl-2.1", "lgpl-3.0", "gpl-2.0", "gpl-3.0", "agpl-3.0"),
    "lgpl-2.1": ("gpl-2.0", "gpl-3.0"),
    "lgpl-3.0": ("gpl-3.0",),
    "gpl-3.0": ("agpl-3.0",),
    "cc-by-nc-sa-2.0": ("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    "cc-by-nc-sa-3.0": ("cc-by-nc-sa-4.0",),
}


@dataclass(frozen=True)
class StudentLicense:
    """License of a published student.

    Attributes:
        name: normalized, e.g. ``cc-by-nc-4.0``; ``undetermined`` if unknown.
        kind: its class.
        because: the deciding terms, e.g. ``teacher 'x' (cc-by-nc-4.0)``.
        stated: chosen by the owner (at least as strict as the derived one).
        warnings: to show before publishing.
    """

    name: str
    kind: LicenseClass
    because: tuple[str, ...]
    stated: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Term:
    """A license that binds the student, and its source."""

    who: str
    name: str
    kind: LicenseClass

    def __str__(self) -> str:
        return f"{self.who} ({self.name})"


def derive_license(
    teachers: Mapping[str, LicenseFacts],
    use: Use,
    *,
    others: Mapping[str, LicenseFacts] | None = None,
    data: Sequence[str] = (),
    stated: str | None = None,
    public: bool = False,
) -> StudentLicense:
    """The strictest wins: permissive < share-alike < non-commercial < no-derivatives.

    Args:
        teachers: of all versions of the student.
        use: of the project; a commercial one allows no non-commercial student.
        others: display name -> license of initial weights, pulled releases and correctors.
        data: stated licenses of the training data.
        stated: license that the owner chose; at least as strict as the derived one.
        public: forbids unknown licenses.

    Raises:
        KdkitError: exit code 4, naming the teacher: no derivatives allowed; unknown in public; share-alike that
            excludes another license; non-commercial in a commercial project; a stated license that is less strict.
    """
    terms = [_term_of(f"teacher '{name}'", facts) for name, facts in teachers.items()]
    terms += [_term_of(what, facts) for what, facts in (others or {}).items()]
    terms += [_Term(f"data under {name}", normalize(name), classify(name)) for name in dict.fromkeys(data)]
    _refuse(terms, use, public=public)
    # kdkit.core.project.licenses.allowed has warned about teachers already.
    warnings = [f"{term}: its license is unknown" for term in terms[len(teachers) :] if term.kind == "unknown"]
    warnings += [f"{term}: your agreement must allow publishing" for term in terms if term.kind == "agreement"]
    derived = _strictest([term for term in terms if term.kind in ORDER])
    if stated is not None:
        return _stated(stated, derived, tuple(warnings))
    agreements = [str(term) for term in terms if term.kind == "agreement"]
    if public and agreements:
        raise _conflict(
            "only you know what your agreement allows",
            f"it is about {', '.join(agreements)}",
            "state it: --license NAME",
        )
    if any(term.kind == "unknown" for term in terms):
        unknown = tuple(str(term) for term in terms if term.kind == "unknown")
        return StudentLicense(UNDETERMINED, "unknown", unknown, warnings=tuple(warnings))
    return StudentLicense(derived.name, derived.kind, derived.because, warnings=tuple(warnings))


def _term_of(who: str, facts: LicenseFacts) -> _Term:
    """The strictest of its names, or the owner's terms for distillation."""
    kind = facts.strictest
    if kind == "agreement":
        return _Term(who, str(facts.asserted), kind)
    if kind == "no-derivatives" or facts.distillation == "forbidden":
        return _Term(who, facts.shown, "no-derivatives")
    if facts.distillation == "non-commercial" and kind != "non-commercial":
        return _Term(who, _NON_COMMERCIAL, "non-commercial")
    if kind == "unknown":
        return _Term(who, DEFAULT, "permissive") if facts.distillation == "allowed" else _Term(who, facts.shown, kind)
    return _Term(who, next(known for known in facts.names if classify(known) == kind), kind)


def _refuse(terms: Sequence[_Term], use: Use, *, public: bool) -> None:
    for term in terms:
        if term.kind == "no-derivatives":
            raise _conflict(
                f"{term.who} allows no derivatives, and a student is one",
                f"its license is {term.name}",
                "if its owner permits it, record that: 'license: LicenseRef-AGREEMENT' in registry.yaml",
            )
        if term.kind == "unknown" and public:
            raise _conflict(
                f"the license of {term.who} is unknown, so its student may not be allowed to be published",
                f"its license is {term.name}",
                "find out and write it into registry.yaml as 'license:', or push to a private repository",
            )
        if term.kind == "non-commercial" and use == "commercial":
            raise _conflict(
                f"{term.who} allows no commercial use, and this project declares use: commercial",
                f"its license is {term.name}",
                "teach a student without it",
            )


def _strictest(terms: Sequence[_Term]) -> StudentLicense:
    """Strictest of terms whose class is in ``ORDER``."""
    if not terms:
        return StudentLicense(DEFAULT, "permissive", ())
    kind = max((term.kind for term in terms), key=ORDER.index)
    binding = [term for term in terms if term.kind == kind]
    alike = [term for term in terms if _is_share_alike(term.name)]
    if alike:
        name = _joint(alike)
        for term in terms:
            # A share-alike license forbids further restrictions; it may cover freer ones.
            if ORDER.index(term.kind) > ORDER.index(classify(name)):
                raise _exclude(alike[0], term)
        return StudentLicense(name, classify(name), tuple(map(str, alike)))
    if kind == "non-commercial":
        names = sorted(term.name for term in binding)
        return StudentLicense(names[-1], kind, tuple(map(str, binding)))
    name = max((term.name for term in binding), key=lambda name: (_demands(name), name))
    return StudentLicense(name, kind, tuple(str(term) for term in binding if term.name == name))


def _demands(name: str) -> int:
    """Rank of a permissive license: no condition, notice, notice and patents, public credit."""
    if _NO_NOTICE.fullmatch(name):
        return 0
    return 3 if _CREDIT.fullmatch(name) else 2 if name.startswith("apache") else 1


def _joint(terms: Sequence[_Term]) -> str:
    """A share-alike license compatible with all of ``terms``."""
    name, holder = terms[0].name, terms[0]
    for term in terms[1:]:
        common = [n for n in _reachable(name) if n in _reachable(term.name)]
        if not common:
            raise _exclude(holder, term)
        name, holder = common[0], term
    return name


def _reachable(name: str) -> tuple[str, ...]:
    """The license, then compatible ones, nearest first."""
    found = [name]
    for known in found:
        found += [more for more in _MAY_BECOME.get(known, ()) if more not in found]
    return tuple(found)


def _stated(stated: str, derived: StudentLicense, warnings: Iterable[str]) -> StudentLicense:
    name, kind = normalize(stated), classify(stated)
    known = kind in ORDER
    fits = name in _reachable(derived.name) if _is_share_alike(derived.name) else known
    stricter = known and ORDER.index(kind) >= ORDER.index(derived.kind)
    if (fits and stricter) or (derived.kind == "permissive" and kind in (*ORDER, "agreement")):
        return StudentLicense(name, kind, derived.because, stated=True, warnings=tuple(warnings))
    raise _conflict(
        f"'{stated}' is not as strict as {derived.name}" if known else f"'{stated}' is of unknown strictness",
        f"the student learnt from {', '.join(derived.because)}",
        f"--license {derived.name}, or leave it out"
        + ("; a license of your own is LicenseRef-NAME" if derived.kind == "permissive" else ""),
    )


def _is_share_alike(name: str) -> bool:
    return classify(name) == "share-alike" or "sa" in name.split("-")


def _exclude(one: _Term, other: _Term) -> KdkitError:
    return _conflict(
        f"the licenses of {one.who} and {other.who} exclude each other",
        f"{one} requires its own license and forbids further terms; {other} requires more or another license",
        "teach a student without one of them; if an owner permits it, 'license: LicenseRef-AGREEMENT' in registry.yaml",
    )


def _conflict(what: str, why: str, fix: str) -> KdkitError:
    return KdkitError("KD-REL-012", what, where="license of the student", why=why, fix=fix, code=ExitCode.DENIED)
