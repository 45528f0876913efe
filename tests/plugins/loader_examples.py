"""Folders for the conformance of loaders that read the files of one model's authors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import kdkit.testing as kit
from tests.plugins.loaders.more_layouts import make_cxr_clip, make_flair, make_keep
from tests.plugins.loaders.original_layouts import make_medclip, make_pmc_clip, published

MAKERS: dict[str, Callable[[Path], object]] = {
    "pmc-clip": make_pmc_clip,
    "medclip": make_medclip,
    "flair": make_flair,
    "cxr-clip": partial(make_cxr_clip, kind="swin"),
    "keep": make_keep,
}


class Published(kit.LoaderContract):
    """A folder as its authors publish it, its pickle converted."""

    @kit.once
    def folder(self) -> Path:
        return published(self.scratch() / "model", MAKERS[self.name])


EXAMPLES: tuple[type[kit.Contract], ...] = tuple(
    type(f"Published_{name}", (Published,), {"name": name}) for name in MAKERS
)
