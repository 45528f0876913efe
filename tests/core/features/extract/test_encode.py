"""A teacher of a plugin that fails is named with its distribution and the sample."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import SignalSpec
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.extraction import extract
from tests.conftest import write_distribution
from tests.core.features.small import index_of, open_as, picture_samples
from tests.errors import raises_error
from tests.toys import ToyEncoder

FAULTY = """
import sys
import torch
from kdkit.core.contracts import SignalSpec

class Faulty:
    signals = (SignalSpec("answer", (3,), "float32"),)
    def __init__(self, fault):
        self.fault = fault
    def identity(self):
        return {}
    def prepare(self, image, sample):
        if self.fault == "prepare" and sample.id == "s002":
            raise IndexError("no token")
        return sample.id
    def compute(self, items):
        if self.fault == "raises" and "s002" in items:
            raise IndexError("no token")
        if self.fault == "exits":
            sys.exit(0)
        numbers = [[1.0, 2.0, 3.0]] * len(items)
        return [] if self.fault == "list" else {"answer": numbers if self.fault == "numbers" else torch.tensor(numbers)}
"""


@pytest.mark.parametrize(
    ("fault", "id", "words"),
    [
        ("prepare", "KD-FEAT-019", ("'s002'", "IndexError: no token", "kdkit-faulty 1.0")),
        ("raises", "KD-PLUG-012", ("'s002'", "IndexError: no token", "kdkit-faulty 1.0")),
        ("exits", "KD-PLUG-012", ("'s000'", "SystemExit: 0", "kdkit-faulty 1.0")),
        ("list", "KD-FEAT-021", ("'s000'", "list", "kdkit_faulty.Faulty")),
        ("numbers", "KD-FEAT-021", ("'s000'", "'answer'", "kdkit_faulty.Faulty")),
    ],
)
def test_a_failing_teacher_is_named(fault: str, id: str, words: tuple[str, ...], site: Path) -> None:
    write_distribution(site, "kdkit-faulty", FAULTY)
    teacher = open_as("talker", import_module("kdkit_faulty").Faulty(fault))
    index = index_of(picture_samples(site / "images", 4), site)
    with raises_error(id, mentions=("'talker'", *words), code=ExitCode.PLUGIN):
        extract(FeatureStore(site / "features"), [teacher], index, batch_size=1)


def test_results_that_do_not_fit_are_the_plugin_s(site: Path) -> None:
    """kdkit's own code meets the wrong result of a dual encoder."""
    source = "from tests.toys import ToyEncoder\nclass Odd(ToyEncoder):\n  def encode_image(self, pixels): return [1]\n"
    write_distribution(site, "kdkit-odd", source)
    odd: ToyEncoder = import_module("kdkit_odd").Odd(4)
    index = index_of(picture_samples(site / "images", 1), site)
    with raises_error("KD-PLUG-012", where="kdkit-odd 1.0", mentions=("'odd'", "'s000'")):
        extract(FeatureStore(site / "features"), [open_as("odd", odd)], index)


def test_kdkit_s_own_teachers_are_not_blamed(site: Path) -> None:
    class Own:
        signals = (SignalSpec("answer", (3,), "float32"),)

        def identity(self) -> dict[str, str]:
            return {}

        def prepare(self, *_: Any) -> str:
            return "x"

        def compute(self, _: Any) -> dict[str, torch.Tensor]:
            raise IndexError("a bug")

    index = index_of(picture_samples(site / "images", 1), site)
    with pytest.raises(IndexError, match="a bug"):
        extract(FeatureStore(site / "features"), [open_as("own", Own())], index)
