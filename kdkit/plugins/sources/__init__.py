"""Built-in sources of samples: folders, manifests and question formats; docs/reference/sources.md."""

from __future__ import annotations

from kdkit.core.contracts import SourceSpec
from kdkit.core.contracts.hookspecs import hookimpl

SOURCES = (
    ("folder", "folder:read_folder", "images in a folder per class, with a caption template"),
    ("csv", "manifest:CsvManifest", "a CSV manifest: id, image, text, domain, label, split"),
    ("jsonl", "manifest:JsonlManifest", "a JSON Lines manifest: id, image, text, domain, label, split"),
    ("parquet", "parquet:ParquetRows", "Parquet files: a row per sample, images in cells or as paths"),
    ("hf-dataset", "hf_dataset:HfDataset", "data sets of Hugging Face: save_to_disk, caches, Parquet of the Hub"),
    ("webdataset", "webdataset:WebDataset", "WebDataset shards: tar files with images, texts and fields"),
    ("medmnist", "medmnist:read_medmnist", "MedMNIST's .npz files: arrays of images with labels"),
    ("pmc-jsonl", "pmc_jsonl:PmcJsonl", "figures of PMC-OA, MedICaT and ROCO, with one caption or several"),
    ("coco-captions", "coco:CocoCaptions", "captions in COCO's form: images and annotations in one JSON file"),
    ("dicom", "dicom:DicomFolder", "DICOM files: windows, frames, domains by modality, no names of patients"),
    ("wsi", "wsi:WholeSlides", "whole-slide images: tiles with tissue, or those of TRIDENT and CLAM"),
    (
        "sharegpt",
        "sharegpt:read_sharegpt",
        "conversations in LLaMA-Factory's sharegpt format, by its dataset_info.json",
    ),
    ("med-grit", "med_grit:read_med_grit", "Med-GRIT-270k: grounded questions and answers, a JSON file per task"),
    ("vqa-rad", "vqa:read_vqa_rad", "VQA-RAD: open and closed questions about radiology images"),
    ("slake", "vqa:read_slake", "SLAKE: open and closed questions in English and Chinese"),
    (
        "hub-questions",
        "hub_questions:HubQuestions",
        "PathVQA, and VQA-RAD and SLAKE as the Hub has them: image, question, answer",
    ),
    ("pmc-vqa", "pmc_vqa:read_pmc_vqa", "PMC-VQA: figures of articles, questions with four options"),
    ("omni-med-vqa", "omni_med_vqa:read_omni_med_vqa", "OmniMedVQA: questions with options, twelve modalities"),
    ("vqa-med", "vqa_med:read_vqa_med", "VQA-Med 2019: modality, plane, organ and abnormality of radiology images"),
    ("llava-med-qa", "vqa:read_llava_med_qa", "LLaVA-Med-qa0.2k: 193 questions with answers of GPT-4"),
)
"""Name, factory in this package, summary."""
RECOGNIZERS = {
    **dict.fromkeys(("csv", "jsonl", "parquet"), "tables"),
    "hf-dataset": "hf_dataset",
    **dict.fromkeys(("coco-captions", "pmc-jsonl"), "captions"),
    **dict.fromkeys(("folder", "webdataset", "medmnist", "dicom"), "folders"),
    "wsi": "slides",
    **dict.fromkeys(("hub-questions", "pmc-vqa", "omni-med-vqa", "vqa-med", "vqa-rad", "slake"), "questions"),
}
"""Source -> the module of :mod:`kdkit.plugins.sources.recognize` that recognizes its data."""
INPUTS = {
    **dict.fromkeys(("csv", "jsonl", "coco-captions", "med-grit", "vqa-rad", "llava-med-qa"), "the_file"),
    **dict.fromkeys(("parquet", "hf-dataset", "pmc-jsonl", "webdataset", "medmnist"), "all_files"),
    "dicom": "dicom_files",
    "wsi": "wsi_files",
    "folder": "all_folders",
    "sharegpt": "sharegpt_files",
    "slake": "slake_files",
    "hub-questions": "all_files",
    "pmc-vqa": "pmc_vqa_files",
    "omni-med-vqa": "omni_med_vqa_files",
    "vqa-med": "vqa_med_files",
}
"""Source -> the function of :mod:`kdkit.plugins.sources.inputs` that names what its samples depend on."""

REMOTE = {"parquet": ".parquet", "hf-dataset": ".parquet", "hub-questions": ".parquet", "webdataset": ".tar"}
"""Source -> ending of its files behind a URL."""
PARTS = dict.fromkeys(("parquet", "hf-dataset"), "kdkit.plugins.readers.parquet_parts:image_parts")
"""Source -> the function that names the parts of a file with images."""


@hookimpl
def kdkit_sources() -> list[SourceSpec]:
    return [
        SourceSpec(
            name=name,
            summary=summary,
            factory=f"kdkit.plugins.sources.{factory}",
            recognizer=_recognizer(name),
            remote_ending=REMOTE.get(name, ""),
            remote_pinned=name in ("hf-dataset", "hub-questions"),
            image_parts=PARTS.get(name, ""),
            inputs=f"{__name__}.inputs:{INPUTS[name]}",
        )
        for name, factory, summary in SOURCES
    ]


def _recognizer(name: str) -> str:
    if name not in RECOGNIZERS:
        return ""
    return f"{__name__}.recognize.{RECOGNIZERS[name]}:recognize_{name.replace('-', '_')}"
