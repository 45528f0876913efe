"""What a card says, and the part of it that the Hub reads: the YAML at its top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdkit.core.contracts import Published
from kdkit.core.project.lineage import HUB
from kdkit.core.sharing.release.form import StudentForm, Wording
from kdkit.core.sharing.release.layout import README, Record
from kdkit.core.sharing.release.license import UNDETERMINED, StudentLicense
from kdkit.core.sharing.release.provenance import Taught

HUB_LICENSES = frozenset(
    (
        *("apache-2.0", "mit", "openrail", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause"),
        *("bsd-3-clause-clear", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
        *("cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0"),
        *("cc-by-nc-sa-4.0", "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0"),
        *("epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl"),
        *("lgpl-2.1", "lgpl-3.0", "isc", "ms-pl", "mpl-2.0", "odc-by", "odbl", "osl-3.0", "postgresql", "ncsa"),
        *("unlicense", "zlib", "pddl"),
    )
)
"""Names that the Hub accepts as ``license`` (hub-docs, repositories-licenses); others are ``other`` with their name."""


@dataclass(frozen=True)
class CardFacts:
    """All that a card says.

    Attributes:
        record: of the release, without its files.
        form: of the student.
        license: what the student is published under.
        teachers: all of its history.
        results: what ``eval/results.json`` holds.
        base: the repository of the model that its adapters belong to, of the release that it goes on from, or of its
            initial checkpoint; or empty.
        endpoint: address of the Hub that it is published on, and where the repositories that it names are.
        taught: how many different training samples it has been taught, over all versions.
        notes: paragraphs about loading it and about its figures.
    """

    record: Record
    form: StudentForm
    license: StudentLicense
    teachers: Sequence[Taught]
    results: Mapping[str, Any]
    base: str
    taught: int
    notes: Sequence[str] = ()
    endpoint: str = HUB

    @property
    def published(self) -> Published:
        """What the publisher made."""
        return self.form.published

    @property
    def words(self) -> Wording:
        """Words for the kind of student."""
        return self.form.wording

    @property
    def title(self) -> str:
        """The repository's name without its owner."""
        return str(self.record.repository).rpartition("/")[2]

    @property
    def own(self) -> Mapping[str, Any]:
        """The version's own row of the results; without one its ``domains`` are empty."""
        name = self.record.version
        rows = (m for m in self.results["models"] if m["role"] == "student" and m["name"] == name)
        return next(rows, {"name": name, "role": "student", "mean": {}, "domains": {}})


def front_matter(facts: CardFacts) -> str:
    """The YAML, as huggingface_hub's own ``ModelCardData`` writes it."""
    from huggingface_hub import ModelCardData

    name = facts.license.name
    domains = [tag(domain) for domain in facts.record.lineage.data.known]
    data: dict[str, Any] = {"license": name}
    if name == UNDETERMINED:
        data = {"license": "unknown"}
    elif name not in HUB_LICENSES:
        data = {"license": "other", "license_name": name, "license_link": README}
    data |= {"library_name": facts.published.library, "pipeline_tag": facts.words.pipeline}
    data["tags"] = list(
        dict.fromkeys([*facts.published.tags, "knowledge-distillation", "biomedical", "kdkit", *filter(None, domains)])
    )
    if facts.base:
        data |= {"base_model": facts.base, "base_model_relation": "adapter" if facts.form.base else "finetune"}
    if results := list(_model_index(facts)):
        data |= {"model_name": facts.title, "eval_results": results}
    return str(ModelCardData(**data).to_yaml())


def _model_index(facts: CardFacts) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    split, judged = facts.results["split"], facts.words.judged
    for domain, score in facts.own["domains"].items():
        for metric, figure in score["metrics"].items():
            if figure["value"] is not None:
                yield EvalResult(
                    task_type=facts.words.pipeline,
                    task_name=facts.words.task,
                    dataset_type=tag(domain) or "domain",
                    dataset_name=f"{domain}, {score['count']} {judged} of the {split} split (not published)",
                    dataset_split="test" if split == "test" else "validation",
                    metric_type="roc_auc" if metric == "auc" else metric,
                    metric_name=metric,
                    metric_value=figure["value"],
                )


def tag(name: str) -> str:
    """``Chest X-Ray`` -> ``chest-x-ray``."""
    return "-".join("".join(char if char.isalnum() else " " for char in name.lower()).split())
