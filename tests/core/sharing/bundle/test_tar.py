"""What is written is what is read, by kdkit and by the standard library."""

from __future__ import annotations

import io
import tarfile

from hypothesis import example, given
from hypothesis import strategies as st

from kdkit.core.sharing.bundle import tar

names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=1000)


@given(names, st.integers(0, 1 << 45))
@example("x" + 60 * "é", 0)
def test_any_name_and_any_size(name: str, size: int) -> None:
    """Names of more than 100 bytes and files of more than 8 GB need the extensions of GNU tar."""
    raw = tar.header(name, size, 1)
    assert len(raw) % tar.BLOCK == 0
    assert next(tar.members(io.BytesIO(raw))) == (name, size)
    with tarfile.open(fileobj=io.BytesIO(raw + tar.END)) as archive:
        info = archive.next()
    assert info is not None
    assert (info.name, info.size, info.isreg(), info.mode) == (name, size, True, 0o644)


@given(st.dictionaries(names, st.binary(max_size=2000), max_size=5), st.data())
def test_several_files_of_which_some_are_read(files: dict[str, bytes], data: st.DataObject) -> None:
    raw = b"".join(
        tar.header(name, len(content), 1) + content + bytes(tar.padding(len(content)))
        for name, content in files.items()
    )
    handle = io.BytesIO(raw + tar.END)
    found = {}
    for name, size in tar.members(handle):
        handle.read(data.draw(st.integers(0, size)))
        found[name] = size
    assert found == {name: len(content) for name, content in files.items()}
