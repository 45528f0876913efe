"""The Python lines of the README run as they stand, on a small project and a Hub on the loopback interface."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import Cli
from tests.local_hub import local_hub

README = Path(__file__).parents[2] / "README.md"
REGISTRY = """\
version: 1
student: {family: demo-student}
data:
  - source: procedural
    path: data
    options: {train: 32, calibration: 16, test: 16, domains: [ct, xray]}
prompts: {default: ["{domain} showing {label}"]}
optimizer: {lr: 0.004, batch_size: 32, steps: 20}
"""


def test_the_python_lines_run(kdkit_cli: Cli, tmp_path: Path) -> None:
    (lines,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.M | re.S)
    project = kdkit_cli.folder / "my-project"
    project.mkdir()
    (project / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    with local_hub(tmp_path / "hub") as hub:
        outcome = kdkit_cli.python("-c", lines, env=hub.environment())
        assert outcome.code == 0, outcome.stderr
        assert hub.repository("lab/student").private
    assert (project / "versions" / "current").read_text(encoding="utf-8").strip() == "v1"
    assert len(list((project / "reports").glob("evaluation-v1-test.*"))) == 2
