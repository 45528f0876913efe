"""What all commands share: start, help, endings, output."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from json import loads
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import kdkit
from kdkit.api.reporter import Lines
from kdkit.cli.main import STORY, app
from tests.conftest import Cli, InstallPlugin, Outcome, clean_environment

PROBE = """
import os, signal, sys, time
from pathlib import Path
from kdkit.cli import console
from kdkit.cli.main import app, run
from kdkit.core.base.errors import ExitCode, KdkitError

@app.command()
def wrong(json: console.JsonOption = False, late: bool = False):
    if late:
        console.print_json({"result": 1})
    raise KdkitError("X-001", "it failed", where="file.yaml:3", why="a reason", fix="do this", code=ExitCode.DENIED)

@app.command()
def bug(json: console.JsonOption = False):
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
            raise KdkitError("X-002", "it failed")

@app.command()
def numbers():
    console.print_json({"path": Path("a/b"), "rows": [(1, float("nan"))], "inf": float("inf")})

run()
"""

ERROR_TEXT = "error[X-001]: file.yaml:3: it failed\n  why: a reason\n  fix: do this\n"
ROWS = "row 1\nrow 2\nrow 3\n"


@pytest.fixture
def probe(kdkit_cli: Cli) -> Cli:
    """The real application with more commands, which fail: ``probe.python("probe.py", "wrong")``."""
    (kdkit_cli.folder / "probe.py").write_text(PROBE)
    return kdkit_cli


def test_bare_kdkit_introduces_three_commands(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli()
    assert (outcome.code, outcome.stderr) == (0, "")
    assert re.findall(r"^  kdkit (\S+)", outcome.stdout, re.M) == ["demo", "init", "add-teacher"]
    assert "kdkit --help" in outcome.stdout


def test_version(kdkit_cli: Cli) -> None:
    assert kdkit_cli("--version") == Outcome(0, f"kdkit {kdkit.__version__}\n", "")


def test_help_lists_every_command_in_the_order_of_use(kdkit_cli: Cli) -> None:
    outcome = kdkit_cli("--help")
    order = [name for names in STORY.values() for name in names]
    # Continuation lines of a wrapped summary are indented deeper than a command.
    listed = re.findall(r"^  ([a-z]+(?:-[a-z]+)*) ", outcome.stdout, re.M)
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    registered = set(group.commands)
    assert outcome.code == 0
    assert listed == [name for name in order if name in registered]
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
def test_light_commands_import_no_heavy_library(arguments: tuple[str, ...], banned: set[str], kdkit_cli: Cli) -> None:
    assert kdkit_cli("init").code == 0
    outcome = kdkit_cli.python("-X", "importtime", "-m", "kdkit", *arguments)
    assert outcome.code == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in outcome.stderr.splitlines()}
    assert "typer" in imported
    assert imported & banned == set()


def test_importing_the_package_imports_nothing_heavy(kdkit_cli: Cli) -> None:
    code = "import sys, kdkit; kdkit.hookimpl, kdkit.TeacherSpec, kdkit.Project; print(*sys.modules)"
    imported = {name.partition(".")[0] for name in kdkit_cli.python("-c", code).stdout.split()}
    assert "kdkit" in imported
    assert imported & (HEAVY | {"pydantic", "ruamel", "rich", "typer"}) == set()


def test_python_m_kdkit_and_the_script_are_the_same_command(kdkit_cli: Cli) -> None:
    """``python -m kdkit`` is how ``torchrun -m kdkit distill`` starts."""
    script = Path(sys.executable).with_name("kdkit")
    for command in (("plugins", "--json"), ("trust",)):
        done = subprocess.run(
            [script, *command],
            cwd=kdkit_cli.folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        outcome = kdkit_cli.python("-m", "kdkit", *command)
        assert (outcome.code, outcome.stderr) == (done.returncode, done.stderr)
        assert re.sub(r"[\d.]+", "", outcome.stdout) == re.sub(r"[\d.]+", "", done.stdout)


def test_an_error_is_printed_with_all_its_fields(probe: Cli) -> None:
    assert probe.python("probe.py", "wrong") == Outcome(4, "", ERROR_TEXT)


def test_json_prints_the_error_to_stdout_with_the_same_exit_code(probe: Cli) -> None:
    outcome = probe.python("probe.py", "wrong", "--json")
    assert (outcome.code, outcome.stderr) == (4, ERROR_TEXT)
    assert loads(outcome.stdout) == {
        "error": {
            "id": "X-001",
            "what": "it failed",
            "where": "file.yaml:3",
            "why": "a reason",
            "fix": "do this",
            "code": 4,
        }
    }


def test_json_prints_one_document_when_the_error_follows_the_result(probe: Cli) -> None:
    outcome = probe.python("probe.py", "wrong", "--json", "--late")
    assert (outcome.code, loads(outcome.stdout), outcome.stderr) == (4, {"result": 1}, ERROR_TEXT)


@pytest.mark.parametrize(
    ("arguments", "id", "code"),
    [
        (("trust", "--json"), "KD-PROJ-001", 2),
        (("data", "check", "--json"), "KD-PROJ-001", 2),
        (("recipes", "show", "nonsense", "--json"), "KD-PLUG-003", 2),
        (("plugins", "--json", "--nonsense"), "KD-CLI-013", 2),
        (("export", "--json"), "KD-CLI-013", 2),
    ],
)
def test_json_errors_of_real_commands(arguments: tuple[str, ...], id: str, code: int, kdkit_cli: Cli) -> None:
    outcome = kdkit_cli(*arguments)
    error = loads(outcome.stdout)["error"]
    assert (error["id"], error["code"], outcome.code) == (id, code, code)
    assert outcome.error == id
    assert error["fix"] in outcome.stderr


def test_json_reports_a_bug(probe: Cli) -> None:
    outcome = probe.python("probe.py", "bug", "--json")
    error = loads(outcome.stdout)["error"]
    assert (outcome.code, error["id"], error["code"]) == (101, "KD-CLI-014", 101)


def test_debug_adds_the_traceback(probe: Cli) -> None:
    for outcome in (
        probe.python("probe.py", "--debug", "wrong"),
        probe.python("probe.py", "wrong", env={"KDKIT_DEBUG": "1"}),
    ):
        assert outcome.code == 4
        assert outcome.stderr.startswith(ERROR_TEXT)
        assert "Traceback" in outcome.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("plugins", "--nonsense"), ("plugins", "nonsense")])
def test_a_wrong_argument_exits_2(arguments: tuple[str, ...], kdkit_cli: Cli) -> None:
    outcome = kdkit_cli(*arguments)
    assert (outcome.code, outcome.stdout, outcome.error) == (2, "", "KD-CLI-013")
    assert "nonsense" in outcome.stderr


def test_a_mistyped_command_suggests_the_nearest(kdkit_cli: Cli) -> None:
    assert "'plugins'" in kdkit_cli("plugin").stderr


def test_a_bug_writes_its_traceback_without_local_variables_to_a_file(probe: Cli) -> None:
    outcome = probe.python("probe.py", "bug")
    assert (outcome.code, outcome.stdout) == (101, "")
    assert outcome.error == "KD-CLI-014"
    first, *others = outcome.stderr.splitlines()
    assert "RuntimeError:" in first
    assert "two lines" in first
    assert [line.partition(":")[0] for line in others] == ["  why", "  fix"]
    assert "kdkit-error.log" in outcome.stderr
    log = (probe.folder / "kdkit-error.log").read_text()
    assert "RuntimeError: two" in log
    assert kdkit.__version__ in log
    assert "hf_secret" not in log


def test_debug_prints_the_traceback_of_a_bug(probe: Cli) -> None:
    outcome = probe.python("probe.py", "--debug", "bug")
    assert outcome.code == 101
    assert "Traceback" in outcome.stderr
    assert "hf_secret" not in outcome.stderr
    assert not (probe.folder / "kdkit-error.log").exists()


def test_the_traceback_of_a_bug_is_printed_where_no_file_can_be_written(probe: Cli) -> None:
    (probe.folder / "kdkit-error.log").mkdir()
    outcome = probe.python("probe.py", "bug")
    assert outcome.code == 101
    assert "Traceback" in outcome.stderr


def test_ctrl_c_prints_one_line_and_exits_130(probe: Cli) -> None:
    assert probe.python("probe.py", "interrupted") == Outcome(130, "", "interrupted\n")


@pytest.mark.parametrize(("command", "rows"), [("flood", 1), ("numbers", 0)])
def test_a_closed_pipe_is_no_error(command: str, rows: int, probe: Cli) -> None:
    """Closed while the command writes, or before the last flush."""
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


def test_json_has_no_nan_and_paths_are_strings(probe: Cli) -> None:
    expected = '{\n  "path": "a/b",\n  "rows": [\n    [\n      1,\n      null\n    ]\n  ],\n  "inf": null\n}\n'
    assert probe.python("probe.py", "numbers").stdout == expected


def test_without_a_terminal_progress_is_lines_on_stderr(probe: Cli) -> None:
    outcome = probe.python("probe.py", "bars")
    assert outcome.stdout == ROWS
    assert re.sub(r"\d+ s", "# s", outcome.stderr).splitlines() == ["said", "more", "work: 3/3  # s  a note", "more"]


def test_only_the_first_process_reports(probe: Cli) -> None:
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


def test_a_terminal_shows_a_bar_on_stderr(probe: Cli) -> None:
    code, stdout, terminal = on_terminal(probe, "probe.py", "bars")
    assert (code, stdout) == (0, ROWS)
    assert "3/3" in terminal
    assert "said" in terminal
    assert terminal.count(HIDE) == terminal.count(SHOW) == 1
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", terminal), "NO_COLOR is set"


def test_an_error_restores_the_terminal_before_its_message(probe: Cli) -> None:
    code, _, terminal = on_terminal(probe, "probe.py", "bars", "--fail")
    assert code == 2
    assert terminal.count(HIDE) == 1
    assert terminal.index(SHOW) < terminal.index("error[X-002]")


def test_a_dumb_terminal_shows_lines(probe: Cli) -> None:
    _, _, terminal = on_terminal(probe, "probe.py", "bars", TERM="dumb")
    assert "work: 3/3" in terminal
    assert "\x1b" not in terminal


def test_progress_lines_come_every_few_seconds_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = Lines(every=5.0)
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


def test_a_broken_plugin_is_one_warning_and_the_command_works(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
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
    assert outcome.stderr.startswith("error[KD-PLUG-")
    assert "kdkit-bad 1.0" in outcome.stderr
    assert "ZeroDivisionError" in outcome.stderr
