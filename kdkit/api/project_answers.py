"""Methods of :class:`kdkit.Project` that let models answer, and correct their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.api.opened import OpenedProject
from kdkit.api.project_evaluation import split_named

if TYPE_CHECKING:
    from kdkit.api.best_of_n import BestOfN
    from kdkit.api.student import AnswerList
    from kdkit.core.distill.pseudo_labels.correct import CorrectionReport


class AnswerMethods(OpenedProject):
    """Part of :class:`kdkit.Project`."""

    def answer(
        self,
        *,
        version: str | None = None,
        teacher: str | None = None,
        split: str = "test",
        domains: Sequence[str] = (),
        limit: int | None = None,
        samples: int = 0,
        beams: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        max_new: int = 128,
        rerank: str | None = None,
        choose: str | None = None,
        to: Path | str | None = None,
        form: str = "kdkit",
        attention: Path | str | None = None,
        device: str = "cpu",
    ) -> AnswerList:
        """Answers of the student or a teacher; the best of several can be chosen where that helps.

        It can be interrupted; the same call resumes.

        Args:
            version: of the student; by default the current one.
            teacher: answers instead of the student.
            split: ``train``, ``calibration`` or ``test``.
            domains: only these.
            limit: number of samples.
            samples: answers to draw per sample; 0 decodes greedily.
            beams: width of a beam search, which returns as many answers.
            temperature, top_p, seed: of drawn answers.
            max_new: tokens per answer.
            rerank: a teacher, a dual encoder, for the answer nearest to the image.
            choose: ``gated``: by the rule that :meth:`best_of_n` found for the domain; ``nearest``: always the answer
                nearest to the image (ClinKD's SASG); ``first``. By default ``gated`` with ``rerank``, else ``first``.
            to: a JSON Lines file for the answers.
            form: of the file: ``kdkit``, or ``lmms-eval`` for the sample logs that lmms-eval scores offline.
            attention: a PNG of where the answers to the first six samples look.
            device: of the models.

        Example:
            >>> project.answer(samples=8, rerank="biomedclip")  # doctest: +SKIP
        """
        from kdkit.api.student import AnswerList
        from kdkit.core.base.errors import KdkitError
        from kdkit.core.contracts import Decoding
        from kdkit.core.evaluation.answering.answer import AnswerRequest, answer_form, answer_samples

        decoding = Decoding(max_new, beams, samples, temperature, top_p, seed, scored=True)
        request = AnswerRequest(version, teacher, rerank, split_named(split), tuple(domains), limit, choose)
        file, picture = (None if path is None else Path(path) for path in (to, attention))
        project, kind = self._open(), answer_form(form)
        if kind != "kdkit" and file is None:
            raise KdkitError(
                "KD-API-599",
                f"no file is named for the answers in the form '{form}'",
                where="form",
                fix="--to samples.jsonl, or leave --form out",
            )
        found = answer_samples(
            project, request, decoding, to=file, form=kind, attention=picture, device=device, reporter=self.reporter
        )
        return AnswerList(tuple(found))

    def best_of_n(
        self,
        *,
        version: str | None = None,
        teacher: str | None = None,
        domains: Sequence[str] = (),
        samples: int = 0,
        beams: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        max_new: int = 128,
        rerank: str | None = None,
        device: str = "cpu",
    ) -> BestOfN:
        """Where choosing among several answers beats the plain answer, measured on the calibration split.

        The decision is kept with the version; :meth:`answer` follows it. It can be interrupted; the same call resumes.

        Args:
            version, teacher: that answers; by default the current version.
            domains: only these.
            samples, beams, temperature, top_p, seed, max_new: as of :meth:`answer`.
            rerank: a teacher, a dual encoder, for the answer nearest to the image.
            device: of the models.

        Example:
            >>> project.best_of_n(samples=5, rerank="biomedclip")  # doctest: +SKIP
        """
        from kdkit.api.best_of_n import BestOfN
        from kdkit.core.contracts import Decoding
        from kdkit.core.evaluation.answering.answer import AnswerRequest
        from kdkit.core.evaluation.answering.decide import decide_gate

        decoding = Decoding(max_new, beams, samples, temperature, top_p, seed, scored=True)
        request = AnswerRequest(version, teacher, rerank, domains=tuple(domains))
        return BestOfN(decide_gate(self._open(), request, decoding, device=device, reporter=self.reporter))

    def correct(
        self,
        to: Path | str,
        *,
        version: str | None = None,
        threshold: float = 0.8,
        options: Mapping[str, Any] | None = None,
        corrector: str = "reference",
        accept: float | None = None,
        domains: Sequence[str] = (),
        limit: int | None = None,
        device: str = "cpu",
    ) -> CorrectionReport:
        """Let the student answer the training split; write a manifest of corrected wrong answers.

        It can be interrupted; the same call resumes. A recipe with ``correction`` does this during training.

        Args:
            to: the manifest, a JSON Lines file.
            version: of the student; by default the current one.
            threshold: answers with a lower score are corrected, 0 to 1.
            options: of the scoring task.
            corrector: a teacher that rewrites, or ``reference``.
            accept: least score of a corrector's text; by default the threshold.
            domains: only these.
            limit: number of samples.
            device: of the models.

        Example:
            >>> project.correct("corrected.jsonl", threshold=0.5)  # doctest: +SKIP
        """
        from kdkit.core.distill.pseudo_labels.correct import CorrectionRequest, write_corrections

        request = CorrectionRequest(
            threshold, accept, options or {}, corrector=corrector, domains=tuple(domains), limit=limit
        )
        return write_corrections(
            self._open(), Path(to), request, version=version, device=device, reporter=self.reporter
        )
