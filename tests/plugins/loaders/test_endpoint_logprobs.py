"""Log-probabilities of served answers become the signals that the served model itself would give."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdkit.core.contracts import TOP_LOGPROBS, Answer, Decoding, LossInput, Sample, Silent, TeacherView
from kdkit.core.contracts.tail_mass import tail_of
from kdkit.core.contracts.token_signals import compress
from kdkit.core.data import load_index
from kdkit.core.distill.plan.inventory import take_inventory
from kdkit.core.distill.plan.plan import make_plan
from kdkit.core.distill.pseudo_labels.label import write_pseudo_labels
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.missing import extract_missing, live_devices
from kdkit.core.features.extract.status import column_statuses
from kdkit.core.project.project import Project
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.project.registry.lock import Lock
from kdkit.core.teachers.add import add_teacher
from kdkit.plugins.loaders import endpoint_client
from kdkit.plugins.loaders.endpoint import EndpointTeacher
from kdkit.plugins.loaders.endpoint_folder import load_endpoint
from kdkit.plugins.loaders.endpoint_logprobs import UNKNOWN_TOKEN, Vocabulary, logprob_signals, parse_logprobs
from kdkit.plugins.loaders.generating import GeneratingTeacher
from kdkit.plugins.losses.tokens.losses import TokenDistillation, UniversalLogitDistillation
from kdkit.plugins.losses.tokens.signals import at_temperature
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.core.distill.building import build_plan
from tests.errors import raises_error
from tests.local_endpoint import LocalEndpoint, local_endpoint
from tests.plugins.students.clinkd.tiny import SIZES, SMALL, answer_logits, make, picture, sample

K = 5
TEXT = "the lung ß"
IMAGE = picture(60, 90)


class Served:
    """A tiny model behind the protocol: one fixed answer with the log-probabilities of its tokens."""

    def __init__(self, text: str = TEXT, *, ended: bool = True) -> None:
        self.model, self.text = make(seed=4), text
        tokens = self.model.preparation.tokens
        self.tokenizer = tokens.files["tokenizer.json"]
        special = tokens._tokenizer.get_added_tokens_decoder()
        letters = tokens._tokenizer.get_vocab(with_added_tokens=False)
        self.bytes = {number: token.content.encode() for number, token in special.items()}
        self.bytes |= {number: bytes(map(_byte, token)) for token, number in letters.items()}
        inputs = self.model.prepare(IMAGE, sample(text))
        ids = inputs["answer_ids"]
        self.ids = ids[ids >= 0][: None if ended else -1]
        logits = answer_logits(self.model, {name: x[None] for name, x in inputs.items()})[0, : len(self.ids)]
        self.logits: Tensor = logits[:, : len(tokens)]

    def tokens(self) -> list[dict[str, Any]]:
        """As a server that returns bytes."""
        log_p = self.logits.log_softmax(-1)
        top = log_p.topk(K, dim=-1)
        return [
            {**self._token(int(token), row[token]), "top_logprobs": [self._token(int(i), row[i]) for i in ids]}
            for token, row, ids in zip(self.ids, log_p, top.indices, strict=True)
        ]

    def _token(self, token: int, log_p: Tensor) -> dict[str, Any]:
        content = self.bytes[token]
        return {"token": content.decode(errors="replace"), "bytes": list(content), "logprob": float(log_p)}

    def choice(self) -> dict[str, Any]:
        return {"message": {"content": self.text}, "logprobs": {"content": self.tokens()}}


def _byte(letter: str) -> int:
    """As transformers has it."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters: dict[int, str] = bytes_to_unicode()
    return next(byte for byte, other in letters.items() if other == letter)


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


@pytest.fixture(scope="module")
def vocabulary(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    path = tmp_path_factory.mktemp("v") / "tokenizer.json"
    path.write_bytes(served.tokenizer)
    return Vocabulary(path)


def row_of(parsed: dict[str, Any] | str, length: int = 20) -> dict[str, Tensor]:
    assert isinstance(parsed, dict)
    return logprob_signals(json.loads(json.dumps(parsed)), length, K)


@pytest.mark.parametrize("ended", [True, False])
def test_signals_with_a_vocabulary_equal_those_of_the_model(vocabulary: Vocabulary, ended: bool) -> None:
    served = Served(ended=ended)
    row, count = row_of(parse_logprobs(served.choice(), K, vocabulary)), len(served.ids)
    assert row["tokens"][:count].tolist() == served.ids.tolist()
    assert bool((row["tokens"][count:] == -100).all())
    exact = compress(served.logits.double(), K)
    assert torch.equal(row["topk_ids"][:count], exact.ids)
    torch.testing.assert_close(row["topk"][:count].double(), exact.log_p, atol=4e-3, rtol=1e-3)
    torch.testing.assert_close(row["tail"][:count, 1].double(), exact.tail[:, 1], atol=4e-3, rtol=1e-3)
    assert bool((row["tail"][:count, 0].double() >= exact.tail[:, 0] - 1e-2).all()), "a bound from above"


def test_tail_at_temperature_one_half_is_an_upper_bound() -> None:
    logits = torch.randn(500, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    exact = compress(logits, K)
    tail = tail_of(exact.log_p)
    torch.testing.assert_close(tail[:, 1], exact.tail[:, 1])
    assert bool((tail[:, 0] >= exact.tail[:, 0] - 1e-12).all())
    assert float((at_temperature(exact.log_p, tail, 1.0).exp().sum(-1) - 1).abs().max()) < 1e-9
    with raises_error("KD-LOSS-006", mentions=("2",)):
        at_temperature(exact.log_p, tail, 2.0)


def test_token_losses_read_the_signals(served: Served, vocabulary: Vocabulary) -> None:
    """The served model has a loss near zero; without a vocabulary only ``uld`` can compare."""

    def found(loss: Any, student: ClinkdStudent, row: Mapping[str, Tensor]) -> float:
        inputs = {name: x[None] for name, x in student.prepare(IMAGE, sample(TEXT)).items()}
        view = TeacherView("t", torch.ones(1), {name: x[None] for name, x in row.items()}, {})
        return float(loss(LossInput(student(inputs), (view,), torch.zeros(1, dtype=torch.int64))).detach())

    known, unknown = (row_of(parse_logprobs(served.choice(), K, v)) for v in (vocabulary, None))
    assert set(unknown["tokens"][: len(served.ids)].tolist()) == {UNKNOWN_TOKEN}
    other = make(seed=5)
    for loss in (TokenDistillation(), UniversalLogitDistillation()):
        assert found(loss, served.model, known) < 1e-3 < 0.02 < found(loss, other, known)
    assert found(UniversalLogitDistillation(), other, unknown) == found(UniversalLogitDistillation(), other, known)
    with raises_error("KD-LOSS-002"):
        found(TokenDistillation(), other, unknown)


def changed(served: Served, place: int, **token: Any) -> dict[str, Any]:
    choice = served.choice()
    choice["logprobs"]["content"][place] |= token
    return choice


def test_unusable_log_probabilities_give_a_reason_or_an_error(served: Served, vocabulary: Vocabulary) -> None:
    short = changed(served, 1)
    short["logprobs"]["content"][1]["top_logprobs"].pop()
    cases = [
        ({**served.choice(), "logprobs": None}, "no log-probabilities"),
        (changed(served, 0, top_logprobs=[]), "no alternatives"),
        (changed(served, 0, bytes=list(b"This")), "tokens differ from the text"),
        (short, "fewer than 5 alternatives"),
        ({**served.choice(), "message": {"content": f"{TEXT} "}}, "tokens differ from the text"),
    ]
    for choice, why in cases:
        assert parse_logprobs(choice, K, vocabulary) == why
    broken = {"top_logprobs": [{"token": "a", "logprob": float("nan")}] * K}
    for wrong in (broken, {"top_logprobs": [{"token": "a", "logprob": log(0.5)}] * K}, {"top_logprobs": [1]},
                  {"top_logprobs": [{"token": "a", "logprob": 1e9}] * K}):  # fmt: skip
        with pytest.raises((ValueError, AttributeError)):
            parse_logprobs(changed(served, 0, **wrong), K, vocabulary)


def test_a_different_tokenization_needs_a_loss_without_ids(served: Served, vocabulary: Vocabulary) -> None:
    first = served.choice()["logprobs"]["content"][0]
    assert bytes(first["bytes"]) == b"the"
    pieces = [{**first, "bytes": list(piece)} for piece in (b"t", b"he")]
    choice = served.choice()
    choice["logprobs"]["content"][:1] = pieces
    assert isinstance(parse_logprobs(choice, K, vocabulary), str)
    assert isinstance(parse_logprobs(choice, K, None), dict)


def test_tokens_with_an_unknown_alternative_are_marked_as_missing(served: Served, vocabulary: Vocabulary) -> None:
    choice = changed(served, 1)
    choice["logprobs"]["content"][1]["top_logprobs"][2]["bytes"] = list(b"no such token")
    row = row_of(parse_logprobs(choice, K, vocabulary))
    assert (row["tokens"] >= 0).tolist()[: len(served.ids)] == [place != 1 for place in range(len(served.ids))]


def test_unusable_tokenizer_files(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, "a")).save(str(tmp_path / "tokenizer.json"))
    with raises_error("KD-LOAD-018"):
        Vocabulary(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with raises_error("KD-LOAD-017"):
        Vocabulary(tmp_path / "tokenizer.json")


# ---------------------------------------------------------------------------------- in a project


@pytest.fixture
def running(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEndpoint]:
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.001)
    with local_endpoint(lambda _: [(TEXT, served.tokens())]) as endpoint:
        yield endpoint


def teacher(folder: Path, endpoint: LocalEndpoint, served: Served, **more: object) -> EndpointTeacher:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"endpoint": endpoint.url, "model": "big", "top_logprobs": K, "max_answer": 20, **more}
    (folder / "endpoint.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(served.tokenizer)
    return load_endpoint(folder)


def test_log_probabilities_are_requested_with_scored_answers_only(
    running: LocalEndpoint, served: Served, tmp_path: Path
) -> None:
    made = teacher(tmp_path, running, served)
    asked = sample("")
    assert made.answer([IMAGE], [asked]) == [[Answer(TEXT)]]
    ((answer,),) = made.answer([IMAGE], [asked], Decoding(scored=True))
    assert [body.get("top_logprobs") for body in running.requests] == [None, K]
    assert answer.top_logprobs is not None
    assert answer.confidence == pytest.approx(
        float(served.logits.softmax(-1)[range(len(served.ids)), served.ids].mean())
    )
    running.answer = lambda _: [(TEXT, [-0.5])]
    with pytest.warns(UserWarning, match="1 x no alternatives"):
        ((answer,),) = made.answer([IMAGE], [asked], Decoding(scored=True))
    assert (answer.top_logprobs, answer.log_probs) == (None, (-0.5,))
    for name, value in (("top_logprobs", -1), ("top_logprobs", 21), ("max_answer", 0)):
        with raises_error("KD-LOAD-008", mentions=(name,)):
            teacher(tmp_path, running, served, **{name: value})


RECIPE = """\
name: served
summary: answers and their log-probabilities
losses:
  - {name: answer-ce, weight: 1.0}
  - {name: token-kd, weight: 1.0}
trust: {policy: all}
optimizer: {lr: 0.01, batch_size: 2, steps: 2}
"""


def folder(root: Path, endpoint: LocalEndpoint, served: Served) -> Project:
    """Two open questions, and two answered ones for evaluation."""
    root.mkdir()
    rows = []
    for number, split in enumerate(("train", "train", "calibration", "test")):
        IMAGE.save(root / f"{number}.png")
        extra = {"task": "vqa", "messages": [{"role": "user", "content": f"<image>Where is the lung? {number}"}]}
        row = {"id": f"q{number}", "image": f"{number}.png", "domain": "vqa/ct", "split": split, "extra": extra}
        rows.append(json.dumps(row | ({} if split == "train" else {"text": "the box"})) + "\n")
    (root / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    student = json.dumps({"family": "clinkd", "config": {"sizes": SIZES, **SMALL}})
    registry = f"version: 1\nstudent: {student}\nteachers: {{}}\ndata:\n  - {{source: jsonl, path: rows.jsonl}}\n"
    (root / "served.yaml").write_text(RECIPE, encoding="utf-8")
    (root / "registry.yaml").write_text(f"{registry}recipe: ./served.yaml\n", encoding="utf-8")
    teacher(root / "models" / "remote", endpoint, served)
    add_teacher(Project(root), "remote", {"from": "local:models/remote", "license": "mit"})
    return Project(root)


def with_labels(project: Project) -> Project:
    done = write_pseudo_labels(project, "remote", project.root / "labels.jsonl")
    assert done.kept == {"vqa/ct": 2}
    path = project.registry_path
    entry = f"data:\n  - {{source: jsonl, path: {done.file}, options: {{image_root: {done.image_root}}}}}\n"
    path.write_text(path.read_text(encoding="utf-8").replace("data:\n", entry), encoding="utf-8")
    return Project(project.root)


def test_pseudo_labels_teach_with_their_log_probabilities(
    running: LocalEndpoint, served: Served, tmp_path: Path
) -> None:
    project = folder(tmp_path / "p", running, served)
    assert extract_missing(project, load_index(project))[0].new == 0, "no signals for the data's own answers"
    project = with_labels(project)
    asked = len(running.requests)
    recipe = load_recipe("./served.yaml", project.catalogue, project.root)
    found = take_inventory(project, recipe, load_index(project), lambda _: None, device="cpu", reporter=Silent())
    assert len(running.requests) == asked, "the signals came with the answers"
    (status,) = column_statuses(project, found.index)
    assert (status.rows, status.complete, status.domains) == (2, True, {"vqa/ct": (2, 2)})
    plan = make_plan(recipe, found, None, {}, seed=0)
    made = build_plan(project, plan, found, None, Silent())
    (teaching,) = made.targets
    rows = found.rows("train")
    stored = teaching.load(rows, teaching.weight[rows])
    exact = GeneratingTeacher(served.model, k=K)
    model = exact.compute([exact.prepare(IMAGE, found.index.samples[row]) for row in rows])
    assert torch.equal(stored["tokens"], model["tokens"]), "of the answer, in the student's own tokens"
    assert stored["topk"].shape == model["topk"].shape
    batch = made.inputs.batch(rows)
    assert torch.equal(batch["answer_ids"], stored["tokens"].long())
    out = made.task(
        batch, {"remote": stored}, {"remote": torch.ones(len(rows))}, torch.zeros(len(rows), dtype=torch.int64)
    )
    assert float(out["token-kd"]) > 0.01


def test_adding_the_teacher_sends_one_request_and_it_cannot_be_live(
    running: LocalEndpoint, served: Served, tmp_path: Path
) -> None:
    project = folder(tmp_path / "p", running, served)
    assert len(running.requests) == 1
    assert set(Lock.load(project.lock_path).teacher("remote").signals) == {"tokens", "topk_ids", "topk", "tail"}
    assert live_devices(project.registry, project.lock) == {}
    path = project.registry_path
    text = path.read_text(encoding="utf-8").replace("license: mit", "license: mit\n    signals: live")
    path.write_text(text, encoding="utf-8")
    with raises_error("KD-FEAT-006"):
        live_devices(project.reloaded().registry, project.reloaded().lock)


def test_edited_answers_get_no_row(running: LocalEndpoint, served: Served, tmp_path: Path) -> None:
    project = folder(tmp_path / "p", running, served)
    extract_missing(project, load_index(project))
    project = with_labels(project)
    labels = project.root / "labels.jsonl"
    first, second = labels.read_text(encoding="utf-8").splitlines(keepends=True)
    labels.write_text(first.replace('"text": "the lung', '"text": "the box') + second, encoding="utf-8")
    table = load_index(project)
    (done,) = extract_missing(project, table)
    assert (done.new, [sample.text for sample in table.samples][:2]) == (1, ["the box ß", TEXT])
    column = FeatureStore(project.features).column("remote")
    assert (column.locate(table) >= 0).tolist() == [False, True, False, False, False, False]


def test_other_texts_get_no_signal(running: LocalEndpoint, served: Served, tmp_path: Path) -> None:
    made = teacher(tmp_path, running, served)
    parsed = parse_logprobs(served.choice(), K, None)
    for text, tokens in ((TEXT, len(served.ids)), ("the box", 0)):
        item = made.prepare(IMAGE, Sample("s", Path("x.png"), text, "vqa/ct", extra={TOP_LOGPROBS: parsed}))
        assert int((made.compute([item])["tokens"] >= 0).sum()) == tokens
