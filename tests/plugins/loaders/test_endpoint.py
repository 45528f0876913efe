"""A teacher behind a real server on the loopback interface: requests, replies and faults."""

from __future__ import annotations

import asyncio
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

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import Answer, Answering, Decoding, Sample, SignalSource
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.registry.lock import LockedTeacher
from kdkit.core.teachers.add import add_teacher, lock_teachers
from kdkit.core.teachers.open import open_teacher, verify
from kdkit.core.teachers.probe import probe
from kdkit.plugins.loaders import endpoint_client
from kdkit.plugins.loaders.endpoint import EndpointTeacher
from tests.errors import raises_error
from tests.journeys.test_generating_student import generating_project
from tests.local_endpoint import Fault, LocalEndpoint, Reply, local_endpoint

KEY = "sk-very-secret"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEndpoint]:
    """Repeats the last text of a request."""
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("SECRET", KEY)
    with local_endpoint(lambda body: [(f" {words(body)} ", [-0.5, -0.25])] * body.get("n", 1)) as running:
        yield running


def words(body: Mapping[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else next((p["text"] for p in content if p["type"] == "text"), "nothing")


def teacher(folder: Path, url: str, **more: object) -> EndpointTeacher:
    (folder / "endpoint.json").write_text(
        json.dumps({"endpoint": url, "model": "big", "question": "Where?", **more}), encoding="utf-8"
    )
    made = load_catalogue().make("loader", "openai", folder=folder)
    assert isinstance(made, EndpointTeacher)
    return made


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (5, 3), (shade, 2 * shade, 7))


def sample(name: str = "s", *messages: tuple[str, str], images: Sequence[Path] = ()) -> Sample:
    told = [{"role": role, "content": content} for role, content in messages]
    extra = {**({"messages": told} if told else {}), **({"images": list(images)} if images else {})}
    return Sample(id=name, image=Path("x.png"), text="", domain="vqa/ct", extra=extra)


def test_requests_hold_messages_images_and_key(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, key_variable="SECRET", system="Be brief.", question="Which organ?")
    picture(2).save(tmp_path / "second.png")
    talk = sample("b", ("user", "<image> or <image>"), ("assistant", "Which?"), ("user", "The second"),
                  images=[tmp_path / "second.png"])  # fmt: skip
    (plain,), (talked,) = made.answer([picture(1), picture(1)], [sample("a"), talk])
    assert (plain.text, plain.ids, plain.log_probs) == ("Which organ?", (), ())
    assert talked.text == "The second"
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


def test_sampled_answers_with_log_probabilities(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url)
    decoding = Decoding(samples=3, temperature=0.7, top_p=0.9, seed=5, scored=True)
    (answers,) = made.answer([picture(1)], [sample()], decoding)
    assert [answer.log_probs for answer in answers] == [(-0.5, -0.25)] * 3
    assert answers[0].confidence == pytest.approx((0.60653066 + 0.77880078) / 2)
    (body,) = endpoint.requests
    assert {name: body[name] for name in ("n", "temperature", "top_p", "seed", "logprobs")} == {
        "n": 3, "temperature": 0.7, "top_p": 0.9, "seed": 5, "logprobs": True}  # fmt: skip
    assert endpoint.keys == [None]
    endpoint.answer = lambda body: [(f"seed {body['seed']}", [])]  # ignores n and logprobs
    (answers,) = made.answer([picture(1)], [sample()], decoding)
    assert [answer.text for answer in answers] == ["seed 5", "seed 6", "seed 7"]
    assert answers[0].confidence is None


def test_boxes_are_converted_to_the_models_coordinates_and_back(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, boxes="qwen2.5-vl", min_pixels=784, max_pixels=280 * 280)
    asked = sample("b", ("user", "<image>Is it <box>(100,500),(200,1000)</box>?"))
    asked = replace(asked, extra={**asked.extra, "box_family": "qwen-vl"})
    endpoint.answer = lambda _: [('[{"bbox_2d": [28, 28, 56, 56]}]', [])]
    ((answer,),) = made.answer([Image.new("RGB", (600, 300))], [asked])  # seen as 392 x 196
    (body,) = endpoint.requests
    assert body["messages"][-1]["content"][1]["text"] == 'Is it [{"bbox_2d": [39, 98, 78, 196]}]?'
    assert answer.text == "<box>(71,143),(143,286)</box>"
    with raises_error("KD-LOAD-008", mentions=("boxes", "'qwen'")):
        teacher(tmp_path, endpoint.url, boxes="qwen")


def test_faults_are_retried_and_counted(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, parallel=1, tries=7)
    endpoint.headers = {"Retry-After": "0"}
    endpoint.faults += [429, 503, "garbage", "shape", "cut", 429]
    with pytest.warns(UserWarning, match=r": 2 x status 429, 1 x status 503, (1 x invalid reply .*){2}, 1 x Remote"):
        (answers,) = made.answer([picture(1)], [sample()])
    assert answers[0].text == "Where?"
    assert len(endpoint.requests) == 7


@pytest.mark.parametrize(("header", "least", "most"), [("0.4", 0.4, 20), ("0", 0, 5), ("Fri, 31 Dec 1999", 5, 20)])
def test_retry_after_replaces_the_backoff(
    endpoint: LocalEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, least: float, most: float
) -> None:
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 8 if least in (0, 5) else 0.001)
    endpoint.headers = {"Retry-After": header}
    endpoint.faults.append(429)
    begun = time.monotonic()
    with pytest.warns(UserWarning, match="429"):
        teacher(tmp_path, endpoint.url).answer([picture(1)], [sample()])
    assert least <= time.monotonic() - begun < most


def test_replies_of_unbounded_size_are_invalid(
    endpoint: LocalEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_client, "MAX_BYTES", 1 << 20)
    endpoint.answer = lambda _: [("x" * (1 << 21), [])]
    with raises_error("KD-LOAD-005", mentions=("1 MiB",)):
        teacher(tmp_path, endpoint.url, tries=2).answer([picture(1)], [sample()])


def test_requests_run_in_parallel_and_inside_a_running_event_loop(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    """As in a notebook cell. The server replies when three requests have arrived."""
    together = threading.Barrier(3, timeout=60)

    def answer(body: Mapping[str, Any]) -> Reply:
        together.wait()
        return [(words(body), [])]

    endpoint.answer = answer
    made = teacher(tmp_path, endpoint.url, parallel=3)

    async def cell() -> list[list[Answer]]:
        asked = [sample(str(number), ("user", f"<image>{number}")) for number in range(6)]
        return made.answer([picture(1)] * 6, asked)

    assert [group[0].text for group in asyncio.run(cell())] == list("012345")


def test_timeouts_are_retried(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, parallel=1, timeout=0.5, tries=100)  # a busy machine may time out more often
    endpoint.faults += ["hang"]
    with pytest.warns(UserWarning, match="x timeout"):
        (answers,) = made.answer([picture(1)], [sample()])
    assert answers[0].text == "Where?"


def test_ctrl_c_does_not_wait_for_a_server_that_hangs(endpoint: LocalEndpoint, tmp_path: Path) -> None:
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
    assert time.monotonic() - begun < 15  # the server hangs for 30 s
    assert len(endpoint.requests) == 3


def test_error_after_the_last_try_counts_the_failures(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, parallel=1, tries=3)
    endpoint.faults += [429, 429, 500]
    with raises_error("KD-LOAD-005", mentions=("3",)) as caught:
        made.answer([picture(1)], [sample()])
    assert (caught.value.why, caught.value.code) == ("2 x status 429, 1 x status 500", ExitCode.MISSING)
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("fault", "code"), [(401, ExitCode.DENIED), (400, ExitCode.MISSING), ("redirect", ExitCode.MISSING)]
)
def test_refusals_are_not_retried_and_do_not_show_the_key(
    endpoint: LocalEndpoint, tmp_path: Path, fault: Fault, code: ExitCode
) -> None:
    made = teacher(tmp_path, endpoint.url, key_variable="SECRET", parallel=1)
    endpoint.faults.append(fault)
    with raises_error("KD-LOAD-006", code=code) as caught:
        made.answer([picture(1)], [sample()])
    assert KEY not in f"{caught.value.headline} {caught.value.why} {caught.value.fix}"
    assert len(endpoint.requests) == 1


def test_connection_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.001)
    with local_endpoint(lambda _: []) as gone:
        pass
    with raises_error("KD-LOAD-005") as caught:
        teacher(tmp_path, gone.url, tries=2).answer([picture(1)], [sample()])
    assert caught.value.why == "2 x ConnectError"


def test_probe_finds_no_signals_and_sends_one_request(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    made = teacher(tmp_path, endpoint.url, key_variable="SECRET")
    assert isinstance(made, SignalSource)
    assert isinstance(made, Answering)
    assert probe(made, "teacher").signals == {}
    assert len(endpoint.requests) == 1
    assert "127.0.0.1" not in str(made.identity())  # the lock is published with a student
    endpoint.faults.append(404)
    with raises_error("KD-LOAD-006", mentions=("404",)):
        probe(made, "teacher")


def test_address_and_limits_do_not_change_the_fingerprint(endpoint: LocalEndpoint, tmp_path: Path) -> None:
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
    assert not {elsewhere, "SECRET", "Where?"} & set(moved.identity.values())


def test_stored_log_probabilities_are_part_of_the_identity(tmp_path: Path) -> None:
    fields = [{"top_logprobs": 0}, {"top_logprobs": 5}, {"top_logprobs": 6}, {"top_logprobs": 5, "max_answer": 9}]
    found = [teacher(tmp_path, "http://127.0.0.1/v1", **more).identity() for more in fields]
    assert [("stored" in one, "logprobs" in one) for one in found] == [(False, False), *[(True, True)] * 3]
    assert len({one.get("stored") for one in found}) == 4


def test_impossible_requests_are_errors_before_anything_is_sent(
    endpoint: LocalEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    ("content", "mentions"),
    [
        ("{", ["endpoint.json:", "JSON"]),
        ("[]", ["endpoint.json:"]),
        ('{"model": "m"}', ["endpoint:"]),
        ('{"endpoint": "http://x/v1", "model": ""}', ["model:"]),
        ('{"endpoint": "http://x/v1", "model": "m", "key": "sk"}', ["'key'"]),
        ('{"endpoint": "file:///etc/passwd", "model": "m"}', ["endpoint:", "address"]),
        ('{"endpoint": "http://user:pass@x/v1", "model": "m"}', ["endpoint:", "password"]),
        ('{"endpoint": "http://x/v1", "model": "m", "tries": 0}', ["tries:", "1"]),
        ('{"endpoint": "http://x/v1", "model": "m", "tries": true}', ["tries:", "integer"]),
        ('{"endpoint": "http://x/v1", "model": "m", "tries": "2"}', ["tries:", "integer"]),
    ],
)
def test_invalid_settings(tmp_path: Path, content: str, mentions: list[str]) -> None:
    (tmp_path / "endpoint.json").write_text(content, encoding="utf-8")
    with raises_error("KD-LOAD-008", where=str(tmp_path / "endpoint.json"), mentions=mentions) as caught:
        load_catalogue().make("loader", "openai", folder=tmp_path)
    assert "pass" not in caught.value.headline.replace("password", "")


def test_folder_without_settings(tmp_path: Path) -> None:
    with raises_error("KD-LOAD-007", where=str(tmp_path)):
        load_catalogue().make("loader", "openai", folder=tmp_path)


def test_endpoints_of_installed_packages_are_refused(
    endpoint: LocalEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published folder could name any address and any environment variable."""
    package = tmp_path / "kdkit_elsewhere"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").touch()
    teacher(package / "weights", endpoint.url, key_variable="SECRET")
    monkeypatch.syspath_prepend(str(tmp_path))
    project = generating_project(tmp_path / "p")
    with raises_error("KD-TEACH-006", code=ExitCode.DENIED):
        add_teacher(project, "remote", {"from": "package:kdkit_elsewhere/weights", "license": "mit"})
    assert endpoint.requests == []
    assert project.registry.teachers == {}
