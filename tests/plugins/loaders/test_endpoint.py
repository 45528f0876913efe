"""A teacher behind a real server on the loopback interface: what is asked, what is read, and what goes wrong."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Answering, Decoding, Sample, SignalSource
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.registry.lock import LockedTeacher
from kdkit.core.teachers.add import add_teacher, lock_teachers
from kdkit.core.teachers.open import open_teacher, verify
from kdkit.core.teachers.probe import probe
from kdkit.plugins.loaders import endpoint_requests
from kdkit.plugins.loaders.endpoint import EndpointTeacher
from kdkit.testing.endpoint import Fault, LocalEndpoint, local_endpoint
from tests.core.distill.test_generating import generating_project
from tests.errors import raises_error

KEY = "sk-very-secret"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEndpoint]:
    """Says the last text that it was sent, with a probability of one half each token."""
    monkeypatch.setattr(endpoint_requests, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("SECRET", KEY)
    with local_endpoint(lambda body: [(f" you said {words(body)} ", [-0.5, -0.25])] * body.get("n", 1)) as running:
        yield running


def words(body: Mapping[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else next((p["text"] for p in content if p["type"] == "text"), "nothing")


def teacher(folder: Path, url: str, **more: object) -> EndpointTeacher:
    (folder / "endpoint.json").write_text(json.dumps({"endpoint": url, "model": "big", **more}), encoding="utf-8")
    made = load_catalogue().make("loader", "openai", folder=folder)
    assert isinstance(made, EndpointTeacher)
    return made


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (5, 3), (shade, 2 * shade, 7))


def sample(name: str = "s", *messages: tuple[str, str], images: Sequence[Path] = ()) -> Sample:
    told = [{"role": role, "content": content} for role, content in messages]
    extra = {**({"messages": told} if told else {}), **({"images": list(images)} if images else {})}
    return Sample(id=name, image=Path("x.png"), text="", domain="vqa/ct", extra=extra)


def test_what_is_asked(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, key_variable="SECRET", system="Be brief.", question="What is it?")
    picture(2).save(tmp_path / "second.png")
    talk = sample("b", ("user", "<image> or <image>"), ("assistant", "Which?"), ("user", "The second"),
                  images=[tmp_path / "second.png"])  # fmt: skip
    (plain,), (talked,) = made.answer([picture(1), picture(1)], [sample("a"), talk])
    assert (plain.text, plain.ids, plain.log_probs) == ("you said What is it?", (), ())
    assert talked.text == "you said The second"
    first, second = sorted(endpoint.requests, key=lambda body: len(body["messages"]))
    assert first["model"] == "big"
    assert (first["temperature"], first["max_tokens"]) == (0.0, 128)
    assert not {"n", "logprobs", "seed"} & set(first)
    assert first["messages"][0] == {"role": "system", "content": "Be brief."}
    parts = second["messages"][1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text", "image_url"]
    pixels = [Image.open(io.BytesIO(base64.b64decode(parts[i]["image_url"]["url"].partition(",")[2]))) for i in (0, 2)]
    assert [image.tobytes() for image in pixels] == [picture(1).tobytes(), picture(2).tobytes()]
    assert endpoint.keys == [f"Bearer {KEY}"] * 2


def test_log_probabilities_and_drawn_answers(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url)
    decoding = Decoding(samples=3, temperature=0.7, top_p=0.9, seed=5, scored=True)
    (answers,) = made.answer([picture(1)], [sample()], decoding)
    assert [answer.log_probs for answer in answers] == [(-0.5, -0.25)] * 3
    assert answers[0].confidence == pytest.approx((0.60653066 + 0.77880078) / 2)
    (body,) = endpoint.requests
    assert {name: body[name] for name in ("n", "temperature", "top_p", "seed", "logprobs")} == {
        "n": 3, "temperature": 0.7, "top_p": 0.9, "seed": 5, "logprobs": True}  # fmt: skip
    assert endpoint.keys == [None]
    endpoint.answer = lambda body: [(f"seed {body['seed']}", [])]  # knows neither n nor log-probabilities
    (answers,) = made.answer([picture(1)], [sample()], decoding)
    assert [answer.text for answer in answers] == ["seed 5", "seed 6", "seed 7"]
    assert answers[0].confidence is None


def test_boxes_of_a_served_model_are_translated(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, boxes="qwen2.5-vl", min_pixels=784, max_pixels=280 * 280)
    asked = sample("b", ("user", "<image>Is it <box>(100,500),(200,1000)</box>?"))
    asked = replace(asked, extra={**asked.extra, "box_family": "qwen-vl"})
    endpoint.answer = lambda _: [('[{"bbox_2d": [28, 28, 56, 56]}]', [])]
    ((answer,),) = made.answer([Image.new("RGB", (600, 300))], [asked])  # seen as 392 x 196
    (body,) = endpoint.requests
    assert body["messages"][-1]["content"][1]["text"] == 'Is it [{"bbox_2d": [39, 98, 78, 196]}]?'
    assert answer.text == "<box>(71,143),(143,286)</box>"
    with raises_error("KD-LOAD-016", mentions=("'qwen'",)):
        teacher(tmp_path, endpoint.url, boxes="qwen")


def test_faults_are_tried_again_and_counted(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, parallel=1, tries=7)
    endpoint.headers = {"Retry-After": "0"}
    endpoint.faults += [429, 503, "garbage", "shape", "cut", 429]
    with pytest.warns(UserWarning, match=r"6 requests repeated: 2 x status 429, 1 x status 503, 1 x garbage"):
        (answers,) = made.answer([picture(1)], [sample()])
    assert answers[0].text == "you said Describe this image."
    assert len(endpoint.requests) == 7


def test_a_server_that_hangs_is_asked_again(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, parallel=1, timeout=0.5, tries=100)  # on a busy machine it seems to hang
    endpoint.faults += ["hang"]
    with pytest.warns(UserWarning, match=r"requests? repeated: .*timeout"):
        (answers,) = made.answer([picture(1)], [sample()])
    assert answers[0].text == "you said Describe this image."


def test_who_interrupts_does_not_wait_for_a_server_that_hangs(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, parallel=3, timeout=100, tries=9)
    endpoint.faults += ["hang"] * 3

    def interrupt() -> None:
        while len(endpoint.requests) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        made.answer([picture(n) for n in range(6)], [sample(str(n)) for n in range(6)])
    assert time.monotonic() - begun < 50
    assert len(endpoint.requests) == 3


def test_it_gives_up_in_the_end(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, parallel=1, tries=3)
    endpoint.faults += [429, 429, 500]
    with raises_error("KD-LOAD-005", mentions=("3",)) as caught:
        made.answer([picture(1)], [sample()])
    assert (caught.value.why, caught.value.code) == ("2 x status 429, 1 x status 500", ExitCode.MISSING)
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("fault", "code"), [(401, ExitCode.DENIED), (400, ExitCode.MISSING), ("redirect", ExitCode.MISSING)]
)
def test_a_refusal_is_final_and_does_not_tell_the_key(
    endpoint: LocalEndpoint, tmp_path: Path, fault: Fault, code: ExitCode
) -> None:
    made = teacher(tmp_path, endpoint.url, key_variable="SECRET", parallel=1)
    endpoint.faults.append(fault)
    with raises_error("KD-LOAD-006", mentions=("refuses",)) as caught:
        made.answer([picture(1)], [sample()])
    assert caught.value.code is code
    assert KEY not in f"{caught.value.headline} {caught.value.why} {caught.value.fix}"
    assert len(endpoint.requests) == 1


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_requests, "FIRST_WAIT", 0.001)
    with local_endpoint(lambda _: []) as gone:
        pass
    with raises_error("KD-LOAD-005") as caught:
        teacher(tmp_path, gone.url, tries=2).answer([picture(1)], [sample()])
    assert caught.value.why == "2 x ConnectionRefusedError"


def test_it_is_a_teacher_without_signals(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, key_variable="SECRET")
    assert isinstance(made, SignalSource)
    assert isinstance(made, Answering)
    assert probe(made, "teacher") == {}
    assert len(endpoint.requests) == 1
    assert "127.0.0.1" not in str(made.identity())  # the lock is published with a student
    endpoint.faults.append(404)
    with raises_error("KD-LOAD-006", mentions=("404",)):
        probe(made, "teacher")


def test_how_it_is_asked_makes_no_other_teacher(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    project = generating_project(tmp_path / "p")
    folder = project.root / "models" / "remote"
    folder.mkdir(parents=True)
    teacher(folder, endpoint.url)
    first = add_teacher(project, "remote", {"from": "local:models/remote", "license": "mit"})

    def locked(url: str = endpoint.url, **more: object) -> LockedTeacher:
        teacher(folder, url, **more)
        with raises_error("KD-TEACH-008", where="registry.yaml:4", mentions=("'endpoint.json'",)):
            verify(project.reloaded(), "remote")
        return lock_teachers(project, ["remote"])["remote"]

    elsewhere = endpoint.url.replace("127.0.0.1", "localhost")
    how = {"tries": 9, "timeout": 9.5, "parallel": 1, "key_variable": "SECRET", "max_answer": 9, "min_pixels": 9}
    moved = locked(elsewhere, **how)
    assert moved.files != first.files
    assert moved.fingerprint == first.fingerprint
    assert open_teacher(project.reloaded(), "remote").fingerprint == first.fingerprint
    what = ({"model": "b"}, {"revision": "b"}, {"question": "b"}, {"system": "b"}, {"boxes": "qwen2.5-vl"},
            {"boxes": "qwen2.5-vl", "min_pixels": 9})  # fmt: skip
    assert len({first.fingerprint, *(locked(**other).fingerprint for other in what)}) == 1 + len(what)
    assert not {elsewhere, "SECRET", "Describe this image."} & set(moved.identity.values())


def test_what_is_stored_of_answers_is_part_of_the_teacher(tmp_path: Path) -> None:
    fields = [{"top_logprobs": 0}, {"top_logprobs": 5}, {"top_logprobs": 6}, {"top_logprobs": 5, "max_answer": 9}]
    told = [teacher(tmp_path, "http://127.0.0.1/v1", **more).identity() for more in fields]
    assert [one.get("stored") for one in told] == [
        None, "5 alternatives of 256 tokens", "6 alternatives of 256 tokens", "5 alternatives of 9 tokens"
    ]  # fmt: skip


def test_what_cannot_be_asked(endpoint: LocalEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = teacher(tmp_path, endpoint.url, key_variable="SECRET")
    with raises_error("KD-LOAD-001"):
        made.answer([picture(1)], [sample()], Decoding(beams=2))
    with raises_error("KD-LOAD-004", mentions=("0", "1")):
        made.answer([picture(1)], [sample("s", ("user", "no mark"))])
    monkeypatch.delenv("SECRET")
    with raises_error("KD-LOAD-002"):
        made.answer([picture(1)], [sample()])
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ('{"model": "m"}', "an object with endpoint and model"),
        ('{"endpoint": "http://x/v1", "model": "m", "key": "sk"}', "unknown key 'key'"),
        ('{"endpoint": "file:///etc/passwd", "model": "m"}', "not an address"),
        ('{"endpoint": "http://user:pass@x/v1", "model": "m"}', "holds a password"),
        ('{"endpoint": "http://x/v1", "model": "m", "tries": 0}', "below 1"),
        ('{"endpoint": "http://x/v1", "model": "m", "tries": "2"}', "tries must be int"),
    ],
)
def test_wrong_files(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "endpoint.json").write_text(content, encoding="utf-8")
    with pytest.raises(KdkitError, match=said):
        load_catalogue().make("loader", "openai", folder=tmp_path)


def test_an_address_from_elsewhere_is_not_asked(
    endpoint: LocalEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever publishes a folder could name any address and any variable of the environment."""
    package = tmp_path / "kdkit_elsewhere"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").touch()
    teacher(package / "weights", endpoint.url, key_variable="SECRET")
    monkeypatch.syspath_prepend(str(tmp_path))
    project = generating_project(tmp_path / "p")
    with raises_error("KD-TEACH-006") as caught:
        add_teacher(project, "remote", {"from": "package:kdkit_elsewhere/weights", "license": "mit"})
    assert endpoint.requests == []
    assert caught.value.code is ExitCode.DENIED
    assert project.registry.teachers == {}
