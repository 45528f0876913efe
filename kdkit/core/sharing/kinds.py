"""The kinds of files that come from others into a project: data that no loader runs."""

from __future__ import annotations

from pathlib import PurePosixPath

from kdkit.core.teachers.files import DESCRIPTIONS, is_license_or_card

_SUFFIXES = (*DESCRIPTIONS, ".safetensors", ".jinja", ".h5", ".lock", ".jsonl", ".whl")
_BARE = ("current", "merges", "vocab")
KINDS = f"files end in {', '.join(_SUFFIXES)}"


def is_known_kind(path: str) -> bool:
    """Whether a bundle or a pulled project may hold a file of this name; never code, nor pickles, which can hold it.

    Example:
        >>> is_known_kind("versions/v1/student/model.safetensors"), is_known_kind("json.py")
        (True, False)
    """
    name = PurePosixPath(path).name
    return name.endswith(_SUFFIXES) or name in _BARE or is_license_or_card(name)
