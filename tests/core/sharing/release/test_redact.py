"""Published files contain no local paths."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kdkit.core.project.lineage import Origin
from kdkit.core.project.registry.load import check_registry
from kdkit.core.project.registry.lock import Lock, LockedTeacher
from kdkit.core.sharing.release.card_tables import link
from kdkit.core.sharing.release.redact import (
    check_nothing_leaks,
    public_lineage,
    public_lock,
    public_origin,
    public_registry,
    public_source,
    without_paths,
)
from tests.errors import raises_error
from tests.lineages import lineage, teacher

HIDDEN = "(not published)"


@pytest.mark.parametrize(
    "path", ["/home/ann/x", "./x", "../x", "~/x", "~ann/x", "C:\\data\\x", "C:/data", "\\\\server\\x", "/x\ny"]
)
def test_paths_are_hidden(path: str) -> None:
    assert without_paths({"a": [path, 1], "b": {"c": path}}) == {"a": [HIDDEN, 1], "b": {"c": HIDDEN}}


@pytest.mark.parametrize(
    "text",
    ["a/b", "microsoft/BERT", "hf:lab/x", "", ".", "/", "./", "...", "0.5", "a {label}.", "https://x.org/y", "ct/mr"],
)
def test_other_texts_stay(text: str) -> None:
    assert without_paths([text]) == [text]


def test_sources() -> None:
    assert public_source("hf:lab/x@main") == "hf:lab/x@main"
    assert public_source("package:demo/teachers") == "package:demo/teachers"
    assert public_source("local:../patients/ann") == f"local:{HIDDEN}"


REGISTRY = """\
version: 1   # Ann's project
use: commercial
student: {family: open_clip, config: {init: models/start, tokenizer: {folder: words}, model_cfg: {a: ./b}}}
teachers:
  one: {from: "local:secret/one", loader: open_clip, license: mit, options: {head: /home/ann/head.bin}}
  two: {signals: live, device: "cuda:1", offload: true}
data:
  - {source: jsonl, path: /data/hospital/ann.jsonl, license: cc-by-4.0}
prompts: {default: ["a {domain} image of {label}."]}
recipe: ./mine.yaml
guard: {tolerance: 2}
inputs: {cache: uint8, threads: 3}
"""


def test_the_address_of_a_private_hub_is_not_published() -> None:
    origin = Origin("lab/x", "c" * 40, "v1", "http://10.0.0.5")
    assert public_origin(origin, "http://10.0.0.5") == origin, "it is published there"
    assert public_origin(origin) == replace(origin, endpoint=HIDDEN)
    assert link("lab/x", HIDDEN) == "lab/x"
    assert public_origin(Origin("lab/x", "c" * 40, "v1"), "http://10.0.0.5") == Origin("lab/x", "c" * 40, "v1")


def test_a_registry_keeps_what_others_need_and_nothing_else() -> None:
    public = public_registry(check_registry(REGISTRY), recipe="./recipe.yaml")
    assert public == {
        "version": 1,
        "use": "commercial",
        "student": {
            "family": "open_clip",
            "config": {"init": HIDDEN, "tokenizer": {"folder": HIDDEN}, "model_cfg": {"a": HIDDEN}},
        },
        "teachers": {
            "one": {"from": f"local:{HIDDEN}", "loader": "open_clip", "license": "mit", "options": {"head": HIDDEN}},
            "two": {},
        },
        "prompts": check_registry(REGISTRY).prompts,
        "guard": {"tolerance": 2},
        "recipe": "./recipe.yaml",
    }
    check_registry(json.dumps(public))


def test_a_lineage_keeps_its_figures() -> None:
    own = lineage(
        student={"config": {"init": "start"}},
        teachers=[teacher("one", "local:a", {"ct": 1.0})],
        training={"log": [{"loss": 1.5}]},
    )
    public = public_lineage(own)
    assert public.student.config == {"init": HIDDEN}
    assert public.teachers == (replace(own.teachers[0], source=f"local:{HIDDEN}"),)
    assert (public.training, public.recipe) == (own.training, own.recipe)
    assert own.teachers[0].source == "local:a", "the version's own is unchanged"


def test_a_lock_without_paths_is_still_a_lock(tmp_path: Path) -> None:
    facts = LockedTeacher(
        provider="registry",
        source="local:/home/ann/one",
        commit=None,
        loader="open_clip",
        options={"weights": "/home/ann/w.bin", "arch": "ViT-B-16"},
        files={},
        also={"text": "local:/home/ann/text", "more": "hf:lab/x"},
        license=None,
        gated=False,
        signals={},
        identity={},
        fingerprint="0" * 64,
        locked_at="2026-01-01",
    )
    public = public_lock(Lock(teachers={"one": facts, "two": facts}), ["one"])
    public.save(tmp_path / "lock")
    read = Lock.load(tmp_path / "lock").teachers
    assert list(read) == ["one"]
    assert read["one"].options == {"weights": HIDDEN, "arch": "ViT-B-16"}
    assert read["one"].also == {"text": f"local:{HIDDEN}", "more": "hf:lab/x"}
    assert "/home/ann" not in (tmp_path / "lock").read_text()


@pytest.mark.parametrize("offset", [0, (1 << 20) - 3, 1 << 20, (1 << 21) + 7])
def test_a_path_is_found_wherever_it_hides(offset: int, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights").write_bytes(b"\0" * offset + b"/home/ann/project" + b"\0" * 9)
    check_nothing_leaks(tmp_path, ["/home/bob", "/"])
    with raises_error("KD-REL-024", mentions=("sub/weights",)):
        check_nothing_leaks(tmp_path, ["/home/ann"])


def test_a_path_is_found_as_json_writes_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"x": 'C:\\Users\\"ann"\\é'}))
    with raises_error("KD-REL-024", where='C:\\\\Users\\\\\\"ann\\"\\\\\\u00e9', mentions=("a.json",)):
        check_nothing_leaks(tmp_path, ['C:\\Users\\"ann"\\é'])
