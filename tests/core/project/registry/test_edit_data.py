"""A data entry is replaced in the text of registry.yaml; all else stays."""

from __future__ import annotations

import re

import pytest
from ruamel.yaml import YAML

from kdkit.core.project.registry.edit_data import replace_data_entry
from tests.errors import raises_error

NEW = {"source": "webdataset", "path": "../my shards", "license": "mit", "options": {"max_pixels": 10}}
LAYOUTS = (
    "data:\n  - source: folder\n    path: images  # mine\n    options:\n      splits: {val: test}  # deep\n",
    "data:\n- {source: folder, path: images}   # flow\n",
    "data: [{source: folder, path: images}]\n",
    "data:\n  # above\n  -   path: images\n      source: folder\n\n  # below\n",
    "data:\n- source: folder\n  path: images\n  options:\n    caption: |\n      a scan\n\n# below\n",
    "\ufeffdata:\r\n  - source: folder\r\n    path: 'images'\r\n",
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("number", [0, 1])
def test_the_entry_alone_changes(layout: str, number: int) -> None:
    other = "  - source: csv\n    path: other.csv\n"
    if layout == LAYOUTS[2]:
        layout = layout.replace("]", ", {source: csv, path: other.csv}]")
    else:
        first = layout.index("- ") - layout.rindex("\n", 0, layout.index("- ")) - 1
        layout += other.replace("  - ", " " * first + "- ").replace("    p", " " * (first + 2) + "p")
    mark = layout[: layout[0] == "\ufeff"]
    text = f"{mark}version: 1  # one\n{layout.removeprefix(mark)}\nuse: research  # last\n"
    changed = replace_data_entry(text, number, NEW)
    before, after = (YAML(typ="safe", pure=True).load(one) for one in (text, changed))
    assert after["data"][number] == NEW
    assert after["data"][1 - number] == before["data"][1 - number]
    assert {**after, "data": 0} == {**before, "data": 0}
    for comment in ("# one", "# last", "# above", "# below", "# flow"):
        assert (comment in changed) == (comment in text)
    assert not re.search(r"[^\s]#", changed)  # what follows a value at once is part of it
    assert replace_data_entry(changed, number, NEW) == changed


def test_what_cannot_be_edited_is_said() -> None:
    text = "version: 1\ndata:\n  - &one\n    source: folder\n    path: images\n  - *one\n"
    with raises_error("KD-REG-510", mentions=("data entry 1",)):
        replace_data_entry(text, 0, NEW)
