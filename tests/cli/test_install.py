"""``kdkit install``, ``kdkit uninstall`` and ``kdkit plugins freeze``, in a virtual environment of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from tests.conftest import Cli, Outcome, clean_environment

ROOT = Path(__file__).parents[2]
GOOD = """
from kdkit import LossSpec, hookimpl

@hookimpl
def kdkit_losses():
    return [LossSpec(name="fine", summary="A loss.", factory="builtins:dict")]
"""


@dataclass
class Environment:
    """A virtual environment that sees kdkit and all it needs, and into which plugins are installed."""

    folder: Path
    python: Path

    def __call__(self, *arguments: str, **variables: str) -> Outcome:
        offline = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "XDG_CACHE_HOME": str(self.folder)}
        done = subprocess.run(
            [self.python, "-m", "kdkit", *arguments],
            cwd=self.folder,
            env={**clean_environment(), **offline, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Made once: the tests below install different plugins."""
    folder = tmp_path_factory.mktemp("install")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (site / "outer.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    return Environment(folder, python)


def wheel(folder: Path, distribution: str, source: str, version: str = "1.0") -> Path:
    """A wheel with one module, which is the plugin."""
    module = distribution.replace("-", "_")
    facts = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": source,
        f"{facts}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
        f"{facts}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{facts}/entry_points.txt": f"[kdkit]\n{distribution.removeprefix('kdkit-')} = {module}\n",
    }
    path = folder / f"{module}-{version}-py3-none-any.whl"
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(text)}\n"
        archive.writestr(f"{facts}/RECORD", record + f"{facts}/RECORD,,\n")
    return path


def test_a_plugin_comes_and_goes_while_another_one_is_broken(environment: Environment) -> None:
    hangs = wheel(environment.folder, "kdkit-bad", "import time\ntime.sleep(10**6)")
    bad = environment("install", str(hangs), KDKIT_PLUGIN_SECONDS="3", KDKIT_NO_PLUGINS="1")
    assert bad.code == ExitCode.PLUGIN
    assert "bad of kdkit-bad 1.0: broken: did not finish importing in 3 s" in bad.stdout

    good = wheel(environment.folder, "kdkit-good", GOOD)
    came = environment("install", "--json", str(good), KDKIT_STRICT="1", KDKIT_PLUGIN_SECONDS="3")
    assert came.code == 0
    (record,) = json.loads(came.stdout)["plugins"]
    assert (record["distribution"], record["status"], record["provides"]) == ("kdkit-good", "ok", {"loss": ["fine"]})
    assert "+ " in came.stderr
    assert "-m pip install" in came.stderr

    newer = environment(
        "install", str(wheel(environment.folder, "kdkit-good", GOOD, version="2.0")), KDKIT_PLUGIN_SECONDS="3"
    )
    assert newer.stdout == "good of kdkit-good 2.0: works; loss: fine\n"
    again = environment(
        "install", str(environment.folder / "kdkit_good-2.0-py3-none-any.whl"), KDKIT_PLUGIN_SECONDS="3"
    )
    assert again.stdout == newer.stdout  # asked for by name: its state is told, although nothing changed

    frozen = environment("plugins", "freeze", KDKIT_STRICT="1")
    assert frozen.code == 0
    lines = frozen.stdout.splitlines()
    assert any(line.startswith("kdkit-good @ file://") and "sha256=" in line for line in lines)
    listed = json.loads(environment("plugins", "freeze", "--json").stdout)["requirements"]
    assert [one["name"] for one in listed][:3] == ["kdkit", "kdkit-bad", "kdkit-good"]

    removed = environment("uninstall", "kdkit_bad")
    assert (removed.code, removed.stdout) == (0, "removed kdkit-bad\n")
    assert environment("plugins", KDKIT_STRICT="1").code == 0


def test_what_cannot_be_installed_is_an_error_with_the_installers_words(environment: Environment) -> None:
    failed = environment("install", "kdkit-nowhere-to-be-found")
    assert failed.code == ExitCode.MISSING
    assert "kdkit-nowhere-to-be-found" in failed.stderr.partition("error: ")[0]
    assert "the installer failed" in failed.stderr
    assert failed.stdout == ""


def test_a_plugin_that_ends_the_process_can_be_removed_again(environment: Environment) -> None:
    ends = wheel(environment.folder, "kdkit-ends", "import os\nos._exit(0)")
    came = environment("install", str(ends))
    assert came.code == ExitCode.PLUGIN
    assert "kdkit does not start any more" in came.stderr
    assert "a plugin ended the process with code 0" in came.stderr
    assert "do: kdkit uninstall kdkit-ends\n" in came.stderr
    other = wheel(environment.folder, "kdkit-other", GOOD)
    assert environment("install", str(other)).code == ExitCode.PLUGIN
    assert environment("uninstall", "kdkit-other").stdout == "removed kdkit-other\n"  # loads none
    assert environment("uninstall", "kdkit-ends").code == 0


def test_a_plugin_whose_name_is_taken_is_told_so(environment: Environment) -> None:
    came = environment("install", str(wheel(environment.folder, "kdkit-late", GOOD.replace("fine", "fd"))))
    note = "  kdkit's own loss 'fd' keeps the name: say 'kdkit-late:fd'"
    assert came.stdout.splitlines() == ["late of kdkit-late 1.0: works; loss: fd", note]
    assert environment("uninstall", "kdkit-late").code == 0


def test_a_dry_run_prints_the_command(environment: Environment) -> None:
    shown = environment("install", "kdkit-x>=1", "-e", "./mine", "--dry-run")
    assert shown.stdout == f"{environment.python} -m pip install 'kdkit-x>=1' -e ./mine\n"
    secret = environment("install", "git+https://me:secret@example.org/x", "--dry-run", "--json")
    assert "secret" not in secret.stdout + secret.stderr


def test_only_plugins_are_uninstalled(kdkit_cli: Cli) -> None:
    refused = kdkit_cli("uninstall", "torch", "--dry-run")
    assert refused.code == ExitCode.MISSING
    assert "no plugin of a distribution 'torch' is installed" in refused.stderr
    refused = kdkit_cli("uninstall", "kdkit", "--dry-run")
    assert refused.code == ExitCode.USAGE
    assert "kdkit itself is no plugin" in refused.stderr


def test_nothing_to_install_is_said(kdkit_cli: Cli) -> None:
    assert "nothing to install" in kdkit_cli("install").stderr
