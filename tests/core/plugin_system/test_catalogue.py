"""Names, specs and factories; errors of unknown names and options."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import LossSpec, TeacherSpec
from kdkit.core.plugin_system.catalogue import FAMILIES, Catalogue, Entry, PluginRecord, resolve
from tests.errors import raises_error


def scale(factor: float = 1.0, *, offset: float = 0.0) -> tuple[float, float]:
    return factor, offset


def needs(width: int) -> int:
    return width


def catalogue(*specs: LossSpec, records: tuple[PluginRecord, ...] = ()) -> Catalogue:
    entries = tuple(Entry(spec, "kdkit", "1.0") for spec in specs)
    return Catalogue(records, {family: entries if family == "loss" else () for family in FAMILIES})


SCALE = LossSpec(name="scale", summary="s", factory=f"{__name__}:scale", options={"factor": 2.0})


def test_options_of_the_call_override_those_of_the_spec() -> None:
    losses = catalogue(SCALE)
    assert losses.make("loss", "scale") == (2.0, 0.0)
    assert losses.make("loss", "scale", factor=3.0, offset=1.0) == (3.0, 1.0)
    assert SCALE.options == {"factor": 2.0}


def test_specs_are_typed() -> None:
    losses = catalogue(SCALE)
    assert losses.spec(LossSpec, "scale") is SCALE
    assert losses.spec(LossSpec, "kdkit:scale").signals == ("image", "text")
    assert losses.specs(LossSpec) == (SCALE,)
    assert losses.specs(TeacherSpec) == ()
    with raises_error("KD-PLUG-003", mentions=("'scal'",)):
        losses.spec(LossSpec, "scal")


def test_an_unknown_option_is_named_before_the_factory_runs() -> None:
    with raises_error("KD-PLUG-005", mentions=("'scale'", "'facter'"), code=ExitCode.USAGE) as caught:
        catalogue(SCALE).make("loss", "scale", facter=3.0)
    assert "'factor'" in caught.value.fix


def test_a_missing_option_is_named() -> None:
    spec = LossSpec(name="needs", summary="s", factory=f"{__name__}:needs")
    with raises_error("KD-PLUG-006", mentions=("'needs'", "'width'")):
        catalogue(spec).make("loss", "needs")


def test_an_error_inside_the_factory_is_not_disguised() -> None:
    spec = LossSpec(name="int", summary="s", factory="builtins:int", options={})
    assert catalogue(spec).make("loss", "int") == 0
    broken = LossSpec(name="fraction", summary="s", factory="fractions:Fraction", options={"denominator": 0})
    with pytest.raises(ZeroDivisionError):
        catalogue(broken).make("loss", "fraction", numerator=1)


@pytest.mark.parametrize(
    ("import_string", "reason"),
    [
        ("no_such_package.x:y", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("kdkit.core.plugin_system.catalogue:nothing", "has no attribute 'nothing'"),
        ("kdkit.core.plugin_system.catalogue", "AttributeError"),
        ("module_that_exits:x", "SystemExit: 7"),
    ],
)
def test_an_unresolvable_import_string(
    import_string: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_that_exits.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with raises_error("KD-PLUG-004") as caught:
        resolve(import_string)
    assert caught.value.where == import_string
    assert reason in caught.value.why
    assert caught.value.code == ExitCode.PLUGIN


def test_resolve_follows_dots() -> None:
    assert resolve("kdkit.core.plugin_system.catalogue:Catalogue.get") is Catalogue.get


def test_an_unknown_name_lists_the_closest_name_and_skipped_plugins() -> None:
    broken = PluginRecord("foo", "kdkit-foo", "1.0", "broken", error="ImportError")
    with raises_error("KD-PLUG-003", mentions=("loss", "'scael'")) as caught:
        catalogue(SCALE, records=(broken,)).get("loss", "scael")
    assert "'scale'" in caught.value.fix
    assert "kdkit-foo" in caught.value.why
    assert "(broken)" in caught.value.why


def test_an_unknown_family_is_a_bug() -> None:
    with pytest.raises(ValueError, match="'losses'"):
        catalogue(SCALE).names("losses")
