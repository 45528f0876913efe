"""What is published, loaded by its own lines: stock transformers and PEFT answer as the student does."""

from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from kdkit.core.contracts import Published, Sample
from kdkit.core.sharing.release import stock_check
from kdkit.core.sharing.release.compare import QUESTIONS, Reply, chat_messages, collect_replies, fixed_pictures
from kdkit.plugins.students.clinkd.chat import prompt_of
from kdkit.plugins.students.clinkd.chat_template import chat_template
from kdkit.plugins.students.clinkd.create import load_student
from kdkit.plugins.students.clinkd.publish import publish
from tests.errors import raises_error
from tests.plugins.students.clinkd.stock import create
from tests.plugins.students.clinkd.tiny import make

ROOM: dict[str, Any] = {"max_tokens": 160, "max_pixels": 6272, "max_images": 2}


def answers(folder: Path, lines: str, replies: list[Reply], monkeypatch: pytest.MonkeyPatch) -> float:
    """The largest difference of a logit between ``replies`` and what the lines load."""
    monkeypatch.chdir(folder)
    (folder / "card.lines").write_text(lines, encoding="utf-8")
    check = {"questions": copy.deepcopy([reply.messages for reply in replies]), "length": 4}
    with torch.no_grad():
        found = stock_check.answers(runpy.run_path(str(folder / "card.lines")), check)
    theirs = [found[f"{number}.logits"] for number in range(len(replies))]
    return max(float((a - b.logits).abs().max()) for a, b in zip(theirs, replies, strict=True))


def pictures_in(folder: Path) -> None:
    for number, picture in enumerate(fixed_pictures()):
        picture.save(folder / f"{number}.png")
    fixed_pictures()[0].save(folder / "image.png")


def published(tmp_path: Path, **config: Any) -> tuple[Published, list[Reply]]:
    make(**{**ROOM, **config}).save(tmp_path / "saved")
    pictures_in(tmp_path)
    done = publish(tmp_path / "saved", tmp_path / "out", str(tmp_path / "out"), merged=False, skip={})
    return done, collect_replies(load_student(tmp_path / "saved"), fixed_pictures(), tmp_path)


def test_plain_transformers_takes_the_models_own_rope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, asked = published(tmp_path, family="qwen2_5_vl", question="Where is the box?")
    assert len(asked) == len(QUESTIONS), "the student takes all of them"
    assert (done.library, done.needs, done.base) == ("transformers", (), None)
    assert "kdkit" not in done.lines[done.library]
    assert answers(tmp_path, done.lines[done.library] + done.probes[done.library], asked, monkeypatch) <= 2e-4, (
        "logits of up to 100"
    )
    assert capsys.readouterr().out.strip(), "the lines answer"
    assert load_student(tmp_path / "out").config["sizes"]["family"] == "qwen2_5_vl"


@pytest.mark.parametrize(
    "config", [{"rope": "mcg-rope"}, {"vision_rope": {"name": "rope-mixed", "options": {"theta": 10}}}]
)
def test_other_variants_are_attached_and_plain_transformers_is_wrong(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, asked = published(tmp_path, **config)
    assert done.needs == ("kdkit",)
    assert any("plain transformers" in note for note in done.notes)
    assert answers(tmp_path, done.lines[done.library] + done.probes[done.library], asked, monkeypatch) <= 2e-4
    plain = "\n".join(line for line in done.lines[done.library].splitlines() if "attach_saved" not in line)
    assert answers(tmp_path, plain + done.probes[done.library], asked, monkeypatch) > 1e-2


def test_the_files_of_a_model_say_nothing_of_where_it_was(tmp_path: Path) -> None:
    make(**ROOM).save(tmp_path / "saved")
    for name in ("config.json", "tokenizer_config.json"):
        path = tmp_path / "saved" / name
        told = {"_name_or_path": "/secret", "auto_map": {"AutoModel": "code.Model"}, "chat_template": "another"}
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **told}), encoding="utf-8")
    done = publish(tmp_path / "saved", tmp_path / "out", "lab/x", merged=False, skip={})
    for path in (tmp_path / "out").glob("*.json*"):
        assert "secret" not in path.read_text(encoding="utf-8")
        assert "code.Model" not in path.read_text(encoding="utf-8")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == chat_template("")
    assert set(done.names) < {path.name for path in (tmp_path / "out").iterdir()}
    with raises_error("KD-STUD-036"):
        publish(tmp_path, tmp_path / "never", "lab/x", merged=False, skip={})


@pytest.mark.parametrize("system", ["", 'You are "helpful" \\ and\nbrief: 冠 é'])
def test_the_template_writes_the_students_prompt(system: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [
        (("user", "<image>  What?\n\n"),),
        (
            ("system", "Be brief.\n"),
            ("user", "a <image> b<image>\n"),
            ("assistant", "\nyes "),
            ("user", "\n  so <image>"),
        ),
    ]
    for asked in turns:
        messages = [{"role": role, "content": content} for role, content in asked]
        images = sum(content.count("<image>") for _, content in asked)
        sample = Sample("s", Path("x.png"), "t", "d", extra={"messages": messages})
        ours = prompt_of(sample, images=images, system=system, question="")
        given = chat_messages(asked, range(images))
        theirs = render_jinja_template([given], chat_template=chat_template(system), add_generation_prompt=True)[0]
        assert theirs == [ours]


@pytest.mark.parametrize("family", ["qwen3_vl", "internvl"])
def test_other_families_are_published_with_the_files_of_their_own(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(family, max_tokens=200).save(tmp_path / "saved")
    pictures_in(tmp_path)
    done = publish(tmp_path / "saved", tmp_path / "out", str(tmp_path / "out"), merged=False, skip={})
    asked = collect_replies(load_student(tmp_path / "saved"), fixed_pictures(), tmp_path)
    assert done.needs == ()
    assert answers(tmp_path, done.lines[done.library] + done.probes[done.library], asked, monkeypatch) <= 2e-4
    assert load_student(tmp_path / "out").identity() == load_student(tmp_path / "saved").identity()
    with raises_error("KD-STUD-420", mentions=(family,)):
        publish(tmp_path / "saved", tmp_path / "again", "again", merged=False, skip={}, families={})


def test_squared_images_are_not_published(tmp_path: Path) -> None:
    """Stock processors keep the shape of images and would give other answers."""
    make(square=True).save(tmp_path / "student")
    with raises_error("KD-STUD-572"):
        publish(tmp_path / "student", tmp_path / "out", "org/name", merged=False, skip={})
    assert not (tmp_path / "out").exists()
