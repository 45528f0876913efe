"""Plugins are loaded one by one in a fixed order; a broken one affects no other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core import contracts as c
from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts.hookspecs import PLUGIN_API, hookimpl
from kdkit.core.plugin_system.catalogue import FAMILY_OF
from kdkit.core.plugin_system.discovery import (
    FAMILIES,
    HOOKS,
    Catalogue,
    discover,
    load_catalogue,
)
from kdkit.core.plugin_system.installed import Installed, installed
from tests.conftest import write_distribution
from tests.errors import raises_error
from tests.installed_plugins import GOOD, IMPORTS, record_of

SPEC = "LossSpec(name='mine', summary='s', factory='builtins:dict')"

BROKEN = {
    "missing-import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "exits": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "raises": ("class Odd(BaseException): pass\nraise Odd('no\\nreason')", "Odd: no reason"),
    "syntax": ("def", "SyntaxError"),
    "unknown-hook": (
        IMPORTS + "@hookimpl\ndef kdkit_nonsense():\n  return []",
        "unknown hook 'kdkit_nonsense'",
    ),
    "misspelt-hook": (
        IMPORTS + "@hookimpl\ndef kdkit_loses():\n  return []",
        "TypeError: unknown hook 'kdkit_loses'; did you mean 'kdkit_losses'?",
    ),
    "bad-argument": (IMPORTS + "@hookimpl\ndef kdkit_losses(speed):\n  return []", "speed"),
    "no-mark": (IMPORTS + "def kdkit_losses():\n  return []", "kdkit_losses lacks the decorator @hookimpl"),
    "hook-raises": (IMPORTS + "@hookimpl\ndef kdkit_losses():\n  return 1 / 0", "ZeroDivisionError"),
    "hook-exits": (IMPORTS + "@hookimpl\ndef kdkit_losses():\n  raise SystemExit", "SystemExit"),
    "half-way": (
        IMPORTS + f"@hookimpl\ndef kdkit_losses():\n  yield {SPEC}\n  raise OSError('gone')",
        "gone",
    ),
    "none": (
        IMPORTS + "@hookimpl\ndef kdkit_losses():\n  pass",
        "returned None, not an iterable of LossSpec",
    ),
    "no-iterable": (IMPORTS + f"@hookimpl\ndef kdkit_losses():\n  return {SPEC}", "not iterable"),
    "no-spec": (
        IMPORTS + "@hookimpl\ndef kdkit_losses():\n  return ['mine']",
        "returned a str, not a LossSpec",
    ),
    "other-spec": (
        IMPORTS + f"@hookimpl\ndef kdkit_aligners():\n  return [{SPEC}]",
        "returned a LossSpec, not a AlignerSpec",
    ),
    "bad-name": (
        IMPORTS + f"@hookimpl\ndef kdkit_losses():\n  return [{SPEC.replace('mine', 'My Loss')}]",
        "the name 'My Loss'",
    ),
    "twice": (
        IMPORTS + f"@hookimpl\ndef kdkit_losses():\n  return [{SPEC}, {SPEC}]",
        "returned 'mine' twice",
    ),
    "bad-api": ("KDKIT_API = 'one'", "KDKIT_API must be an integer, not 'one'"),
}


# ------------------------------------------------------------------------------- isolation


def test_six_broken_plugins_of_sixty_affect_no_other(site: Path) -> None:
    bad = ["missing-import", "exits", "unknown-hook", "bad-argument", "hook-raises"]
    sources = [GOOD.format(name=f"good{number}") for number in range(54)]
    sources += [BROKEN[kind][0] for kind in bad] + [f"KDKIT_API = {PLUGIN_API + 1}"]
    for number, source in enumerate(sources):
        write_distribution(site, f"kdkit-p{number * 37 % 60:02}", source)
    built_ins = discover(plugin for plugin in installed() if plugin.built_in)
    ours = [p for p in installed() if p.built_in or p.distribution.startswith("kdkit-p")]  # a contributor has others

    catalogue = discover(ours)

    third = [record for record in catalogue.records if record.distribution.startswith("kdkit-p")]
    assert len(third) == 60
    assert sorted(r.status for r in third) == ["broken"] * 5 + ["incompatible"] + ["ok"] * 54
    assert all(bool(r.error) == (r.status != "ok") for r in third)
    good = {f"good{number}" for number in range(54)}
    assert set(catalogue.names("loss")) == good | set(built_ins.names("loss"))
    for family in FAMILIES:
        if family != "loss":
            assert catalogue.entries(family) == built_ins.entries(family)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_has_a_one_line_error_and_no_specs(kind: str, site: Path) -> None:
    source, expected = BROKEN[kind]
    write_distribution(site, "kdkit-bad", source, version="2.5")
    catalogue = discover(plugin for plugin in installed() if plugin.distribution == "kdkit-bad")
    record = record_of(catalogue, "kdkit-bad")
    assert (record.status, record.version) == ("broken", "2.5")
    assert expected in record.error
    assert "\n" not in record.error
    assert not record.provides
    assert not any(catalogue.contents.values())


@pytest.mark.parametrize(("kind", "line"), [("missing-import", 1), ("exits", 2), ("hook-raises", 4), ("half-way", 5)])
def test_the_error_names_the_line_of_the_plugin(kind: str, line: int, site: Path) -> None:
    write_distribution(site, "kdkit-bad", BROKEN[kind][0])
    assert record_of(discover(installed()), "kdkit-bad").error.endswith(f"({site / 'kdkit_bad.py'}:{line})")


def test_a_newer_plugin_api_is_incompatible_not_broken(site: Path) -> None:
    write_distribution(site, "kdkit-new", f"KDKIT_API = {PLUGIN_API + 1}\n" + BROKEN["unknown-hook"][0])
    record = record_of(discover(installed()), "kdkit-new")
    assert record.status == "incompatible"
    assert f"API {PLUGIN_API + 1}" in record.error
    assert "upgrade kdkit" in record.error


def test_ctrl_c_during_loading_interrupts_the_command(site: Path) -> None:
    source = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"
    write_distribution(site, "kdkit-slow", source)
    with pytest.raises(KeyboardInterrupt):
        discover(installed())


def test_the_same_object_cannot_be_registered_twice(site: Path) -> None:
    both = "[kdkit]\na = kdkit_pair\nb = kdkit_pair\n"
    write_distribution(site, "kdkit-pair", GOOD.format(name="two"), entry_points=both)
    catalogue = discover(installed())
    first, second = (record for record in catalogue.records if record.distribution == "kdkit-pair")
    assert (first.status, second.status) == ("ok", "broken")
    assert "'a'" in second.error
    assert second.error.endswith(" kdkit-pair")
    assert catalogue.get("loss", "two").provider == "kdkit-pair"


def test_two_plugins_of_one_distribution_cannot_share_a_name(site: Path) -> None:
    (site / "kdkit_more.py").write_text(GOOD.format(name="two"))
    both = "[kdkit]\na = kdkit_pair\nb = kdkit_more\n"
    write_distribution(site, "kdkit-pair", GOOD.format(name="two"), entry_points=both)
    catalogue = discover(installed())
    (error,) = (r.error for r in catalogue.records if r.name == "b")
    assert error.startswith("ValueError: ")
    assert all(name in error for name in ("kdkit-pair", "'two'"))
    assert [entry.qualified for entry in catalogue.entries("loss") if entry.spec.name == "two"] == ["kdkit-pair:two"]


def test_damaged_metadata_affects_no_other_plugin(site: Path) -> None:
    write_distribution(site, "kdkit-a", GOOD.format(name="a"), entry_points="[kdkit]\nthis is no entry point\n")
    (site / "kdkit_b-1.dist-info").mkdir()
    (site / "kdkit_b-1.dist-info" / "entry_points.txt").write_bytes(b"[kdkit]\n\xff = kdkit_b\n")
    write_distribution(site, "kdkit-c", GOOD.format(name="c"))
    assert record_of(discover(installed()), "kdkit-c").status == "ok"


def test_output_of_a_plugin_goes_to_stderr(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_distribution(site, "kdkit-loud", "print('hello')\n" + GOOD.format(name="loud"))
    discover(installed())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err


def test_the_first_copy_on_the_path_counts(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = tmp_path / "older"
    older.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(older)])
    points = "[kdkit]\ntwice = kdkit_twice\ndropped = kdkit_dropped\n"
    write_distribution(older, "kdkit-twice", GOOD.format(name="old"), version="1.0", entry_points=points)
    write_distribution(site, "kdkit-twice", GOOD.format(name="new"), version="2.0")
    found = [(p.point.name, p.version) for p in installed() if p.distribution == "kdkit-twice"]
    assert found == [("twice", "2.0")]


# ----------------------------------------------------------------------------------- order


def plugin_object(distribution: str, number: int, names: list[str], value: str = "nowhere") -> Installed:
    """A plugin that needs no file: its entry point returns an object with a hook."""

    class Point(EntryPoint):
        def load(self) -> object:
            return SimpleNamespace(kdkit_losses=hook)

    @hookimpl
    def hook() -> list[c.LossSpec]:
        return [c.LossSpec(name=name, summary=distribution, factory="builtins:dict") for name in names]

    return Installed(Point(f"p{number}", value, "kdkit"), distribution, "1.0")


@given(
    st.lists(st.lists(st.sampled_from("abcd"), unique=True), max_size=6).flatmap(
        lambda parts: st.tuples(st.just(parts), st.permutations(range(len(parts))))
    )
)
def test_the_catalogue_does_not_depend_on_the_order_of_loading(
    drawn: tuple[list[list[str]], list[int]],
) -> None:
    parts, order = drawn
    plugins = [plugin_object(f"d{number}", number, names) for number, names in enumerate(parts)]
    one, other = discover(plugins), discover(plugins[number] for number in order)
    assert one.contents == other.contents
    assert one.names("loss") == tuple(sorted({name for names in parts for name in names}))
    for name in one.names("loss"):
        owners = [f"d{number}" for number, names in enumerate(parts) if name in names]
        if len(owners) == 1:
            assert one.get("loss", name).provider == owners[0]
        else:
            with raises_error("KD-PLUG-001"):
                one.get("loss", name)


def test_plugins_come_built_ins_first_then_by_distribution_and_name(site: Path) -> None:
    for name in ("zeta", "alpha", "mid"):
        write_distribution(site, f"kdkit-{name}", GOOD.format(name=name))
    found = installed()
    third = [plugin.distribution for plugin in found if not plugin.built_in]
    assert [plugin.built_in for plugin in found] == sorted((p.built_in for p in found), reverse=True)
    assert third == sorted(third)
    assert {"kdkit-alpha", "kdkit-mid", "kdkit-zeta"} <= set(third)


# ------------------------------------------------------------------------------- collisions


def test_a_name_of_two_third_parties_must_be_qualified(site: Path) -> None:
    write_distribution(site, "kdkit-one", GOOD.format(name="shared"), version="1.1")
    write_distribution(site, "kdkit_Two", GOOD.format(name="shared"), version="2.2")
    catalogue = discover(installed())
    with raises_error("KD-PLUG-001") as caught:
        catalogue.get("loss", "shared")
    assert caught.value.why.split(", ") == ["kdkit-one 1.1", "kdkit-two 2.2"]
    assert all(name in caught.value.fix for name in ("'kdkit-one:shared'", "'kdkit-two:shared'"))
    assert catalogue.get("loss", "kdkit-one:shared").version == "1.1"
    assert catalogue.get("loss", "Kdkit_Two:shared").version == "2.2"
    assert catalogue.names("loss").count("shared") == 1
    assert len([e for e in catalogue.entries("loss") if e.spec.name == "shared"]) == 2


def test_a_third_party_does_not_take_a_built_in_name() -> None:
    ours = plugin_object("kdkit", 0, ["clip"], value="kdkit.plugins.losses")
    theirs = plugin_object("kdkit-foo", 1, ["clip", "new"])
    catalogue = discover([ours, theirs])
    assert catalogue.get("loss", "clip").provider == "kdkit"
    assert catalogue.get("loss", "kdkit-foo:clip").provider == "kdkit-foo"
    (note,) = record_of(catalogue, "kdkit-foo").notes
    assert "'kdkit-foo:clip'" in note
    assert record_of(catalogue, "kdkit").notes == ()


# -------------------------------------------------------------------------- what is loaded


def test_the_allow_list_and_the_switch(site: Path, fresh_catalogue: Callable[..., Catalogue]) -> None:
    for name in ("a", "b", "c"):
        write_distribution(site, f"kdkit-{name}", GOOD.format(name=name))

    def loaded(**environment: str) -> set[str]:
        catalogue = fresh_catalogue(**environment)
        assert {r.status for r in catalogue.records if r.distribution == "kdkit"} == {"ok"}
        third = [r for r in catalogue.records if r.distribution.startswith("kdkit-")]
        assert all(r.status in ("ok", "disabled") for r in third)
        return {r.name for r in third if r.status == "ok" and r.name in "abc"}

    assert loaded() == {"a", "b", "c"}
    assert loaded(KDKIT_PLUGINS="kdkit_A, c") == {"a", "c"}
    assert loaded(KDKIT_PLUGINS="") == set()
    assert loaded(KDKIT_NO_PLUGINS="1") == set()
    assert loaded(KDKIT_NO_PLUGINS="1", KDKIT_PLUGINS="a") == set()
    assert loaded(KDKIT_NO_PLUGINS="0") == {"a", "b", "c"}


def test_a_plugin_that_is_not_allowed_is_not_imported(site: Path, fresh_catalogue: Callable[..., Catalogue]) -> None:
    write_distribution(site, "kdkit-idle", GOOD.format(name="idle"))
    catalogue = fresh_catalogue(KDKIT_NO_PLUGINS="1")
    assert "kdkit_idle" not in sys.modules
    with raises_error("KD-PLUG-003") as caught:
        catalogue.get("loss", "idle")
    assert "kdkit-idle" in caught.value.why
    assert "(disabled)" in caught.value.why


def test_strict_mode_raises_once_for_all(site: Path, fresh_catalogue: Callable[..., Catalogue]) -> None:
    write_distribution(site, "kdkit-x", BROKEN["exits"][0])
    write_distribution(site, "kdkit-y", BROKEN["none"][0])
    assert len([r for r in fresh_catalogue().records if r.error]) == 2
    with raises_error("KD-PLUG-007") as caught:
        fresh_catalogue(KDKIT_STRICT="1")
    assert caught.value.code == ExitCode.PLUGIN
    first, second = caught.value.why.split("; ")
    assert all(part in first for part in ("kdkit-x 1.0: ", "SystemExit: 3"))
    assert all(part in second for part in ("kdkit-y 1.0: ", "TypeError: ", "kdkit_losses", "None"))
    assert fresh_catalogue(KDKIT_STRICT="1", KDKIT_NO_PLUGINS="1").records


def test_a_missing_plugin_of_the_allow_list_is_an_error(site: Path, fresh_catalogue: Callable[..., Catalogue]) -> None:
    write_distribution(site, "kdkit-huber", GOOD.format(name="huber"))
    with raises_error("KD-PLUG-009", where="KDKIT_PLUGINS", mentions=("'kdkit-hubert'",)) as caught:
        fresh_catalogue(KDKIT_PLUGINS="kdkit-hubert")
    assert caught.value.code == ExitCode.PLUGIN
    assert "'kdkit-huber'" in caught.value.why
    assert "huber" in fresh_catalogue(KDKIT_PLUGINS="Kdkit_Huber,").names("loss")


def test_the_catalogue_is_loaded_once(fresh_catalogue: Callable[..., Catalogue]) -> None:
    assert fresh_catalogue() is load_catalogue()


def test_every_hook_has_its_family() -> None:
    from kdkit.core.contracts import hookspecs

    declared = {name for name in vars(hookspecs) if name.startswith("kdkit_")}
    assert set(HOOKS) == declared
    assert sorted(FAMILY_OF[kind] for kind in HOOKS.values()) == sorted(FAMILIES)
