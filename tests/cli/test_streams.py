"""Standard streams that are closed, full, or cannot show a character."""

from __future__ import annotations

import subprocess
import sys
from json import loads

import pytest

from tests.conftest import Cli, clean_environment

PROBE = r"""
import sys
from kdkit.api.reporter import Lines
from kdkit.cli import console
from kdkit.cli.main import app, run

@app.command()
def work(json: console.JsonOption = False):
    print("from a plugin")
    for done in range(1, 4):
        Lines().say("step \u00fc" * 4000)
    open("done", "w").close()
    if json:
        console.print_json({"name": "\u00fc \udce9"})
    else:
        console.write_data("\u00fc \udce9")

run()
"""


def shell(cli: Cli, redirect: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run the probe with a shell's redirection; the work must be done in any case."""
    (cli.folder / "probe.py").write_text(PROBE)
    command = f"exec {sys.executable} probe.py work {' '.join(arguments)} {redirect}"
    environment = {**clean_environment(), **env}
    done = subprocess.run(["sh", "-c", command], cwd=cli.folder, env=environment, capture_output=True, check=False)
    assert (cli.folder / "done").exists(), done.stderr
    return done


@pytest.mark.parametrize(
    ("redirect", "code"),
    [(">&- 2>&-", 0), (">/dev/full", 3), ("2>/dev/full", 0), ("2>&1 >/dev/null | true", 0), ("<&- >&-", 0)],
)
def test_closed_and_full_streams_end_no_work(redirect: str, code: int, kdkit_cli: Cli) -> None:
    done = shell(kdkit_cli, redirect)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert (b"error[KD-CLI-015]" in done.stderr) == (code == 3)


def test_characters_that_the_terminal_lacks_are_escaped(kdkit_cli: Cli) -> None:
    ascii_terminal = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    assert shell(kdkit_cli, "", **ascii_terminal).stdout.split() == [b"from", b"a", b"plugin", rb"\xfc", rb"\udce9"]
    for env in (ascii_terminal, {}):
        assert loads(shell(kdkit_cli, "", "--json", **env).stdout) == {"name": "\u00fc \udce9"}


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-", "| true"])
def test_an_error_beside_a_full_stdout_keeps_its_exit_code(redirect: str, kdkit_cli: Cli) -> None:
    command = f"{{ {sys.executable} -m kdkit trust --json; echo $? >code; }} {redirect}"
    done = subprocess.run(["sh", "-c", command], cwd=kdkit_cli.folder, env=clean_environment(), capture_output=True)
    assert (kdkit_cli.folder / "code").read_text() == "2\n"
    assert b"error[KD-PROJ-001]" in done.stderr
    assert b"Traceback" not in done.stderr
