"""``verify_plugin`` runs the contracts of really installed distributions, whatever state they are in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.testing import PluginContract, checks
from kdkit.testing.verify import CONTRACTS, Report, verify_plugin
from tests.conftest import write_distribution
from tests.errors import raises_error

Install = Callable[..., None]
POLICY = """
from kdkit import TrustPolicySpec, hookimpl

@hookimpl
def kdkit_trust_policies():
    return [TrustPolicySpec(name="{name}", summary="{summary}", factory="{factory}", options={options})]

class Half:
    def __init__(self, share=0.5):
        self.share = share

    def __call__(self, table):
        return (table.accuracy == table.accuracy) * self.share
"""

BUSY = """
from time import process_time
end = process_time() + 0.2
while process_time() < end:
    pass
"""


def policy(module: str, name: str = "half", factory: str = "", summary: str = "half of it", options: str = "{}") -> str:
    return POLICY.format(name=name, factory=factory or f"{module}:Half", summary=summary, options=options)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install("kdkit-foo", source)`` into this process."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("KDKIT_STRICT", raising=False)

    def put(distribution: str, source: str, *, entry_points: str | None = None) -> None:
        write_distribution(tmp_path, distribution, source, entry_points=entry_points)
        load_catalogue.cache_clear()

    yield put
    load_catalogue.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith(("kdkit_", "pandas")):
            del sys.modules[name]


def problems(report: Report) -> dict[tuple[str, ...], str]:
    """The message of each failed check, by the words of its subject and its name."""
    return {(*check.subject.split(), check.name): check.message for check in report.checks if check.status == "failed"}


def subjects(report: Report) -> set[tuple[str, ...]]:
    """The words of each subject that passed a check."""
    return {tuple(check.subject.split()) for check in report.checks if check.status == "passed"}


def test_a_good_plugin_passes(install: Install) -> None:
    install("kdkit-good", policy("kdkit_good"))
    report = verify_plugin("kdkit-good")
    assert problems(report) == {}
    assert (report.plugin, report.version, report.broken, report.ok) == ("kdkit-good", "1.0", False, True)
    assert subjects(report) == {("kdkit-good",), ("policy", "kdkit-good:half")}
    assert all(check.summary.endswith(".") for check in report.checks)
    assert verify_plugin("good").checks != ()  # by its entry point
    assert {check.status for check in report.checks} == {"passed"}


@pytest.mark.parametrize(
    ("source", "check", "message"),
    [
        ("", "test_provides_something", "no hook"),
        ("import pandas\n" + policy("kdkit_bad"), "test_light", "imports pandas"),
        (BUSY + policy("kdkit_bad"), "test_quick", "150 ms"),
        (policy("kdkit_bad", summary="one\\ntwo"), "test_specs_are_plain_data", "one line"),
        (policy("kdkit_bad", options="{'x': {1}}"), "test_specs_are_plain_data", "'half'"),
        (policy("kdkit_bad", "half", "kdkit_bad:Halb"), "test_import_strings_resolve", "Attribute"),
        (policy("kdkit_bad", "half", "kdkit_bad:__name__"), "test_import_strings_resolve", "a str"),
        (policy("kdkit_bad", options="{'part': 1}"), "test_options_fit_factories", "option part"),
    ],
    ids=["empty", "heavy", "slow", "summary", "json", "factory", "not-callable", "options"],
)
def test_a_promise_of_the_distribution_that_is_broken(
    source: str, check: str, message: str, install: Install, tmp_path: Path
) -> None:
    (tmp_path / "pandas.py").touch()  # as good as the real one
    install("kdkit-bad", source)
    assert message in problems(verify_plugin("kdkit-bad"))["kdkit-bad", check]


def test_a_promise_of_an_entry_that_is_broken(install: Install) -> None:
    install("kdkit-bad", policy("kdkit_bad", options="{'share': 1.5}"))
    report = verify_plugin("kdkit-bad")
    assert set(problems(report)) == {("policy", "kdkit-bad:half", "test_range")}
    assert not report.ok


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nothing_like_this", "No module named 'nothing_like_this'"),
        ("KDKIT_API = 99", "incompatible"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (policy("kdkit_bad", name="Half!"), "names match"),
    ],
)
def test_a_plugin_that_does_not_load_fails_one_check(source: str, error: str, install: Install) -> None:
    install("kdkit-bad", source)
    report = verify_plugin("kdkit-bad")
    assert report.broken
    (loads,) = problems(report).items()
    assert loads[0] == ("kdkit-bad", "test_loads")
    assert error in loads[1]
    assert {check.status for check in report.checks} == {"failed", "skipped"}
    assert all("load" in check.message for check in report.checks if check.status == "skipped")


def test_an_entry_point_that_does_not_exist_any_more(install: Install) -> None:
    install("kdkit-bad", "", entry_points="[kdkit]\nbad = kdkit_bad.moved\n")
    assert verify_plugin("bad").broken


def test_one_broken_plugin_of_two(install: Install, tmp_path: Path) -> None:
    (tmp_path / "kdkit_half_broken.py").write_text("1 / 0")
    install("kdkit-two", policy("kdkit_two"), entry_points="[kdkit]\ngood = kdkit_two\nbad = kdkit_half_broken\n")
    report = verify_plugin("kdkit-two")
    assert report.broken
    assert set(problems(report)) == {("kdkit-two", "test_loads")}
    assert ("policy", "kdkit-two:half") in subjects(report)
    assert not verify_plugin("good").broken  # its entry point alone


def test_a_plugin_that_ends_the_process_in_a_check_fails_it(install: Install) -> None:
    install("kdkit-bad", policy("kdkit_bad").replace("self.share = share", "raise SystemExit(0)"))
    found = problems(verify_plugin("kdkit-bad"))["policy", "kdkit-bad:half", "test_shape"]
    assert found.startswith("kdkit-bad 1.0")
    assert "SystemExit: 0" in found


def test_a_missing_module_is_named(install: Install) -> None:
    install("kdkit-bad", policy("kdkit_bad", factory="kdkit_gone:Half"))
    found = problems(verify_plugin("kdkit-bad"))["policy", "kdkit-bad:half", "test_shape"]
    assert "ModuleNotFoundError" in found
    assert "'kdkit_gone'" in found


def test_what_a_plugin_prints_does_not_reach_stdout(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("kdkit-loud", policy("kdkit_loud").replace("self.share = share", "self.share = share; print('hello')"))
    assert verify_plugin("kdkit-loud").ok
    assert capsys.readouterr().out == ""


TESTS = """
from kdkit.testing import PluginContract, TrustPolicyContract

class TestPlugin(PluginContract):
    name = "kdkit-good"
    import_seconds = {seconds}

class TestLess(TrustPolicyContract):
    name = "half"
    options = {{"share": {share}}}

class TestOther(TrustPolicyContract):
    name = "kdkit:threshold"
"""


def test_contract_classes_of_the_author_replace_the_default_ones(install: Install, tmp_path: Path) -> None:
    install("kdkit-good", policy("kdkit_good"))
    tests = tmp_path / "test_it.py"
    tests.write_text(TESTS.format(seconds=0.0, share=2.0))
    report = verify_plugin("kdkit-good", tests=tests)
    assert set(problems(report)) == {("kdkit-good", "test_quick"), ("policy", "kdkit-good:half", "test_range")}
    assert {check.contract for check in report.checks} == {"TestPlugin", "TestLess"}


@pytest.mark.parametrize(
    ("text", "error"),
    [(None, "KD-TEST-001"), ("import nothing_like_this", "KD-TEST-003"), ("x = 1", "KD-TEST-004")],
)
def test_unusable_test_file(text: str | None, error: str, install: Install, tmp_path: Path) -> None:
    install("kdkit-good", policy("kdkit_good"))
    tests = tmp_path / "test_it.py"
    if text is not None:
        tests.write_text(text)
    with raises_error(error, where=str(tests)):
        verify_plugin("kdkit-good", tests=tests)


def test_an_unknown_or_ambiguous_name(install: Install) -> None:
    install("kdkit-one", policy("kdkit_one"), entry_points="[kdkit]\nsame = kdkit_one\n")
    install("kdkit-two", policy("kdkit_two"), entry_points="[kdkit]\nsame = kdkit_two\n")
    with raises_error("KD-TEST-007", mentions=("'same'", "kdkit-one, kdkit-two")):
        verify_plugin("same")
    with raises_error("KD-TEST-006", mentions=("'kdkit-three'",)) as none:
        verify_plugin("kdkit-three")
    assert none.value.code == ExitCode.MISSING
    assert subjects(verify_plugin("kdkit-two")) == {("kdkit-two",), ("policy", "kdkit-two:half")}


def test_a_plugin_that_was_left_out(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("kdkit-good", policy("kdkit_good"))
    monkeypatch.setenv("KDKIT_NO_PLUGINS", "1")
    with raises_error("KD-TEST-008", mentions=("'kdkit-good'",)):
        verify_plugin("kdkit-good")


def test_every_family_has_a_contract() -> None:
    from kdkit.core.plugin_system.catalogue import FAMILIES

    assert set(CONTRACTS) == set(FAMILIES)
    assert list(checks(PluginContract))
