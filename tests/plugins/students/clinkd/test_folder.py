"""Saved students: stock transformers and PEFT load them; the RoPE variant and the base of adapters are pinned."""

from __future__ import annotations

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.plugins.students.clinkd.create import create_student, load_student
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.conftest import write_distribution
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import FAMILIES, answer_logits, make, samples, stacked, stock_arguments

ROPE_PLUGIN = """\
from kdkit.core.contracts import RopeSpec
from kdkit.core.contracts.hookspecs import hookimpl

@hookimpl
def kdkit_rope_variants():
    return (RopeSpec(name="my-rope", summary="as 1-D", factory="kdkit.plugins.rope.variants:rope_1d"),)
"""
LORA = {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the Hub has them: no clinkd.json."""
    folder = tmp_path_factory.mktemp("models") / "base"
    make(max_tokens=2048).save(folder)
    (folder / "clinkd.json").unlink()
    return folder


def with_adapters(base: Path, **config: Any) -> ClinkdStudent:
    student = make(init=str(base), lora=LORA, **config)
    torch.manual_seed(1)
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return student


def same(a: ClinkdStudent, b: ClinkdStudent, folder: Path) -> bool:
    inputs = stacked(a, samples(folder))
    return torch.equal(answer_logits(a, inputs), answer_logits(b, inputs))


# ----------------------------------------------------------------------------------- whole weights


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_transformers_reads_what_is_saved(family: str, tmp_path: Path) -> None:
    student = make(family)
    student.save(tmp_path / "a")
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    inputs = stacked(student, samples(tmp_path))
    given = stock_arguments(student, inputs)
    with torch.no_grad():
        assert torch.equal(model.eval()(**given).logits, student.base(**given).logits)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "a")
    text = "<|im_start|>user\nthe lung (12,30),(70,88)\n\n Zebra! 冠<|im_end|>"
    assert tokenizer(text)["input_ids"] == student.preparation.tokens.encode(text)
    assert tokenizer.decode(student.preparation.tokens.encode(text)) == text
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "a")
    assert (processor.size["longest_edge"], processor.merge_size) == (student.preparation.images.max_pixels, 2)


def test_saving_again_gives_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(vision_rope="rope-mixed").save(tmp_path / "a")
    load_student(tmp_path / "a").save(tmp_path / "b")
    assert capsys.readouterr() == ("", ""), "progress is the command line's business"
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert {"clinkd.json", "config.json", "model.safetensors", "tokenizer.json", "vision_rope.safetensors"} <= {*names}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_variant_of_another_plugin_is_saved_with_its_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    write_distribution(tmp_path / "site", "kdkit-rope-x", ROPE_PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    load_catalogue.cache_clear()
    try:
        make(rope="my-rope").save(tmp_path / "a")
        saved = json.loads((tmp_path / "a" / "clinkd.json").read_text())
        assert saved["config"]["rope"]["name"] == "kdkit-rope-x:my-rope"
        assert load_student(tmp_path / "a", rope="my-rope").config["rope"]["name"] == "kdkit-rope-x:my-rope"
    finally:
        load_catalogue.cache_clear()


def test_learnt_frequencies_are_saved(tmp_path: Path) -> None:
    student = make(vision_rope="rope-mixed")
    assert student.vision_turns is not None
    with torch.no_grad():
        for parameter in student.vision_turns.parameters():
            parameter.add_(0.3)
    student.save(tmp_path / "a")
    assert same(load_student(tmp_path / "a"), student, tmp_path)
    continued = create_student(init=str(tmp_path / "a"))
    assert same(continued.eval(), student, tmp_path)
    (tmp_path / "a" / "vision_rope.safetensors").unlink()
    with raises_error("KD-BASE-040", mentions=("vision_rope.safetensors",)):
        load_student(tmp_path / "a")


def test_a_folder_of_the_hub_is_a_student(base: Path, tmp_path: Path) -> None:
    student = make(init=str(base), rope="mcg-rope")
    assert student.config["init"] == str(base)
    assert student.config["rope"]["name"] == "mcg-rope"
    assert load_student(base).config["rope"]["name"] == "mrope"
    student.save(tmp_path / "a")
    content = (tmp_path / "a" / "clinkd.json").read_text()
    assert str(base) not in content, "a student with weights of its own needs no base"
    shutil.move(tmp_path / "a", tmp_path / "b")
    again = load_student(tmp_path / "b")
    assert again.config["init"] == str(tmp_path / "b")
    assert same(again, student, tmp_path)


# ------------------------------------------------------------------------------------- another rope


def test_another_variant_is_refused_and_both_are_named(tmp_path: Path) -> None:
    make(rope={"name": "mcg-rope", "options": {"alpha": 2.0}}).save(tmp_path / "a")
    load_student(tmp_path / "a", rope={"name": "mcg-rope", "options": {"alpha": 2.0}})
    for other in ("mrope", {"name": "mcg-rope", "options": {"alpha": 1.0}}, "mcg-rope"):
        for attempt in (partial(load_student, tmp_path / "a", rope=other), partial(_init, tmp_path / "a", rope=other)):
            name = other if isinstance(other, str) else other["name"]
            with raises_error("KD-STUD-012", mentions=('mcg-rope {"alpha": 2.0', f"not '{name}")):
                attempt()
    with raises_error("KD-STUD-012", mentions=("'rope-mixed'",)):
        _init(tmp_path / "a", vision_rope="rope-mixed")
    assert _init(tmp_path / "a", max_tokens=80).config["rope"]["options"]["alpha"] == 2.0, "continued as it was"


def _init(folder: Path, **config: Any) -> ClinkdStudent:
    return create_student(init=str(folder), **config)


# ----------------------------------------------------------------------------------------- adapters


def test_adapters_alone_are_trained_and_saved(base: Path, tmp_path: Path) -> None:
    student = with_adapters(base, rope="mcg-rope", vision_rope="rope-mixed")
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name or name.startswith("vision_turns.") for name in trained)
    student.save(tmp_path / "a")
    assert sum(path.stat().st_size for path in (tmp_path / "a").glob("*.safetensors")) < 40_000
    again = load_student(tmp_path / "a")
    assert same(again, student, tmp_path)
    assert again.config == student.config
    assert {name for name, p in again.named_parameters() if p.requires_grad} == trained
    again.save(tmp_path / "b")
    for name in ("adapter_model.safetensors", "clinkd.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_stock_peft_reads_what_is_saved(base: Path, tmp_path: Path) -> None:
    import peft

    student = with_adapters(base)
    student.save(tmp_path / "a")
    named = json.loads((tmp_path / "a" / "adapter_config.json").read_text())["base_model_name_or_path"]
    network = transformers.AutoModelForImageTextToText.from_pretrained(named)
    model = peft.PeftModel.from_pretrained(network, tmp_path / "a").eval()
    given = stock_arguments(student, stacked(student, samples(tmp_path)))
    with torch.no_grad():
        assert torch.allclose(model(**given).logits, student.base(**given).logits, atol=1e-5)
        assert not torch.allclose(make(init=str(base)).base(**given).logits, student.base(**given).logits, atol=1e-2)


def test_adapters_know_their_base(base: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(base, own)
    with_adapters(own).save(tmp_path / "a")
    with (own / "config.json").open("a") as file:
        file.write("\n")
    with raises_error("KD-STUD-032"):
        load_student(tmp_path / "a")
    shutil.rmtree(own)
    with raises_error("KD-STUD-031") as caught:
        load_student(tmp_path / "a")
    assert caught.value.code is ExitCode.MISSING
    with raises_error("KD-STUD-011", mentions=("holds adapters",)):
        _init(tmp_path / "a")


def test_a_project_that_is_moved_whole_takes_its_base_along(base: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "some" / "where" / "there"
    shutil.copytree(base, here / "models" / "base")
    student = with_adapters(here / "models" / "base")
    student.save(here / "versions" / "v1" / "student")
    shutil.copytree(base, tmp_path / "some" / "base")  # of the same name, farther away, and another one
    (tmp_path / "some" / "base" / "config.json").write_text("{}")
    there.parent.mkdir(parents=True, exist_ok=True)
    here.rename(there)
    moved = load_student(there / "versions" / "v1" / "student")
    assert Path(moved.config["init"]) == there / "models" / "base"
    assert same(moved, student, tmp_path)
    (there / "models").rename(there / "elsewhere")
    with raises_error("KD-STUD-031"):
        load_student(there / "versions" / "v1" / "student")


def test_a_base_of_the_hub_is_pinned_by_its_commit(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of the Hub's cache is named by repository and commit, and found in another cache."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "cache" / "models--Org--Tiny-VL" / "snapshots" / commit
    shutil.copytree(base, snapshot)
    with_adapters(snapshot).save(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("Org/Tiny-VL", commit)
    os.rename(tmp_path / "cache", tmp_path / "moved")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "moved"))
    found = load_student(tmp_path / "a").config["init"]
    assert Path(found) == tmp_path / "moved" / snapshot.relative_to(tmp_path / "cache")


@pytest.mark.parametrize(
    ("how", "message"), [("patches", "patch_size is 16"), ("image token", "<|image_pad|> is 308 in the tokenizer")]
)
def test_files_of_two_models(how: str, message: str, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "a")
    _break(tmp_path / "a", how)
    with raises_error("KD-STUD-045", where="student.config") as caught:
        load_student(tmp_path / "a")
    assert message in caught.value.what


def test_without_peft(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with raises_error("KD-STUD-014", where="student.config.lora") as caught:
        with_adapters(base)
    assert "kdkit[clinkd]" in caught.value.fix


# --------------------------------------------------------------------------------------- bad folders


def _break(folder: Path, how: str) -> None:
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "config.json").read_text())
    if how == "type":
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    elif how == "json":
        (folder / "config.json").write_text("{")
    elif how == "weights":
        state = load_file(folder / "model.safetensors")
        del state[next(name for name in state if name.endswith("merger.ln_q.weight"))]
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    elif how == "truncated":
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-9])
    elif how == "saved":
        (folder / "clinkd.json").write_text('{"format": 9, "config": {}}')
    elif how == "patches":
        images = json.loads((folder / "preprocessor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps({**images, "patch_size": 16}))
    elif how == "image token":
        (folder / "config.json").write_text(json.dumps({**config, "image_token_id": 5}))
    elif how == "tokens":
        (folder / "tokenizer.json").write_text(
            (folder / "tokenizer.json").read_text().replace("<|image_pad|>", "<|x|>")
        )
    else:
        (folder / how).unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("type", "the family 'bert'"),
        ("json", "config.json cannot be read"),
        ("weights", "1 weights are missing"),
        ("truncated", "cut off"),
        ("saved", "format 9 is not the one"),
        ("tokens", "no <|image_pad|>"),
        ("config.json", "no config.json"),
        ("model.safetensors", "weights cannot be read"),
        ("tokenizer.json", "no tokenizer.json"),
    ],
)
def test_a_folder_that_cannot_be_loaded(how: str, message: str, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "a")
    _break(tmp_path / "a", how)
    with pytest.raises(KdkitError) as caught:
        load_student(tmp_path / "a")
    assert message in caught.value.what
    assert str(tmp_path / "a") in caught.value.where
