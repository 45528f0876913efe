"""Model types are those of the library; code of a model's folder is named, refused and never run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.plugins.loaders.generating import load_generating
from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.loaders.transformers_clip import load_transformers_clip
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import make

LOADERS: dict[str, Callable[..., Any]] = {"clip": load_transformers_clip, "qwen": load_generating}
OWN = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Config: ...\nclass Model: ...\n"


@pytest.fixture(autouse=True)
def _yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone who would say yes, if transformers asked."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")


@pytest.fixture(params=["clip", "qwen"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(kind: str, folders: dict[str, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    if kind == "clip":
        shutil.copytree(folders["clip"], folder)
    else:
        make(sizes={"hidden": 32, "heads": 2, "kv_heads": 1, "words": ["a"]}, max_tokens=2048).save(folder)
        (folder / "clinkd.json").unlink()
    (folder / "own.py").write_text(CODE, encoding="utf-8")
    return folder


def change(path: Path, **values: Any) -> None:
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept = {name: value for name, value in {**config, **values}.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize("value", ["fancy", None, ["clip"], {"clip": 1}, 7])
def test_an_unknown_type_is_refused_by_name(kind: str, model: Path, value: Any) -> None:
    change(model / "config.json", model_type=value)
    id = {"clip": "KD-LOAD-071", "qwen": "KD-STUD-420"}[kind]
    with raises_error(id, where=str(model / "config.json"), mentions=("type",)) as caught:
        LOADERS[kind](model)
    assert json.dumps(value) in caught.value.why or value is None


@pytest.mark.parametrize("value", ["fancy", None])
def test_an_unknown_type_with_code_is_refused_and_nothing_runs(kind: str, model: Path, value: str | None) -> None:
    change(model / "config.json", model_type=value, auto_map=OWN)
    with raises_error("KD-LOAD-072", where=str(model), code=ExitCode.DENIED) as caught:
        LOADERS[kind](model)
    assert "own.Model" in caught.value.why
    assert not (model / "ran").exists()


def test_a_known_type_with_code_is_loaded_by_the_librarys_class(kind: str, model: Path) -> None:
    change(model / "config.json", auto_map=OWN)
    expected = "CLIPModel" if kind == "clip" else "GeneratingTeacher"
    found = LOADERS[kind](model)
    assert type(found.model if kind == "clip" else found).__name__ == expected
    assert not (model / "ran").exists()


@pytest.mark.parametrize(
    ("file", "values"),
    [("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "own.P"}, "image_processor_type": "Fancy"})],
)
@pytest.mark.parametrize("kind", ["clip"], indirect=True)
def test_other_parts_with_code_are_refused(model: Path, file: str, values: dict[str, Any]) -> None:
    change(model / file, **values)
    with raises_error("KD-LOAD-072", where=str(model), code=ExitCode.DENIED) as caught:
        load_transformers_clip(model)
    assert file in caught.value.why
    assert not (model / "ran").exists()


def test_a_tokenizer_of_open_clip_with_code_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["biomedclip"], tmp_path / "model"))
    (folder / "own.py").write_text(CODE, encoding="utf-8")
    own = {"AutoTokenizer": ["own.T", "own.T"]}
    change(folder / "tokenizer_config.json", auto_map=own, tokenizer_class="FancyTokenizer")
    with raises_error("KD-LOAD-072", code=ExitCode.DENIED) as caught:
        load_open_clip(folder)
    assert "tokenizer_config.json" in caught.value.why
    assert not (folder / "ran").exists()
