"""Med-GRIT-270k, on small files in the published format."""

from __future__ import annotations

from pathlib import Path

from tests.errors import raises_error
from tests.plugins.sources.files import read, write_records


def test_med_grit(tmp_path: Path) -> None:
    talk = [
        ["Picture 1: <img>data/ct_00--x.png</img>\nWhere is the <ref>liver</ref>?", "<box>(10,20),(30,40)</box>"],
        ["And the spleen?", "<ref>spleen</ref><box>(50,60),(70,80)</box>"],
    ]
    path = write_records(tmp_path / "test.json", {"id": "ct_00--x", "conversations": talk})
    first, second = read("med-grit", path, task="vg", split="test", image_root="images", boxes_as="qwen2-vl")
    assert first.extra["messages"] == [{"role": "user", "content": "<image>\nWhere is the <ref>liver</ref>?"}]
    assert first.text == "<|box_start|>(10,20),(30,40)<|box_end|>"
    assert (first.domain, first.split, first.image) == ("vg/ct", "test", tmp_path / "images" / "ct_00--x.png")
    assert second.extra["boxes"] == [(0.05, 0.06, 0.07, 0.08)]
    assert [m["role"] for m in second.extra["messages"]] == ["user", "assistant", "user"]
    assert first.id.startswith("vg/ct_00--x/")
    assert first.id != second.id
    write_records(path, {"id": "ct_00--x", "conversations": [{"from": "user", "value": "x"}]})
    with raises_error("KD-SRC-016", where=f"{path}:2"):
        read("med-grit", path, task="vg", split="test")
