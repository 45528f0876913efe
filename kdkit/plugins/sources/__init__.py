"""Built-in sources of samples: a folder per class, CSV and JSONL manifests. Options: docs/data.md."""

from __future__ import annotations

from kdkit.core.contracts import SourceSpec
from kdkit.core.hookspecs import hookimpl


@hookimpl
def kdkit_sources() -> list[SourceSpec]:
    return [
        SourceSpec(
            name="folder",
            summary="images in a folder per class, with a caption template",
            factory="kdkit.plugins.sources.folder:read_folder",
        ),
        SourceSpec(
            name="csv",
            summary="a CSV manifest: id, image, text, domain, label, split",
            factory="kdkit.plugins.sources.manifest:CsvManifest",
        ),
        SourceSpec(
            name="jsonl",
            summary="a JSON Lines manifest: id, image, text, domain, label, split",
            factory="kdkit.plugins.sources.manifest:JsonlManifest",
        ),
    ]
