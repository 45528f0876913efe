"""The models of a request for answers, opened: the one that answers, and the dual encoder that chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Answering, Decoding, Reporter
from kdkit.core.evaluation.answering.gate_file import GATES
from kdkit.core.evaluation.answering.rerank import Reranker
from kdkit.core.features.extract.answers import decoding_settings
from kdkit.core.project.versions import Version, Versions, load_student
from kdkit.core.teachers import open_answering, open_teacher

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class AnsweringModels:
    """The opened models.

    Attributes:
        name: of the version or teacher; ``model`` answers.
        identity: determines the answers of the model.
        gates: folder where its gates are kept.
        reranker: None without one; ``chooser`` is its fingerprint.
    """

    name: str
    model: Answering
    identity: str
    gates: Path
    reranker: Reranker | None
    chooser: str | None

    def settings(self, decoding: Decoding) -> dict[str, Any]:
        """What determines candidates and their scores, as JSON."""
        return {"model": self.identity, "rerank": self.chooser, "decoding": decoding_settings(decoding)}


def open_models(
    project: Project,
    version: str | None,
    teacher: str | None,
    rerank: str | None,
    *,
    device: str,
    reporter: Reporter,
) -> AnsweringModels:
    """Open a version of the student, or a teacher, and the dual encoder ``rerank``.

    Raises:
        KdkitError: an unknown version or teacher; a model that does not answer; a re-ranker that is no dual encoder.
    """
    chosen = None if teacher else Versions(project).get(version)
    reranker = chooser = None
    if rerank:
        reranker = Reranker(rerank, open_teacher(project, rerank, reporter=reporter).model, device)
        chooser = project.lock.teacher(rerank).fingerprint
    if chosen is None:
        name = str(teacher)
        model = open_answering(project, name, device, reporter=reporter)
        identity, gates = project.lock.teacher(name).fingerprint, project.state / GATES / name
    else:
        name, model = chosen.name, _open_student(chosen, project.catalogue, device)
        identity, gates = f"{chosen.name} {chosen.lineage.created}", chosen.folder / GATES
    return AnsweringModels(name, model, identity, gates, reranker, chooser)


def decodings_of(decoding: Decoding) -> list[Decoding]:
    """Those that give all candidates, the plain answer first: greedy beside samples, the best one of a beam search."""
    return [plain_decoding(decoding), decoding] if decoding.samples else [decoding]


def plain_decoding(decoding: Decoding) -> Decoding:
    """The decoding whose first answer is taken where nothing is chosen."""
    return replace(decoding, samples=0)


def _open_student(version: Version, catalogue: Catalogue, device: str) -> Answering:
    model = load_student(version, catalogue)
    if not isinstance(model, Answering):
        raise KdkitError(
            "KD-EVAL-005", f"{version.name} does not answer questions", fix="evaluate dual encoders by 'kdkit evaluate'"
        )
    return model.to(device).eval() if isinstance(model, nn.Module) else model
