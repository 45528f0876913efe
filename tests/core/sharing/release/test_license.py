"""The student's license is the strictest of what it comes from, or there is none."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.project.licenses import ORDER, LicenseFacts, classify
from kdkit.core.sharing.release.license import UNDETERMINED, StudentLicense, derive_license
from tests.errors import raises_error

NAMES = (
    *("mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "gpl-3.0", "agpl-3.0", "eupl-1.2"),
    *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "weird", "unknown"),
)


def derive(*names: str, **more: object) -> StudentLicense:
    """Of one teacher per name: ``t0``, ``t1``, ..."""
    teachers = {f"t{number}": LicenseFacts(seen=name) for number, name in enumerate(names)}
    return derive_license(teachers, "research", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "apache-2.0"),
        (("mit",), "mit"),
        (("mit", "apache-2.0"), "apache-2.0"),
        (("cc0-1.0", "mit"), "mit"),
        (("apache-2.0", "cc-by-4.0", "mit"), "cc-by-4.0"),
        (("mit", "cc-by-sa-4.0"), "cc-by-sa-4.0"),
        (("cc-by-sa-3.0", "cc-by-sa-4.0"), "cc-by-sa-4.0"),
        (("cc-by-sa-4.0", "agpl-3.0"), "agpl-3.0"),
        (("mit", "CC BY-NC 4.0"), "cc-by-nc-4.0"),
        (("cc-by-nc-3.0", "cc-by-nc-4.0"), "cc-by-nc-4.0"),
        (("cc-by-nc-4.0", "cc-by-nc-sa-4.0"), "cc-by-nc-sa-4.0"),
        (("mit", "weird"), UNDETERMINED),
    ],
)
def test_the_strictest_wins_in_any_order(names: tuple[str, ...], expected: str) -> None:
    assert {derive(*order).name for order in permutations(names)} == {expected}


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("mit", "cc-by-nd-4.0"), "'t1'"),
        (("cc-by-sa-4.0", "mpl-2.0", "eupl-1.2"), "'t2'"),
        (("cc-by-sa-4.0", "cc-by-nc-4.0"), "'t1'"),
        (("cc-by-sa-4.0", "cc-by-nc-sa-4.0"), "'t1'"),
    ],
)
def test_a_conflict_names_the_teacher(names: tuple[str, ...], named: str) -> None:
    for public in (False, True):
        with raises_error("KD-REL-012", where="license of the student") as caught:
            derive(*names, public=public)
        assert named in f"{caught.value.what} {caught.value.why}"
        assert caught.value.code == ExitCode.DENIED
        assert caught.value.fix


@given(st.lists(st.sampled_from(NAMES), max_size=4), st.booleans())
def test_nothing_freer_than_any_teacher_comes_out(names: list[str], public: bool) -> None:
    kinds = [classify(name) for name in names]
    try:
        license = derive(*names, public=public)
    except KdkitError:
        alike = any("sa" in name or "pl" in name for name in names)
        assert "no-derivatives" in kinds or (public and "unknown" in kinds) or alike
        return
    assert "no-derivatives" not in kinds
    if "unknown" in kinds:
        assert not public
        assert license.kind == "unknown"
    else:
        assert license.kind == classify(license.name)
        assert all(ORDER.index(license.kind) >= ORDER.index(kind) for kind in kinds)


def test_unknown_is_for_private_repositories_alone() -> None:
    private = derive("mit", "weird")
    assert (private.kind, private.because) == ("unknown", ("teacher 't1' (weird)",))
    assert not private.warnings, "the distillation permission covers it"
    others = {"corrector 'big'": LicenseFacts(seen="weird")}
    (warning,) = derive("mit", "weird", others=others).warnings
    assert warning.startswith("corrector 'big'")
    assert "(weird)" in warning
    with raises_error("KD-REL-012", where="license of the student", mentions=("t1",)):
        derive("mit", "weird", public=True)
    with raises_error("KD-REL-012", where="license of the student", mentions=("t1",)):
        derive("mit", "weird", public=True, stated="cc-by-nc-4.0")


@pytest.mark.parametrize(
    ("names", "stated", "fits"),
    [
        (("mit",), "cc-by-nc-4.0", True),
        (("mit",), "our-own-terms", False),
        (("mit",), "licenseref-own", True),
        (("cc-by-4.0",), "mit", True),
        (("cc-by-sa-3.0",), "cc-by-sa-4.0", True),
        (("cc-by-sa-4.0",), "mit", False),
        (("cc-by-sa-4.0",), "cc-by-nc-4.0", False),
        (("cc-by-nc-4.0",), "cc-by-nc-nd-4.0", True),
        (("cc-by-nc-4.0",), "apache-2.0", False),
        (("cc-by-nc-4.0",), "our-own-terms", False),
        (("cc-by-nc-sa-4.0",), "cc-by-nc-4.0", False),
    ],
)
def test_a_person_may_state_what_is_at_least_as_strict(names: tuple[str, ...], stated: str, fits: bool) -> None:
    if fits:
        license = derive(*names, stated=stated)
        assert (license.name, license.stated) == (stated, True)
        return
    with raises_error("KD-REL-012", where="license of the student") as caught:
        derive(*names, stated=stated)
    assert "'t0'" in caught.value.why
    assert derive(*names).name in caught.value.fix


def test_what_the_owner_says_about_outputs_counts_beside_the_license() -> None:
    research_only = LicenseFacts(catalogue="mit", distillation="non-commercial")
    assert derive_license({"x": research_only}, "research").name == "cc-by-nc-4.0"
    with raises_error("KD-REL-012", where="license of the student"):
        derive_license({"x": research_only}, "commercial")
    with raises_error("KD-REL-012", where="license of the student", mentions=("no derivatives",)):
        derive_license({"x": LicenseFacts(catalogue="mit", distillation="forbidden")}, "research")
    assert derive_license({"x": LicenseFacts(distillation="allowed")}, "research", public=True).kind == "permissive"


def test_an_agreement_is_published_only_by_who_knows_it() -> None:
    teachers = {"x": LicenseFacts(asserted="LicenseRef-Ours", seen="cc-by-nc-nd-4.0"), "y": LicenseFacts(seen="mit")}
    private = derive_license(teachers, "commercial")
    assert private.name == "mit"
    assert any("agreement" in warning for warning in private.warnings)
    with raises_error("KD-REL-012", where="license of the student", mentions=("agreement",)) as caught:
        derive_license(teachers, "commercial", public=True)
    assert "--license" in caught.value.fix
    assert derive_license(teachers, "commercial", public=True, stated="apache-2.0").name == "apache-2.0"


def test_data_initial_weights_and_earlier_releases_count_too() -> None:
    stated = ["mit", "CC BY-NC-SA 4.0"]
    assert derive("mit", data=stated).name == "cc-by-nc-sa-4.0"
    license = derive("mit", others={"initial weights": LicenseFacts(seen="gpl-3.0")})
    (reason,) = license.because
    assert (license.name, reason.partition(" (")) == ("gpl-3.0", ("initial weights", " (", "gpl-3.0)"))
    with raises_error("KD-REL-012", where="license of the student"):
        derive("mit", data=["weird"], public=True)
