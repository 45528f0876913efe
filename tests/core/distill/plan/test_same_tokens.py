"""A teacher that splits answers into other tokens than the student is told of before it is asked about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Silent
from kdkit.core.distill.run import Options, distill
from kdkit.core.teachers.add import add_teacher, lock_teachers
from tests.plugins.students.clinkd.tiny import make
from tests.toy_project import make_project, open_project

SIZES: dict[str, Any] = {"hidden": 32, "heads": 2, "kv_heads": 1}
SETTINGS: dict[str, Any] = {"max_tokens": 64, "max_answer": 32, "max_pixels": 56 * 56, "system": ""}
OTHER = r"teacher 'reader' and the student split answers into different tokens"


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def reader_project(root: Path, words: list[str], **entry: Any) -> None:
    """Answers about ct ("ct: ...") and mri; the student has one token for "ct", the teacher for each of ``words``."""
    make_project(root, teachers={}, domains=("ct", "mri"), train=2, held_out=1)
    config = {"sizes": {**SIZES, "words": ["ct"]}, **SETTINGS}
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("{family: toy, config: {width: 12}}", _family(config))
    text += "trust: {policy: all, options: {unmeasured: true}}\noptimizer: {batch_size: 4, steps: 1}\n"
    registry.write_text(text, encoding="utf-8")
    manifest = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    manifest.write_text("".join(map(_line, rows)), encoding="utf-8")
    make(sizes={**SIZES, "words": words}, **SETTINGS).save(root / "models" / "reader")
    source = {"from": "local:models/reader", "loader": "qwen2-vl", "license": "mit", **entry}
    add_teacher(open_project(root), "reader", source)


def run(root: Path, recipe: str = "clinkd") -> list[str]:
    """A whole run of one step -> the warnings about tokens."""
    heard = Heard()
    assert distill(open_project(root), Options(recipe=recipe, cpu=True), reporter=heard) is not None
    return [text for text in heard.warnings if "token" in text]


def test_a_teacher_of_other_tokens_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    reader_project(tmp_path / "p", words=["ct", "mri"])  # more words: the id of the end is another one in every answer
    with pytest.raises(KdkitError, match=OTHER) as caught:
        distill(open_project(tmp_path / "p"), Options(cpu=True, recipe="clinkd"))
    assert caught.value.why.startswith("12 of 12 training answers such as that of 'ct-")
    assert "'uld'" in caught.value.fix
    assert "pseudo-label --teacher reader" in caught.value.fix
    assert not list((tmp_path / "p" / "features").rglob("*.h5"))
    (tmp_path / "p" / "mine.yaml").write_text(ULD, encoding="utf-8")
    assert run(tmp_path / "p", "./mine.yaml") == []


def test_tokenizers_that_split_alike_are_the_same(tmp_path: Path) -> None:
    reader_project(tmp_path / "p", words=["ct"])
    tokenizer = tmp_path / "p" / "models" / "reader" / "tokenizer.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text(encoding="utf-8"))), encoding="utf-8")
    lock_teachers(open_project(tmp_path / "p"), ["reader"])
    assert run(tmp_path / "p") == []


def test_some_domains_are_told_of_and_refused_where_the_teacher_may_teach_them(tmp_path: Path) -> None:
    reader_project(tmp_path / "p", words=["qx"])  # as many words as the student has: mri is split alike
    heard = Heard()
    with pytest.raises(KdkitError, match=OTHER) as caught:
        distill(open_project(tmp_path / "p"), Options(cpu=True, recipe="clinkd"), reporter=heard)
    told = [text for text in heard.warnings if "token" in text]
    assert len(told) == 1
    assert told[0].startswith("teacher 'reader' splits 6 answers of ct into other tokens than the student; token-kd")
    assert caught.value.why.startswith("6 of 12 training answers")
    assert not (tmp_path / "p" / "versions").exists()


def test_other_domains_than_those_of_the_teacher_do_not_count(tmp_path: Path) -> None:
    reader_project(tmp_path / "p", words=["qx"], domains=["mri"])
    assert run(tmp_path / "p") == []


ULD = """\
name: mine
summary: sorted probabilities
losses: [{name: answer-ce}, {name: uld}]
trust: {policy: all}
optimizer: {lr: 0.01, batch_size: 4, steps: 1}
"""


def _family(config: dict[str, Any]) -> str:
    return json.dumps({"family": "clinkd", "config": config})


def _line(row: dict[str, Any]) -> str:
    extra = {"task": "vqa", "messages": [{"role": "user", "content": "<image>What?"}]}
    return json.dumps({**row, "text": f"{row['domain']}: {row['label']}", "extra": extra}) + "\n"
