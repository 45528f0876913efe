"""The plan compares temperatures of token losses with the teachers' signals before anything is extracted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import LOGPROBS, OWN_ANSWERS
from kdkit.core.contracts.tail_mass import MASSES, TAIL
from kdkit.core.distill.plan.token_temperatures import check_token_temperatures
from kdkit.core.project.recipe import Recipe
from tests.core.distill.plan.test_compatibility import TOKENS, locked, project
from tests.core.evaluation.trust.synthetic import Warned
from tests.errors import raises_error

WHOLE = {**TOKENS, "tail": (32, TAIL)}


def recipe(temperature: float) -> Recipe:
    losses: list[dict[str, Any]] = [
        {"name": "answer-ce"},
        {"name": "token-kd", "options": {"temperature": temperature}},
    ]
    base = {"name": "toy", "summary": "toy", "losses": losses, "trust": {"policy": "all"}}
    return Recipe.model_validate({**base, "optimizer": {"lr": 0.1, "batch_size": 2, "steps": 1}})


def check(at: Path, temperature: float, width: int = TAIL, **identity: str) -> list[str]:
    reporter = Warned([])
    teachers = {"t": locked({**TOKENS, "tail": (32, width)}, **identity), "images": locked({"image": (8,)})}
    check_token_temperatures(recipe(temperature), project(at).catalogue, teachers, reporter)
    return reporter.warnings


@pytest.mark.parametrize(("temperature", "width"), [(0.5, TAIL), (16.0, TAIL), (2.0, MASSES)])
def test_exact_temperatures_need_no_word(tmp_path: Path, temperature: float, width: int) -> None:
    assert check(tmp_path, temperature, width) == []


def test_interpolated_temperatures_are_told(tmp_path: Path) -> None:
    (said,) = check(tmp_path, 3.0)
    assert "token-kd at temperature 3" in said
    assert "interpolated" in said


def test_temperatures_that_signals_do_not_have_are_refused(tmp_path: Path) -> None:
    with raises_error("KD-DIST-560", mentions=("0.4", "'t'")) as caught:
        check(tmp_path, 0.4)
    assert "0.5 to 16" in caught.value.fix
    with raises_error("KD-DIST-560") as caught:
        check(tmp_path, 3.0, MASSES)
    assert "0.5, 1, 2" in caught.value.fix


def test_servers_give_a_bound_below_one_and_nothing_above(tmp_path: Path) -> None:
    server: dict[str, Any] = {LOGPROBS: OWN_ANSWERS}
    assert check(tmp_path, 1.0, **server) == []
    (said,) = check(tmp_path, 0.7, **server)
    assert "upper bound" in said
    with raises_error("KD-DIST-561", mentions=("2", "'t'")):
        check(tmp_path, 2.0, **server)
