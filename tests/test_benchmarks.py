"""The benchmarks of speed run: every row of ``gpu.py`` in small on the CPU, and rows of ``run.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a script as it is imported when it runs."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def test_every_row_of_a_gpu_runs_in_small_on_the_cpu(tmp_path: Path) -> None:
    """In a process of its own: Accelerate has one precision per process."""
    options = ("--device", "cpu", "--tiny", "--json", str(tmp_path / "found.json"))
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["problems"] == {}
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 5
    assert all(row["value"] == row["value"] for row in rows.values())
    assert rows["crd ensemble: speed"]["detail"]["gradients_differ"] < 1e-4
    assert rows["largest batch of the loss, 9 teachers"]["detail"]["largest"] == {"crd open_clip": 64, "crd kdkit": 64}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_script_says_so(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert benchmark("gpu").main() == 3
    assert "no GPU" in capsys.readouterr().err


def test_rows_of_a_cpu_reach_what_does_not_depend_on_the_machine(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "found.json"
    run = benchmark("run")
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--only", "gradients", "flops", "--json", str(path)])
    assert run.main() == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [row["name"] for row in found["rows"] if not row["reached"]] == []
    assert len(found["rows"]) == 7
    assert found["machine"]["torch"] == torch.__version__


def test_contenders_minimize_the_same(benchmark: Any) -> None:
    contenders = benchmark("loss_contenders")
    features = contenders.make_features(12, 3, 8, torch.device("cpu"), torch.float64)
    for ours, other in (("crd", "open_clip"), ("crd", "shared"), ("clip", "plain"), ("icl", "plain")):
        assert contenders.agree(features, f"{ours} kdkit", f"{ours} {other}") < 1e-8


def test_a_ratio_is_ours_against_the_baseline_round_by_round(benchmark: Any) -> None:
    measuring = benchmark("measuring")
    assert measuring.ratios({"a": [1.0, 2.0], "b": [3.0, 3.0]}, "a", "b") == [3.0, 1.5]
    row = measuring.row("name", "base", [1.0, 3.0, 2.0], least=2.5)
    assert (row.value, row.low, row.high, row.reached) == (2.0, 1.0, 3.0, False)


def test_turns_are_counted_after_the_first_round(benchmark: Any) -> None:
    called: list[str] = []
    contenders = {name: (lambda n=name: called.append(n)) for name in "ab"}
    seconds = benchmark("measuring").take_turns(contenders, 2, lambda: 0.0)
    assert "".join(called) == "baabba"
    assert seconds == {"a": [0.0, 0.0], "b": [0.0, 0.0]}
