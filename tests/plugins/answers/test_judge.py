"""The task ``judge``, with a judge behind a server on the loopback interface."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import Sample
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.scores import METHOD, PRIVATE
from kdkit.plugins.answers.judge import server
from kdkit.plugins.answers.judge.prompt import DEFAULT, Prompt, read_verdict
from kdkit.plugins.answers.judge.server import CONTROLS
from kdkit.plugins.answers.judge.task import Judge
from kdkit.plugins.loaders import endpoint_client
from tests.errors import raises_error
from tests.local_endpoint import LocalEndpoint, Reply, local_endpoint
from tests.plugins.answers.test_task import Said, question

KEY = "sk-very-secret"


def grade(body: Mapping[str, Any]) -> Reply:
    """Right if the reference is in the answer; an answer with ``hm`` gets no verdict."""
    text = body["messages"][-1]["content"]
    reference, answer = (re.search(rf"<{tag}>\n(.*)\n</{tag}>", text, re.DOTALL) for tag in ("reference", "answer"))
    assert reference, text
    assert answer, text
    if "hm" in answer[1]:
        return [("I cannot say.", ())]
    right = any(each in answer[1] for each in reference[1].split(" or: "))
    return [(f"Because.\nVERDICT: {'CORRECT' if right else 'INCORRECT'}\n", ())]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEndpoint]:
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(server, "BLOCK", 4)
    monkeypatch.setenv("SECRET", KEY)
    with local_endpoint(grade) as running:
        yield running


def judge(folder: Path, endpoint: LocalEndpoint, *, kept: bool = True, **more: Any) -> Judge:
    settings = {"endpoint": endpoint.url, "model": "big", "key_variable": "SECRET", "tries": 2}
    path = folder / "endpoint.json"
    if not path.exists():
        path.write_text(json.dumps(settings), encoding="utf-8")
    return Judge(folder=str(folder), resamples=50, cache_folder=folder / "kept" if kept else None, **more)


def asked(number: int, text: str = "the liver", image: int = 0, **extra: Any) -> Sample:
    messages = [{"role": "user", "content": f"<image>Which organ is {number}?"}]
    made = question(f"q{number}", text, "vqa/ct", messages=messages, **extra)
    return Sample(made.id, Path(f"{image}.png"), made.text, made.domain, None, "test", extra=made.extra)


SAMPLES = [asked(number, image=number // 2) for number in range(6)]
ANSWERS = {"q0": "It is the liver.", "q1": "the lung", "q2": "hm", "q3": "the liver", "q4": "hm", "q5": "the lung"}


def requests_without_controls(endpoint: LocalEndpoint) -> int:
    texts = [body["messages"][-1]["content"] for body in endpoint.requests]
    return len([text for text in texts if not any(control.answer in text for control in CONTROLS)])


def test_verdicts_become_scores_and_all_rows_are_told(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    others = [asked(6, "yes"), asked(7, "A", choices=["A", "B"]), question("box", "<box>(0,0),(9,9)</box>", "vg/ct")]
    task = judge(tmp_path, endpoint)
    (found,) = task.evaluate(Said(ANSWERS, "v1"), [*SAMPLES, *others])
    assert found.metrics == {"judged": pytest.approx(4 / 6), "judge_accuracy": 0.5}
    assert found.count == 6
    assert found.outcomes["judged"].tolist() == [1, 1, 0, 1, 0, 1]
    assert "v1: 2 of 6 replies of the judge are no verdict, and are not counted" in found.notes
    assert "2 samples are not judged: no open question" in found.notes
    assert found.groups == 3, "intervals draw images with all their questions"
    body = endpoint.requests[0]
    assert (body["temperature"], body["model"], set(endpoint.keys)) == (0.0, "big", {f"Bearer {KEY}"})
    assert "image_url" not in json.dumps(endpoint.requests), "only texts are sent"
    assert KEY not in "".join(path.read_text() for path in (tmp_path / "kept").iterdir())


def test_a_killed_evaluation_asks_nothing_twice(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    whole = judge(tmp_path, endpoint, kept=False).evaluate(Said(ANSWERS), SAMPLES)
    endpoint.requests.clear()
    original = endpoint.answer

    def dies(body: Mapping[str, Any]) -> Reply:
        if "Which organ is 5?" in body["messages"][-1]["content"]:
            endpoint.faults += [401, 401]
            raise BrokenPipeError
        return original(body)

    endpoint.answer = dies
    with raises_error("KD-LOAD-006"):
        judge(tmp_path, endpoint).evaluate(Said(ANSWERS), SAMPLES)
    endpoint.faults.clear()
    endpoint.requests.clear()
    endpoint.answer = original
    (resumed,) = judge(tmp_path, endpoint).evaluate(Said(ANSWERS), SAMPLES)
    assert requests_without_controls(endpoint) == 2, "the first four are on the disk"
    assert dict(resumed.metrics) == dict(whole[0].metrics)
    endpoint.requests.clear()
    judge(tmp_path, endpoint).evaluate(Said(ANSWERS, "v2"), SAMPLES)
    assert endpoint.requests == [], "a verdict belongs to the answer, not to the model that gave it"


def test_another_judge_is_noticed(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    judge(tmp_path, endpoint).evaluate(Said(ANSWERS), SAMPLES)
    endpoint.model = "smaller"
    judge(tmp_path, endpoint).evaluate(Said(ANSWERS), SAMPLES)  # nothing is asked
    with raises_error("KD-ANS-612", mentions=("served", "smaller")):
        judge(tmp_path, endpoint).evaluate(Said({}), SAMPLES)
    endpoint.model = "served"
    original = endpoint.answer
    endpoint.answer = lambda _: [("VERDICT: CORRECT", ())]
    with raises_error("KD-ANS-612", mentions=("fixed cases",)):
        judge(tmp_path, endpoint).evaluate(Said({}), SAMPLES)
    endpoint.answer = original
    settings = json.loads((tmp_path / "endpoint.json").read_text())
    (tmp_path / "endpoint.json").write_text(json.dumps({**settings, "revision": "two"}), encoding="utf-8")
    endpoint.requests.clear()
    judge(tmp_path, endpoint).evaluate(Said(ANSWERS), SAMPLES)
    assert requests_without_controls(endpoint) == 6


def test_a_judge_without_any_verdict_is_refused_and_nothing_of_it_stays(
    endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    original, endpoint.answer = endpoint.answer, lambda _: [("<think>The reference says", ())]
    with raises_error("KD-ANS-700", mentions=("big at", "reference says", "max_new")):
        judge(tmp_path, endpoint).evaluate(Said(ANSWERS), SAMPLES)
    endpoint.answer = original
    endpoint.requests.clear()
    judge(tmp_path, endpoint).evaluate(Said(ANSWERS), SAMPLES)
    assert requests_without_controls(endpoint) == 6, "all are asked again"


def test_a_judge_that_changes_between_calls(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    original = endpoint.answer

    def changes(body: Mapping[str, Any]) -> Reply:
        if "Which organ is 4?" in body["messages"][-1]["content"]:
            endpoint.model = "smaller"
        return original(body)

    endpoint.answer = changes
    with raises_error("KD-ANS-612"):
        judge(tmp_path, endpoint).evaluate(Said(ANSWERS), SAMPLES)
    endpoint.model, endpoint.answer = "served", original
    endpoint.requests.clear()
    judge(tmp_path, endpoint).evaluate(Said(ANSWERS), SAMPLES)
    assert requests_without_controls(endpoint) == 2, "the block that another model judged is not kept"


def test_the_report_states_the_judge(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    told = compare_models(judge(tmp_path, endpoint), [Said(ANSWERS)], [], SAMPLES, settings={"task": "judge"})
    method = told.settings[METHOD]
    assert method["judge"] == "big, temperature 0"
    assert method["judge by its server's name"] == "served"
    assert method["judge's prompt"] == DEFAULT
    assert method["judge's prompt, SHA-256"] == Prompt(DEFAULT).digest
    (host,) = told.settings[PRIVATE]
    assert method[host] in endpoint.url


def test_two_versions_are_compared_by_paired_draws(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    task = judge(tmp_path, endpoint)
    first, second = (task.evaluate(Said(answers), SAMPLES)[0] for answers in (ANSWERS, {}))
    assert second.metrics["judge_accuracy"] == 1
    draws = [score.draws["judge_accuracy"] for score in (first, second)]
    assert draws[0].shape == draws[1].shape == (50,)
    assert np.nanmin(draws[1] - draws[0]) >= 0


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("VERDICT: CORRECT", True),
        ("Both name it.\n\n**Verdict: incorrect.**\n", False),
        ("correct", True),
        ("Final verdict - INCORRECT", False),
        ("VERDICT: CORRECT\nNo, wait: it is not.", None),
        ("It is not correct", None),
        ("VERDICT: CORRECT or VERDICT: INCORRECT", None),
        ("", None),
    ],
)
def test_verdicts(reply: str, verdict: bool | None) -> None:
    assert read_verdict(reply) is verdict


@pytest.mark.parametrize("text", ["{question} {answer}", "{question} {reference} {answer} {x}", "{question"])
def test_a_prompt_that_asks_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text(text, encoding="utf-8")
    with raises_error("KD-ANS-611", where=str(path)):
        Prompt.read(str(path))


def test_it_is_never_chosen_by_default() -> None:
    with raises_error("KD-ANS-610", mentions=("--option folder=",)):
        Judge()
