"""Answers to a project's samples by a version of the student or by a teacher, the best of several chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.journal import Journal, SampleKey, temporary_journal
from kdkit.core.base.jsonl import require_replaceable, write_rows
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Decoding, Reporter, Sample, Silent, Split
from kdkit.core.data.load import load_index
from kdkit.core.data.unreadable import find_skipped
from kdkit.core.evaluation.answering.attention import draw_attention, require_attention, require_picture
from kdkit.core.evaluation.answering.candidates import BATCH, SelectedAnswer, find_candidates
from kdkit.core.evaluation.answering.gate_file import Gate
from kdkit.core.evaluation.answering.lmms_eval import is_sample_log, sample_log
from kdkit.core.evaluation.answering.measure import measured_gate, task_and_rules
from kdkit.core.evaluation.answering.models import AnsweringModels, decodings_of, open_models, plain_decoding
from kdkit.core.evaluation.answering.names import PLAIN
from kdkit.core.evaluation.answering.select import select_answers

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project

GATED, NEAREST_EVERYWHERE, FIRST = "gated", "nearest", "first"
CHOICES = (GATED, NEAREST_EVERYWHERE, FIRST)
AnswerForm = Literal["kdkit", "lmms-eval"]
"""Of a file of answers."""
FORMS: tuple[AnswerForm, ...] = ("kdkit", "lmms-eval")


@dataclass(frozen=True)
class AnswerRequest:
    """Which model answers which samples.

    Attributes:
        version: of the student (None: the current one), unless ``teacher`` is given.
        rerank: a dual encoder of the registry that chooses among the answers.
        split, domains, limit: select the samples; by default all of the split.
        choose: ``gated``: only where choosing helped on the calibration split; ``nearest``: always the answer nearest
            to the image; ``first``: none. By default ``gated`` with a dual encoder, else ``first``.
    """

    version: str | None = None
    teacher: str | None = None
    rerank: str | None = None
    split: Split = "test"
    domains: tuple[str, ...] = ()
    limit: int | None = None
    choose: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.teacher is not None:
            raise KdkitError(
                "KD-EVAL-002", "either a version of the student answers or a teacher", fix="leave one of them out"
            )
        if self.limit is not None and self.limit < 1:
            raise KdkitError(
                "KD-EVAL-003", f"the limit is {self.limit}", where="limit", fix="give a number of at least 1"
            )
        if self.choose not in (None, *CHOICES):
            raise KdkitError(
                "KD-EVAL-581",
                f"answers cannot be chosen by '{self.choose}'",
                where="choose",
                fix=did_you_mean(str(self.choose), CHOICES),
            )
        if self.choose == NEAREST_EVERYWHERE and not self.rerank:
            raise KdkitError(
                "KD-EVAL-582",
                "no dual encoder is named that finds the answer nearest to the image",
                where="choose",
                fix="name one by 'rerank', or choose 'gated', which also compares answers with each other",
            )

    @property
    def how(self) -> str:
        """``choose`` or its default."""
        return self.choose or (GATED if self.rerank else FIRST)


def answer_samples(
    project: Project,
    request: AnswerRequest,
    decoding: Decoding,
    *,
    to: Path | None = None,
    form: AnswerForm = "kdkit",
    attention: Path | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> list[SelectedAnswer]:
    """Answers to samples of the project, in the order of its index.

    Can be interrupted at any moment; the same call resumes.

    Args:
        to: a JSON Lines file, written whole at the end.
        form: of the file: ``kdkit`` has all answers, ``lmms-eval`` the chosen ones as sample logs.
        attention: a PNG: where the chosen answers to the first samples look.

    Raises:
        KdkitError: ``to`` holds something else; an unknown version, teacher or domain; no sample; a model that does not
            answer, or that cannot tell where it looks; a re-ranker that is not a dual encoder; errors of the models.
    """
    reporter = reporter or Silent()
    if to:
        require_replaceable(to, is_sample_log if form == "lmms-eval" else lambda row: "chosen" in row)
    if attention:
        require_picture(attention)
    index = load_index(project, reporter)
    rows = index.select(split=request.split, domains=request.domains or None)[: request.limit]
    if not len(rows):
        raise KdkitError(
            "KD-EVAL-004",
            f"there is no sample in the split '{request.split}'",
            fix="choose another by --split or --domain; 'kdkit data check' counts the samples",
            code=ExitCode.FOUND,
        )
    models = open_models(project, request.version, request.teacher, request.rerank, device=device, reporter=reporter)
    samples = index.keyed(rows[~find_skipped(index.part(rows), project.state, reporter, refuse=True)])
    drawn = attention and require_attention(models.model, models.name, samples[0][1])
    gate = None
    if request.how == GATED and sum(one.answers for one in decodings_of(decoding)) > 1:
        domains = list(dict.fromkeys(sample.domain for _, sample in samples))
        gate = measured_gate(project, index, models, decoding, domains, reporter)
        _report(gate, reporter)
    elif request.how == GATED:
        reporter.warn("one answer leaves nothing to choose: give --samples 5 or --beams 3")
    name = _journal_name(request, models, decoding, [key for key, _ in samples], gate)
    with (
        system_errors(str(project.state)),
        temporary_journal(project.state / "answers" / f"{name}.jsonl") as file,
    ):
        if gate:
            selected = _by_gate(project, index, models, samples, decoding, gate, Journal(file), reporter)
        else:
            reranker = models.reranker if request.how != FIRST else None
            selected = select_answers(models.model, samples, decoding, Journal(file), reranker, reporter)
        if to and form == "lmms-eval":
            number = {index.ids[row]: place for place, row in enumerate(index.select(split=request.split).tolist())}
            write_rows(to, (sample_log(number[s.id], s, a.text) for (_, s), a in zip(samples, selected, strict=True)))
        elif to:
            write_rows(to, (answer.to_json() for answer in selected))
        if attention and drawn:
            chosen = [answer.text for answer in selected]
            draw_attention(drawn, [sample for _, sample in samples], chosen, attention, reporter)
    return selected


def answer_form(name: str) -> AnswerForm:
    """``name`` itself. Raises: KdkitError: no such form."""
    for form in FORMS:
        if name == form:
            return form
    fix = did_you_mean(name, FORMS)
    raise KdkitError("KD-EVAL-571", f"there is no form '{name}' of answers", where="form", fix=fix)


def _by_gate(
    project: Project,
    index: SampleIndex,
    models: AnsweringModels,
    samples: Sequence[tuple[SampleKey, Sample]],
    decoding: Decoding,
    gate: Gate,
    journal: Journal,
    reporter: Reporter,
) -> list[SelectedAnswer]:
    """Several answers where the gate is open, the plain one elsewhere; in the order of ``samples``."""
    rules = {one.name: one for one in task_and_rules(project, index, models)[1]}
    places: dict[str, list[int]] = {}
    for place, (_, sample) in enumerate(samples):
        places.setdefault(gate.rule(sample.domain), []).append(place)
    found: dict[int, SelectedAnswer] = {}
    for rule, own in places.items():
        part = [samples[place] for place in own]
        if rule == PLAIN:
            sets = find_candidates(models.model, part, [plain_decoding(decoding)], [], journal, reporter)
        else:
            sets = find_candidates(models.model, part, decodings_of(decoding), [rules[rule]], journal, reporter)
        found |= {place: candidates.chosen_by(rule) for place, candidates in zip(own, sets, strict=True)}
    return [found[place] for place in range(len(samples))]


def _report(gate: Gate, reporter: Reporter) -> None:
    """Say where answers are chosen, and where not."""
    decisions = [gate.domains[domain] for domain in sorted(gate.domains)]
    for one in decisions:
        change = f" {one.points:+.1f} points ({one.low:+.1f} to {one.high:+.1f})," if one.count else ""
        used = f"by {one.rule}" if one.rule != PLAIN else "plain answers"
        reporter.say(f"  {one.domain}: {used};{change} {one.why}")
    opened = sum(one.rule != PLAIN for one in decisions)
    reporter.say(f"answers are chosen in {opened} of {len(decisions)} domains; the others get the plain answer")


def _journal_name(
    request: AnswerRequest,
    models: AnsweringModels,
    decoding: Decoding,
    keys: Sequence[SampleKey],
    gate: Gate | None,
) -> str:
    """Digest of everything that determines the answers and their order."""
    rules = {domain: one.rule for domain, one in gate.domains.items()} if gate else {}
    inputs = [models.identity, models.chooser, asdict(decoding), BATCH, keys, request.how, rules]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
