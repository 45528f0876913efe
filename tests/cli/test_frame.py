"""How the command starts, ends and speaks, whatever the command is."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import kdkit
from kdkit.cli import console
from kdkit.cli.main import STORY, app
from tests.conftest import Cli, InstallPlugin, Outcome, clean_environment

PROBE = """
import os, signal, sys, time
from pathlib import Path
from kdkit.cli import console
from kdkit.cli.main import app, run
from kdkit.core.base.errors import ExitCode, KdkitError

@app.command()
def wrong():
    raise KdkitError("it is wrong", where="file.yaml:3", why="a reason", fix="do this", code=ExitCode.DENIED)

@app.command()
def bug():
    token = "hf_" + "secret"
    raise RuntimeError("two\\nlines")

@app.command()
def interrupted():
    console.reporter().progress("work", 1, 2)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)

@app.command()
def flood():
    for number in range(100_000):
        print("data", number)

@app.command()
def bars(fail: bool = False):
    reporter = console.reporter()
    for done in range(1, 4):
        reporter.progress("work", done, 3, "a note")
        reporter.say("said" if done == 1 else "more")
        print("row", done)
        if fail:
            raise KdkitError("it failed")

@app.command()
def numbers():
    console.emit({"path": Path("a/b"), "rows": [(1, float("nan"))], "inf": float("inf")}, json=True, text="")

run()
"""

ROWS = "row 1\nrow 2\nrow 3\n"


@pytest.fixture
def probe(kdkit_cli: Cli) -> Cli:
    """The real application with a few more commands that end badly: ``probe.python("probe.py", "wrong")``."""
    (kdkit_cli.folder / "probe.py").write_text(PROBE)
    return kdkit_cli


# ------------------------------------------------------------------------------------- start


def test_bare_kdkit_says_what_it_is_and_three_commands(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli()
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "keep one student; keep adding teachers" in outcome.stdout
    assert re.findall(r"^  kdkit (\S+)", outcome.stdout, re.M) == ["demo", "init", "add-teacher"]
    assert "kdkit --help" in outcome.stdout


def test_version(kdkit_cli: Cli) -> None:
    assert kdkit_cli("--version") == Outcome(0, f"kdkit {kdkit.__version__}\n", "")


def test_help_tells_the_story_in_its_order(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("--help")
    told = [name for names in STORY.values() for name in names]
    # Continuation lines of a wrapped summary are indented deeper than a command.
    listed = re.findall(r"^  ([a-z]+(?:-[a-z]+)*) ", outcome.stdout, re.M)
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    registered = set(group.commands)
    assert outcome.code == 0
    assert listed == [name for name in told if name in registered]
    assert set(listed) == registered, "a command without a place in main.STORY"
    assert all(f"{heading}:" in outcome.stdout for heading, part in STORY.items() if set(part) & registered)


HEAVY = {
    "torch",
    "open_clip",
    "timm",
    "transformers",
    "accelerate",
    "numpy",
    "h5py",
    "PIL",
    "sklearn",
    "matplotlib",
    "huggingface_hub",
    "safetensors",
}


@pytest.mark.parametrize(
    ("arguments", "banned"),
    [
        ((), HEAVY | {"pluggy", "ruamel", "rich"}),
        (("--help",), HEAVY | {"pydantic", "pluggy", "ruamel", "rich"}),
        (("plugins",), HEAVY | {"ruamel", "rich"}),
        (("teachers",), HEAVY),
        (("distill", "--help"), HEAVY),
    ],
)
def test_what_a_light_command_does_not_import(arguments: tuple[str, ...], banned: set[str], kdkit_cli: Cli) -> None:
    assert kdkit_cli("init").code == 0
    outcome = kdkit_cli.python("-X", "importtime", "-m", "kdkit.cli.main", *arguments)
    assert outcome.code == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in outcome.stderr.splitlines()}
    assert "typer" in imported
    assert imported & banned == set()


def test_importing_the_package_imports_nothing_heavy(kdkit_cli: Cli) -> None:
    code = "import sys, kdkit; kdkit.hookimpl, kdkit.TeacherSpec, kdkit.Project; print(*sys.modules)"
    imported = {name.partition(".")[0] for name in kdkit_cli.python("-c", code).stdout.split()}
    assert "kdkit" in imported
    assert imported & (HEAVY | {"pydantic", "ruamel", "rich", "typer"}) == set()


# -------------------------------------------------------------------------------------- ends


def test_an_error_says_where_what_why_and_what_to_do(probe: Cli) -> None:
    expected = "error: file.yaml:3: it is wrong\n  why: a reason\n  do: do this\n"
    assert probe.python("probe.py", "wrong") == Outcome(4, "", expected)


def test_debug_adds_the_traceback(probe: Cli) -> None:
    for outcome in (
        probe.python("probe.py", "--debug", "wrong"),
        probe.python("probe.py", "wrong", env={"KDKIT_DEBUG": "1"}),
    ):
        assert outcome.code == 4
        assert outcome.stderr.startswith("error: file.yaml:3: it is wrong\n")
        assert "Traceback" in outcome.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("plugins", "--nonsense"), ("plugins", "nonsense")])
def test_a_wrong_argument_exits_2(arguments: tuple[str, ...], kdkit_cli: Cli) -> None:
    outcome = kdkit_cli(*arguments)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "nonsense" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_mistyped_command_brings_the_nearest(kdkit_cli: Cli) -> None:
    assert "Did you mean 'plugins'" in kdkit_cli("plugin").stderr


def test_a_bug_is_one_line_and_its_traceback_goes_to_a_file_without_locals(probe: Cli) -> None:
    outcome = probe.python("probe.py", "bug")
    assert (outcome.code, outcome.stdout) == (101, "")
    assert outcome.stderr.splitlines() == [
        "internal error: RuntimeError: two lines",
        "  do: report it with kdkit-error.log, which holds the traceback",
    ]
    log = (probe.folder / "kdkit-error.log").read_text()
    assert "RuntimeError: two" in log
    assert kdkit.__version__ in log
    assert "hf_secret" not in log


def test_a_bug_goes_to_stderr_with_debug(probe: Cli) -> None:
    outcome = probe.python("probe.py", "--debug", "bug")
    assert outcome.code == 101
    assert "Traceback" in outcome.stderr
    assert "hf_secret" not in outcome.stderr
    assert not (probe.folder / "kdkit-error.log").exists()


def test_a_bug_where_no_file_can_be_written(probe: Cli) -> None:
    (probe.folder / "kdkit-error.log").mkdir()
    outcome = probe.python("probe.py", "bug")
    assert outcome.code == 101
    assert "Traceback" in outcome.stderr


def test_ctrl_c_is_one_line_and_130(probe: Cli) -> None:
    assert probe.python("probe.py", "interrupted") == Outcome(130, "", "interrupted\n")


@pytest.mark.parametrize(("command", "rows"), [("flood", 1), ("numbers", 0)])
def test_a_reader_that_leaves_is_nobody_s_error(command: str, rows: int, probe: Cli) -> None:
    """While the command writes, or only when the last of its output is flushed."""
    with subprocess.Popen(
        [sys.executable, "probe.py", command],
        cwd=probe.folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert all(process.stdout.readline() == f"data {row}\n" for row in range(rows))
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


# ------------------------------------------------------------------------------------ speech


def test_json_has_no_nan_and_paths_are_strings(probe: Cli) -> None:
    expected = '{\n  "path": "a/b",\n  "rows": [\n    [\n      1,\n      null\n    ]\n  ],\n  "inf": null\n}\n'
    assert probe.python("probe.py", "numbers").stdout == expected


def test_without_a_terminal_progress_is_lines_and_data_stays_apart(probe: Cli) -> None:
    outcome = probe.python("probe.py", "bars")
    assert outcome.stdout == ROWS
    assert re.sub(r"\d+ s", "# s", outcome.stderr).splitlines() == ["said", "more", "work: 3/3  # s  a note", "more"]


def test_only_the_first_process_of_a_run_reports(probe: Cli) -> None:
    assert probe.python("probe.py", "bars", env={"RANK": "1"}) == Outcome(0, ROWS, "")


def on_terminal(cli: Cli, *arguments: str, **env: str) -> tuple[int, str, str]:
    """Exit code, stdout, and what a terminal that is stderr received."""
    ours, theirs = pty.openpty()
    environment = {**clean_environment(), "TERM": "xterm-256color", "COLUMNS": "80", **env}
    received = b""
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cli.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        with suppress(OSError):  # Linux: the other end is closed
            while part := os.read(ours, 65536):
                received += part
        stdout, _ = process.communicate()
    os.close(ours)
    return process.returncode, stdout, received.decode()


HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def test_a_terminal_gets_a_bar_and_data_stays_apart(probe: Cli) -> None:
    code, stdout, terminal = on_terminal(probe, "probe.py", "bars")
    assert (code, stdout) == (0, ROWS)
    assert "3/3" in terminal
    assert "said" in terminal
    assert terminal.count(HIDE) == terminal.count(SHOW) == 1
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", terminal), "NO_COLOR is set"


def test_a_failure_under_a_bar_gives_the_terminal_back_before_it_speaks(probe: Cli) -> None:
    code, _, terminal = on_terminal(probe, "probe.py", "bars", "--fail")
    assert code == 2
    assert terminal.count(HIDE) == 1
    assert terminal.index(SHOW) < terminal.index("error: it failed")


def test_a_dumb_terminal_gets_lines(probe: Cli) -> None:
    _, _, terminal = on_terminal(probe, "probe.py", "bars", TERM="dumb")
    assert "work: 3/3" in terminal
    assert "\x1b" not in terminal


def test_lines_come_every_few_seconds_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = console.Lines(every=5.0)
    for done in range(1, 13):
        now = float(done)
        lines.progress("work", done, 12)
    lines.progress("short", 1, 1)
    lines.warn("rough")
    lines.warn("rough")
    assert capsys.readouterr().err.splitlines() == [
        "work: 6/12  5 s",
        "work: 11/12  10 s",
        "work: 12/12  11 s",
        "short: 1/1  0 s",
        "warning: rough",
    ]


def test_a_table_aligns_its_columns() -> None:
    assert console.table(["name", "n"], [["a", 5], ["long", 1234]], "lr").splitlines() == [
        "name     n",
        "----  ----",
        "a        5",
        "long  1234",
    ]
    assert console.table(["none"], []) == "none\n----"
    assert console.table(["answer"], [["a\x1b[2Jé\x9b"]]).splitlines()[-1] == r"a\x1b[2Jé\x9b"


# ----------------------------------------------------------------------------------- plugins


def test_a_broken_plugin_is_one_line_and_the_command_works(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-bad", "import sys\nsys.exit(9)", version="3.0")
    where = Path(kdkit_cli.environment["PYTHONPATH"].partition(os.pathsep)[0]) / "kdkit_bad.py"
    warning = f"warning: broken plugin left out: bad of kdkit-bad 3.0: SystemExit: 9 ({where}:2)\n"
    assert kdkit_cli("init").code == 0
    for command in ("plugins", "teachers", "recipes"):
        outcome = kdkit_cli(command)
        assert (outcome.code, outcome.stderr) == (0, warning)
        assert outcome.stdout
    assert kdkit_cli("--help").stderr == "", "help loads no plugin"
    assert kdkit_cli("--no-plugins", "plugins").stderr == ""


def test_strict_mode_exits_5(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-bad", "1 / 0")
    outcome = kdkit_cli("plugins", env={"KDKIT_STRICT": "1"})
    assert (outcome.code, outcome.stdout) == (5, "")
    assert outcome.stderr.startswith("error: 1 plugin does not work\n  why: bad of kdkit-bad 1.0: ZeroDivisionError")
