"""Which plugins are missing, here or among the wheels."""

from __future__ import annotations

import pytest

import kdkit
from kdkit.core.sharing.bundle.needs import missing_here, without_wheel

WHEELS = ["kdkit_Foo-1.0-py3-none-any.whl", "torch-2.6.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl", "strange.whl"]


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("kdkit-foo==1.0", True),
        ("KDKIT.foo==1.0.0", True),
        ("kdkit-foo==1.1", False),
        ("kdkit-bar==1.0", False),
        ("torch==2.6.0", True),
        ("kdkit-foo @ https://example.org/kdkit_foo-1.0-py3-none-any.whl", True),
        ("# kdkit-baz is installed from a folder", True),
        ("", True),
    ],
)
def test_wheels_that_meet_a_requirement(line: str, there: bool) -> None:
    assert without_wheel([line], WHEELS) == (() if there else (line,))


def test_what_is_installed_here() -> None:
    required = [f"kdkit=={kdkit.__version__}", "kdkit==0.0.0.1", "surely-not-installed>=1", "-e ."]
    assert missing_here(required) == ("kdkit==0.0.0.1", "surely-not-installed>=1")
