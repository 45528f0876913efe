"""``kdkit install``, ``kdkit uninstall`` and ``kdkit plugins freeze``, in a virtual environment of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
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


def test_a_plugin_is_installed_and_removed_next_to_a_broken_one(environment: Environment) -> None:
    broken = wheel(environment.folder, "kdkit-bad", "raise RuntimeError('on purpose')")
    bad = environment("install", "--json", str(broken), KDKIT_NO_PLUGINS="1")
    assert bad.code == ExitCode.PLUGIN
    (record,) = json.loads(bad.stdout)["plugins"]
    assert (record["distribution"], record["status"]) == ("kdkit-bad", "broken")
    assert "on purpose" in record["error"]

    good = wheel(environment.folder, "kdkit-good", GOOD)
    came = environment("install", "--json", str(good), KDKIT_STRICT="1")
    assert came.code == 0
    (record,) = json.loads(came.stdout)["plugins"]
    assert (record["distribution"], record["status"], record["provides"]) == ("kdkit-good", "ok", {"loss": ["fine"]})
    assert "+ " in came.stderr
    assert "-P -m pip install" in came.stderr

    newer = wheel(environment.folder, "kdkit-good", GOOD, version="2.0")
    (line,) = environment("install", str(newer)).stdout.splitlines()
    assert line.startswith("good ")
    assert "kdkit-good 2.0" in line
    assert line.endswith("loss: fine")
    assert json.loads(environment("install", "--json", str(newer)).stdout)["plugins"] == []  # nothing changed

    frozen = environment("plugins", "freeze", KDKIT_STRICT="1")
    assert frozen.code == 0
    lines = frozen.stdout.splitlines()
    assert any(line.startswith("kdkit-good @ ") and "file://" in line and "sha256=" in line for line in lines)
    listed = json.loads(environment("plugins", "freeze", "--json").stdout)["requirements"]
    assert [one["name"] for one in listed][:3] == ["kdkit", "kdkit-bad", "kdkit-good"]

    removed = environment("uninstall", "kdkit_bad")
    assert (removed.code, removed.stdout.split()) == (0, ["removed", "kdkit-bad"])
    assert environment("plugins", KDKIT_STRICT="1").code == 0


def test_a_failed_installation_shows_the_installers_output(environment: Environment) -> None:
    failed = environment("install", "kdkit-nowhere-to-be-found")
    assert (failed.code, failed.stdout) == (ExitCode.MISSING, "")
    assert "kdkit-nowhere-to-be-found" in failed.stderr.partition("error[KD-CLI-009]")[0]


def test_a_plugin_that_ends_the_process_can_be_removed_again(environment: Environment) -> None:
    ends = wheel(environment.folder, "kdkit-ends", "import os\nos._exit(7)")
    came = environment("install", str(ends))
    assert came.code == ExitCode.PLUGIN
    assert "error[KD-CLI-010]" in came.stderr
    assert "exit code 7" in came.stderr
    other = wheel(environment.folder, "kdkit-other", GOOD)
    assert environment("install", str(other)).code == ExitCode.PLUGIN
    assert environment("uninstall", "kdkit-other").stdout.split() == ["removed", "kdkit-other"]  # loads none
    assert environment("uninstall", "kdkit-ends").code == 0


def test_a_name_of_a_built_in_part_is_reported(environment: Environment) -> None:
    came = environment("install", str(wheel(environment.folder, "kdkit-late", GOOD.replace("fine", "fd"))))
    first, note = came.stdout.splitlines()
    assert "kdkit-late 1.0" in first
    assert first.endswith("loss: fd")
    assert "'kdkit-late:fd'" in note
    assert environment("uninstall", "kdkit-late").code == 0


def test_a_dry_run_prints_the_command(environment: Environment) -> None:
    shown = environment("install", "kdkit-x>=1", "-e", "./mine", "--dry-run")
    python, *arguments = shlex.split(shown.stdout)
    assert python == str(environment.python)
    assert arguments == ["-P", "-m", "pip", "install", "-e", "./mine", "--", "kdkit-x>=1"]
    secret = environment("install", "git+https://me:secret@example.org/x", "--dry-run", "--json")
    assert "secret" not in secret.stdout + secret.stderr


def test_only_plugins_are_uninstalled(kdkit_cli: Cli) -> None:
    refused = kdkit_cli("uninstall", "torch", "--dry-run")
    assert (refused.code, refused.error) == (ExitCode.MISSING, "KD-CLI-007")
    refused = kdkit_cli("uninstall", "kdkit", "--dry-run")
    assert (refused.code, refused.error) == (ExitCode.USAGE, "KD-CLI-006")


def test_install_without_packages_is_refused(kdkit_cli: Cli) -> None:
    assert kdkit_cli("install").error == "KD-CLI-005"
