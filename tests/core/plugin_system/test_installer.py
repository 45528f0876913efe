"""The right command for every kind of environment."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.plugin_system.installer import Interpreter, distribution_of, install_command, uninstall_command
from tests.errors import raises_error

PYTHON = "/env/bin/python"
RECEIPT = """
[tool]
requirements = [
    { name = "kdkit", extras = ["dev"], specifier = ">=0.1" },
    { name = "kdkit-huber", specifier = "==1.2" },
    { name = "kdkit-folder", directory = "/src/folder" },
    { name = "kdkit-wheel", path = "/src/kdkit_wheel-1.0-py3-none-any.whl" },
    { name = "kdkit-edit", editable = "/src/edit" },
    { name = "kdkit-url", url = "https://example.org/u-1.0.zip" },
    { name = "kdkit-git", git = "https://example.org/g.git?rev=abc" },
]
"""  # as uv 0.13 writes it
SO_FAR = [
    *("--with", "kdkit-huber==1.2"),
    *("--with", "/src/folder"),
    *("--with", "/src/kdkit_wheel-1.0-py3-none-any.whl"),
    *("--with-editable", "/src/edit"),
    *("--with", "kdkit-url @ https://example.org/u-1.0.zip"),
    *("--with", "kdkit-git @ git+https://example.org/g.git@abc"),
]


@pytest.fixture
def venv(tmp_path: Path) -> Interpreter:
    """A virtual environment with pip, on a machine with uv and pipx."""
    return Interpreter(
        executable=PYTHON, prefix=tmp_path, virtual=True, managed=False, pip=True, uv="/bin/uv", pipx="/bin/pipx"
    )


def test_a_virtual_environment_with_pip(venv: Interpreter) -> None:
    assert install_command(["a==1", "./b"], into=venv) == [PYTHON, "-m", "pip", "install", "a==1", "./b"]
    command = install_command(["a"], editable=["c"], upgrade=True, into=venv)
    assert command == [PYTHON, "-m", "pip", "install", "--upgrade", "a", "-e", "c"]
    assert uninstall_command(["a"], into=venv) == [PYTHON, "-m", "pip", "uninstall", "--yes", "a"]
    managed = replace(venv, managed=True)  # a virtual environment of a managed Python is nobody's but ours
    assert install_command(["a"], into=managed)[0] == PYTHON


def test_a_virtual_environment_of_uv_has_no_pip(venv: Interpreter) -> None:
    bare = replace(venv, pip=False)
    assert install_command(["a"], editable=["c"], into=bare) == [
        *("/bin/uv", "pip", "install", "--python", PYTHON),
        *("a", "-e", "c"),
    ]
    assert uninstall_command(["a"], into=bare) == ["/bin/uv", "pip", "uninstall", "--python", PYTHON, "a"]


def test_an_environment_into_which_nothing_installs(venv: Interpreter) -> None:
    bare = replace(venv, pip=False, uv="")
    with raises_error("KD-PLUG-011", mentions=("no pip",)) as caught:
        install_command(["a"], into=bare)
    assert caught.value.fix == f"{PYTHON} -m ensurepip"
    (venv.prefix / "conda-meta").mkdir()
    with raises_error("KD-PLUG-011") as caught:
        install_command(["a"], into=replace(bare, virtual=False))
    assert caught.value.fix == f"conda install -p {venv.prefix} pip"


def test_conda_uses_its_pip(venv: Interpreter) -> None:
    (venv.prefix / "conda-meta").mkdir()
    assert install_command(["a"], into=replace(venv, virtual=False)) == [PYTHON, "-m", "pip", "install", "a"]


def test_a_python_of_the_operating_system_is_refused(venv: Interpreter) -> None:
    system = replace(venv, virtual=False, managed=True)
    with raises_error("KD-PLUG-010") as caught:
        install_command(["a"], into=system)
    assert "uv tool install kdkit --with PLUGIN" in caught.value.fix
    assert "pipx install kdkit" in caught.value.fix
    assert caught.value.code == ExitCode.DENIED
    own = replace(system, managed=False)  # say, the Python of a container image
    assert install_command(["a"], into=own) == [PYTHON, "-m", "pip", "install", "a"]


def test_an_environment_of_pipx(venv: Interpreter) -> None:
    record = venv.prefix / "pipx_metadata.json"
    record.write_text(json.dumps({"environment": "kdkit-beta"}))
    assert install_command(["a"], editable=["c"], into=venv) == [
        *("/bin/pipx", "inject", "kdkit-beta", "a", "--editable", "c")
    ]
    assert install_command(["a"], upgrade=True, into=venv)[2:] == ["--force", "kdkit-beta", "a"]
    assert uninstall_command(["a"], into=venv) == ["/bin/pipx", "uninject", "kdkit-beta", "a"]
    record.write_text(json.dumps({"pipx_metadata_version": "0.5"}))  # older ones do not say it
    assert install_command(["a"], into=venv)[2] == venv.prefix.name
    with raises_error("KD-PLUG-012", mentions=("'pipx'",)):
        install_command(["a"], into=replace(venv, pipx=""))


def test_a_tool_of_uv_keeps_what_it_was_told_before(venv: Interpreter) -> None:
    (venv.prefix / "uv-receipt.toml").write_text(RECEIPT)
    start = ["/bin/uv", "tool", "install", "kdkit[dev]>=0.1"]
    assert install_command(["new", "x"], editable=["c"], into=venv) == [
        *(*start, *SO_FAR),
        *("--with", "new", "--with", "x", "--with-editable", "c"),
    ]
    assert "--upgrade" in install_command(["new"], upgrade=True, into=venv)
    left = uninstall_command(["kdkit-huber", "kdkit-edit"], into=venv)
    assert left == [*start, *SO_FAR[2:6], *SO_FAR[8:]]
    with raises_error("KD-PLUG-012", mentions=("'uv'",)):
        install_command(["a"], into=replace(venv, uv=""))


@pytest.mark.parametrize("receipt", ["", "[tool]", "[tool", "[tool]\nrequirements = 3"])
def test_a_damaged_receipt_is_an_error(receipt: str, venv: Interpreter) -> None:
    (venv.prefix / "uv-receipt.toml").write_text(receipt)
    with raises_error("KD-PLUG-013"):
        install_command(["a"], into=venv)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("kdkit-Huber>=1", "kdkit-huber"),
        ("kdkit_huber[extra]", "kdkit-huber"),
        ("kdkit-huber @ https://example.org/x", "kdkit-huber"),
        ("wheels/kdkit_huber-1.0-py3-none-any.whl", "kdkit-huber"),
        ("FOLDER", "kdkit-mine"),
        ("FOLDER/empty", ""),
    ],
)
def test_what_a_word_installs(word: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "KDkit_mine"\n')
    (tmp_path / "empty").mkdir()
    assert distribution_of(word.replace("FOLDER", str(tmp_path))) == name


@pytest.mark.parametrize("word", ["", "--index-url=http://evil", "-r"])
def test_an_option_is_no_package(word: str, venv: Interpreter) -> None:
    for make in (install_command, uninstall_command):
        with raises_error("KD-PLUG-014"):
            make([word], into=venv)
    with raises_error("KD-PLUG-014"):
        install_command([], editable=[word], into=venv)


def test_the_running_interpreter_is_described() -> None:
    here = Interpreter.here()
    assert here.executable == sys.executable
    assert here.virtual == (sys.prefix != sys.base_prefix)
