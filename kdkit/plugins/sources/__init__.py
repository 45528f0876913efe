"""Built-in sources of samples: folders, manifests and question formats; docs/reference/sources.md."""

from __future__ import annotations

from kdkit.core.contracts import SourceSpec
from kdkit.core.contracts.hookspecs import hookimpl


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
        SourceSpec(
            name="sharegpt",
            summary="conversations in LLaMA-Factory's sharegpt format, by its dataset_info.json",
            factory="kdkit.plugins.sources.sharegpt:read_sharegpt",
        ),
        SourceSpec(
            name="med-grit",
            summary="Med-GRIT-270k: grounded questions and answers, a JSON file per task",
            factory="kdkit.plugins.sources.med_grit:read_med_grit",
        ),
        SourceSpec(
            name="vqa-rad",
            summary="VQA-RAD: open and closed questions about radiology images",
            factory="kdkit.plugins.sources.vqa:read_vqa_rad",
        ),
        SourceSpec(
            name="slake",
            summary="SLAKE: open and closed questions in English and Chinese",
            factory="kdkit.plugins.sources.vqa:read_slake",
        ),
        SourceSpec(
            name="llava-med-qa",
            summary="LLaVA-Med-qa0.2k: 193 questions with answers of GPT-4",
            factory="kdkit.plugins.sources.vqa:read_llava_med_qa",
        ),
    ]
