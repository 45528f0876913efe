"""A served model that scores given answers, against the same model opened locally; and servers that go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import ChecksAnswers, LossInput, Served, SignalSource, TeacherView
from kdkit.core.contracts.token_signals import SplitsAnswers
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.teachers.probe import probe
from kdkit.plugins.loaders import endpoint_client
from kdkit.plugins.loaders.endpoint_scoring import ScoringEndpoint
from kdkit.plugins.loaders.generating import GeneratingTeacher
from kdkit.plugins.losses.tokens.losses import TokenDistillation
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.errors import raises_error
from tests.local_vllm import LocalVllm, Reply, local_vllm
from tests.plugins.students.clinkd.tiny import PICTURES, SMALL, make, sample, samples, stacked

K, KEY = 5, "sk-very-secret"
LARGE: dict[str, Any] = {"max_tokens": 160, "max_answer": 40}


@pytest.fixture(scope="module")
def model() -> ClinkdStudent:
    return make(seed=4, **LARGE)


@pytest.fixture(scope="module")
def other() -> ClinkdStudent:
    return make(seed=5, **LARGE)


@pytest.fixture
def served(model: ClinkdStudent, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalVllm]:
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("SECRET", KEY)
    with local_vllm(model) as running:
        yield running


def load(folder: Path, served: LocalVllm, tokenizer: bytes | None = None, **more: Any) -> ScoringEndpoint:
    folder.mkdir(exist_ok=True)
    settings = {"endpoint": served.url, "model": "big", "prompt_logprobs": K, "max_answer": SMALL["max_answer"], **more}
    (folder / "endpoint.json").write_text(json.dumps(settings), encoding="utf-8")
    content = served.model.preparation.tokens.files["tokenizer.json"] if tokenizer is None else tokenizer
    (folder / "tokenizer.json").write_bytes(content)
    made = load_catalogue().make("loader", "openai", folder=folder)
    assert isinstance(made, ScoringEndpoint)
    return made


def compute(teacher: SignalSource, folder: Path) -> dict[str, torch.Tensor]:
    chosen = samples(folder)
    return dict(teacher.compute([teacher.prepare(image, s) for image, s in zip(PICTURES, chosen, strict=True)]))


def test_signals_equal_those_of_the_model_opened_here(served: LocalVllm, tmp_path: Path) -> None:
    teacher = load(tmp_path / "t", served, key_variable="SECRET")
    assert isinstance(teacher, SignalSource | Served | ChecksAnswers | SplitsAnswers)
    found = compute(teacher, tmp_path)
    local = compute(GeneratingTeacher(make(seed=4, **{**LARGE, "max_answer": SMALL["max_answer"]}), k=K), tmp_path)
    for name in ("tokens", "topk_ids"):
        assert torch.equal(found[name], local[name]), name
    torch.testing.assert_close(found["topk"].float(), local["topk"], atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(found["tail"][..., 1].float(), local["tail"][..., 1], atol=1e-2, rtol=1e-3)
    assert found["tail"].shape == local["tail"].shape
    body = served.requests[-2]
    assert (body["max_tokens"], body["prompt_logprobs"], body["return_token_ids"]) == (1, K, True)
    assert body["add_generation_prompt"] is False
    assert set(served.keys) == {f"Bearer {KEY}"}


def test_token_losses_read_them(served: LocalVllm, tmp_path: Path) -> None:
    """The served model itself has nothing to learn from them; another one has."""
    found = compute(load(tmp_path / "t", served), tmp_path)
    signals = {name: x.float() if x.is_floating_point() else x for name, x in found.items()}
    view = TeacherView("served", torch.ones(3), signals, {})
    for student, least, most in ((make(seed=4), 0.0, 2e-3), (make(seed=1), 0.1, 100.0)):
        outputs = student(stacked(student, samples(tmp_path)))
        value = float(TokenDistillation()(LossInput(outputs, (view,), torch.zeros(3, dtype=torch.long))).detach())
        assert least <= value + 1e-6 <= most


def test_it_can_be_added_and_has_the_students_tokens(served: LocalVllm, tmp_path: Path, model: ClinkdStudent) -> None:
    teacher = load(tmp_path / "t", served)
    assert probe(teacher, "teacher").signals["topk"].shape == (SMALL["max_answer"], K)
    assert teacher.identity()["tokenizer"] == model.identity()["tokenizer"]
    chosen = sample("the lung")
    assert teacher.answer_tokens(chosen) == model.answer_tokens(chosen)
    for changed in ({"prompt_logprobs": K + 1}, {"end_token": "<|endoftext|>"}):
        assert load(tmp_path / "t", served, **changed).identity() != teacher.identity()


def test_the_canary_passes_the_same_model_and_its_noise(served: LocalVllm, tmp_path: Path) -> None:
    teacher = load(tmp_path / "t", served)
    stored = json.loads(json.dumps(teacher.canary()))

    def noisy(reply: Reply) -> Reply:
        for number, row in enumerate(reply["prompt_logprobs"][1:]):
            for entry in row.values():
                entry["logprob"] -= 0.02 * (number % 3)
        return reply

    served.change = noisy
    teacher.require_same(stored)
    load(tmp_path / "t", served).require_same(stored)
    assert KEY not in json.dumps(stored)
    assert served.url not in json.dumps(stored)
    with raises_error("KD-LOAD-567", mentions=("scores",)) as caught:
        teacher.require_same({"model": "big", "system": ""})
    assert "canary.json" in caught.value.fix
    with raises_error("KD-LOAD-567", mentions=("unequal",)):
        teacher.require_same({**stored, "scores": {**stored["scores"], "top": stored["scores"]["top"][:-1]}})


def test_another_model_between_calls_is_noticed(served: LocalVllm, tmp_path: Path, other: ClinkdStudent) -> None:
    teacher = load(tmp_path / "t", served)
    compute(teacher, tmp_path)
    stored = teacher.canary()
    served.model = other
    with raises_error("KD-LOAD-563", mentions=("since this command began",), code=ExitCode.FOUND):
        compute(teacher, tmp_path)
    with raises_error("KD-LOAD-563", mentions=("since its features were computed",)) as caught:
        load(tmp_path / "t", served).require_same(stored)
    assert "revision" in caught.value.fix


def test_another_model_within_a_call_returns_no_rows(served: LocalVllm, tmp_path: Path, other: ClinkdStudent) -> None:
    def exchange(number: int) -> None:
        if number == 4:  # two canaries, one sample, then this one
            served.model = other

    served.before = exchange
    with raises_error("KD-LOAD-563"):
        compute(load(tmp_path / "t", served, parallel=1), tmp_path)


def test_another_name_of_the_model_is_noticed(served: LocalVllm, tmp_path: Path) -> None:
    teacher = load(tmp_path / "t", served)
    teacher.canary()
    served.name = "small"
    with raises_error("KD-LOAD-563", mentions=("'big'", "'small'")):
        compute(teacher, tmp_path)


def without(key: str, reply: Reply) -> Reply:
    return {**reply, key: None}


def fewer(reply: Reply) -> Reply:
    rows = [row and dict(list(row.items())[:2]) for row in reply["prompt_logprobs"]]
    return {**reply, "prompt_logprobs": rows}


def no_images(reply: Reply) -> Reply:
    """As by a template that drops them: no image tokens."""
    pad = make().preparation.image_token
    kept = [number for number, token in enumerate(reply["prompt_token_ids"]) if token != pad]
    return {**reply, **{name: [reply[name][i] for i in kept] for name in ("prompt_token_ids", "prompt_logprobs")}}


def shifted(reply: Reply) -> Reply:
    """Rows of the token before."""
    return {**reply, "prompt_logprobs": [None, *reply["prompt_logprobs"][:-1]]}


def short(reply: Reply) -> Reply:
    return {**reply, "prompt_logprobs": reply["prompt_logprobs"][1:]}


@pytest.mark.parametrize(
    ("change", "mention"),
    [
        (lambda reply: without("prompt_logprobs", reply), "no prompt_logprobs"),
        (lambda reply: without("prompt_token_ids", reply), "no prompt_token_ids"),
        (fewer, "instead of 5"),
        (no_images, "0 of 1 images"),
        (shifted, "lacks its own token"),
        (short, "rows of prompt_logprobs for"),
    ],
)
def test_replies_that_cannot_be_used_end_at_once(served: LocalVllm, tmp_path: Path, change: Any, mention: str) -> None:
    served.change = change
    with raises_error("KD-LOAD-564", mentions=(mention,), code=ExitCode.FOUND):
        load(tmp_path / "t", served).canary()
    assert len(served.requests) == 1, "no other try would help"


def test_a_server_with_blind_images_is_refused(served: LocalVllm, tmp_path: Path) -> None:
    first: list[Reply] = []

    def blind(reply: Reply) -> Reply:
        first.append(reply)
        return first[0]

    served.change = blind
    with raises_error("KD-LOAD-562", mentions=("same log-probabilities",)):
        load(tmp_path / "t", served).canary()


def test_another_tokenization_is_refused(served: LocalVllm, tmp_path: Path) -> None:
    """The folder's tokenizer.json is of another model: one without the words that the served one has as tokens."""
    content = make(sizes={"hidden": 32, "heads": 2, "kv_heads": 1, "words": []}).preparation.tokens.files
    teacher = load(tmp_path / "t", served, content["tokenizer.json"])
    with raises_error("KD-LOAD-564", mentions=("does not end with the answer's tokens",)) as caught:
        compute(teacher, tmp_path)
    assert "tokenizer.json" in caught.value.fix


def test_the_servers_limit_of_log_probabilities_is_told(served: LocalVllm, tmp_path: Path) -> None:
    with raises_error("KD-LOAD-565", mentions=("64", "max allowed: 20")) as caught:
        load(tmp_path / "t", served, prompt_logprobs=64).canary()
    assert "--max-logprobs 64" in caught.value.fix


def test_faults_are_retried_and_keys_are_never_shown(served: LocalVllm, tmp_path: Path) -> None:
    teacher = load(tmp_path / "t", served, key_variable="SECRET", tries=3)
    served.faults += [503, 429]
    with pytest.warns(UserWarning, match="2 requests repeated"):
        teacher.canary()
    served.faults += [401]
    with raises_error("KD-LOAD-006") as caught:
        compute(teacher, tmp_path)
    assert KEY not in str(caught.value) + caught.value.why


def test_probabilities_above_one_are_no_reply(served: LocalVllm, tmp_path: Path) -> None:
    def large(reply: Reply) -> Reply:
        for row in reply["prompt_logprobs"][1:]:
            for entry in row.values():
                entry["logprob"] = -0.1
        return reply

    served.change = large
    with raises_error("KD-LOAD-005", mentions=("invalid reply",)):
        load(tmp_path / "t", served, tries=2).canary()


def test_settings_and_answers_that_do_not_fit(served: LocalVllm, tmp_path: Path) -> None:
    with raises_error("KD-LOAD-008", mentions=("exclude",)):
        load(tmp_path / "t", served, top_logprobs=5)
    with raises_error("KD-LOAD-560") as caught:
        load(tmp_path / "t", served, b"{}")
    assert "tokenizer.json" in caught.value.fix
    with raises_error("KD-LOAD-561", mentions=("'<end_of_turn>'",)) as caught:
        load(tmp_path / "t", served, end_token="<end_of_turn>")
    assert "'end_token'" in caught.value.fix
    teacher = load(tmp_path / "t", served)
    for text in ("x" * 50, "a<|im_end|>b"):
        with raises_error("KD-LOAD-566"):
            teacher.check_answer(sample(text))
        assert teacher.answer_tokens(sample(text)) is None
    teacher.check_answer(sample("the lung"))
