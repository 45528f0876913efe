"""METEOR: the reference implementation in Java, or ``meteor-lite`` in Python."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import snowballstemmer

from kdkit.core.base.errors import ExitCode, KdkitError

Array = np.ndarray[Any, Any]
JAR = "meteor-1.5.jar"
COLUMNS = 23
"""Columns of the jar's output: lengths, function words, matches of four kinds, chunks, matched words."""


_PORTER = snowballstemmer.stemmer("porter")


class Meteor(Protocol):
    """A METEOR variant: additive statistics per sample, and a score from any sum of them."""

    @property
    def name(self) -> str:
        """The variant, for reports."""

    def counts(self, answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Array:
        """N lists of words each -> (N, S)."""

    def score(self, counts: Array) -> Array:
        """(R, S) -> (R,) in [0, 1]."""


def make_meteor(which: str) -> Meteor:
    """``jar`` or ``lite``.

    Raises:
        KdkitError: an unknown name; ``jar`` without Java or pycocoevalcap.
    """
    if which == "lite":
        return MeteorLite()
    if which != "jar":
        raise KdkitError("KD-ANS-015", f"there is no METEOR '{which}'", fix="'jar' (Java and pycocoevalcap) or 'lite'")
    jar = find_jar("meteor", JAR)
    if jar is None or shutil.which("java") is None:
        raise KdkitError(
            "KD-ANS-016",
            "METEOR's jar cannot run here",
            why="no 'java' command" if jar else "pycocoevalcap, which has the jar, is not installed",
            fix="install Java and 'pip install --no-deps pycocoevalcap', or choose meteor: lite",
            code=ExitCode.MISSING,
        )
    return MeteorJar(jar)


def find_jar(metric: str, name: str) -> Path | None:
    """A metric's jar inside an installed pycocoevalcap, which is not imported."""
    spec = find_spec("pycocoevalcap")
    jars = (Path(folder) / metric / name for folder in ((spec and spec.submodule_search_locations) or ()))
    return next((jar for jar in jars if jar.is_file()), None)


class MeteorJar:
    """METEOR 1.5 (Denkowski and Lavie, WMT 2014), English, with stems, synonyms and paraphrases.

    Args:
        jar: ``meteor-1.5.jar`` with its ``data`` folder beside it.
    """

    name = "meteor-1.5"
    _ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
    _WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
    """Of exact, stem, synonym and paraphrase matches."""

    def __init__(self, jar: Path) -> None:
        self.jar = jar

    def counts(self, answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Array:
        """(N, 23) as the jar prints them, in one run of it.

        Raises:
            KdkitError: when the jar fails.
        """
        if not answers:
            return np.zeros((0, COLUMNS))
        lines = [
            f"SCORE ||| {_line(reference)} ||| {_line(answer)}\n"
            for answer, reference in zip(answers, references, strict=True)
        ]
        command = ["java", "-Xmx2G", "-jar", str(self.jar), "-", "-", "-stdio", "-l", "en", "-norm"]
        done = subprocess.run(
            command, input="".join(lines), capture_output=True, text=True, encoding="utf-8", check=False
        )
        rows = [line.split() for line in done.stdout.splitlines()]
        if done.returncode or [len(row) for row in rows] != [COLUMNS] * len(answers):
            raise KdkitError(
                "KD-ANS-017",
                "METEOR's jar failed",
                where=str(self.jar),
                why=(done.stderr or done.stdout).strip()[-300:],
                fix="check that 'java -jar' runs this file, or choose meteor: lite",
                code=ExitCode.MISSING,
            )
        found = np.array(rows, dtype=np.float64)
        perfect = (found[:, 20] == 1) & (found[:, 21:23] == found[:, 0:2]).all(axis=1)
        found[perfect, 20] = 0  # as the jar does: equal sentences have no fragmentation
        return found

    def score(self, counts: Array) -> Array:
        """Section 2 of the paper, from the jar's numbers: equal to what its ``EVAL`` gives."""
        lengths, functions = counts[:, 0:2], counts[:, 2:4]
        stages = counts[:, 4:20].reshape(-1, 4, 4)
        content, function = stages[:, :, 0:2], stages[:, :, 2:4]
        weighted = np.einsum("k,rks->rs", self._WEIGHTS, self._DELTA * content + (1 - self._DELTA) * function)
        whole = self._DELTA * (lengths - functions) + (1 - self._DELTA) * functions
        with np.errstate(divide="ignore", invalid="ignore"):
            precision, recall = np.nan_to_num(weighted / whole, posinf=0.0).T
            mean = precision * recall / (self._ALPHA * precision + (1 - self._ALPHA) * recall)
            chunks, matched = counts[:, 20], counts[:, 21:23].mean(axis=1)
            penalty = self._GAMMA * (chunks / matched) ** self._BETA
        return np.asarray(np.nan_to_num(mean * (1 - penalty)))


class MeteorLite:
    """METEOR of 2007 (Lavie and Agarwal, WMT 2007) with exact and stem matches alone: alpha 0.9, beta 3, gamma 0.5.

    Without synonyms and paraphrases, so its figures differ from METEOR 1.5 and have another name.
    """

    name = "meteor-lite"
    _ALPHA, _BETA, _GAMMA = 0.9, 3.0, 0.5

    def counts(self, answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Array:
        """(N, 4): words of the answer, words of the reference, matched words, chunks."""
        rows = [
            (len(answer), len(reference), *_matches(answer, reference))
            for answer, reference in zip(answers, references, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 4)

    def score(self, counts: Array) -> Array:
        """``(1 - gamma (chunks / m)^beta) * P R / (alpha P + (1 - alpha) R)``."""
        length, reference, matched, chunks = counts.T
        with np.errstate(divide="ignore", invalid="ignore"):
            precision, recall = matched / length, matched / reference
            mean = precision * recall / (self._ALPHA * precision + (1 - self._ALPHA) * recall)
            penalty = self._GAMMA * (chunks / matched) ** self._BETA
        return np.asarray(np.nan_to_num(mean * (1 - penalty)))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Stem of a lower-case word by Porter (1980); words of up to two letters and words with other characters stay."""
    return str(_PORTER.stemWord(word)) if len(word) > 2 and re.fullmatch("[a-z]+", word) else word


def _matches(answer: Sequence[str], reference: Sequence[str]) -> tuple[int, int]:
    """Matched words and the chunks that they make: equal words first, then equal stems, longest runs first."""
    taken: dict[int, int] = {}
    used: set[int] = set()
    for key in (str, stem):
        first, second = [key(word) for word in answer], [key(word) for word in reference]
        while (run := _longest_run(first, second, taken, used)) is not None:
            start, other, length = run
            taken |= {start + step: other + step for step in range(length)}
            used |= set(range(other, other + length))
    places = sorted(taken.items())
    joined = sum(1 for (a, b), (c, d) in pairwise(places) if (c, d) == (a + 1, b + 1))
    return len(places), len(places) - joined


def _longest_run(
    first: Sequence[str], second: Sequence[str], taken: dict[int, int], used: set[int]
) -> tuple[int, int, int] | None:
    """(place in ``first``, place in ``second``, length) of the longest common run of free words, or None."""
    best: tuple[int, int, int] | None = None
    ending = [0] * (len(second) + 1)
    for place, word in enumerate(first):
        now = [0] * (len(second) + 1)
        for other, candidate in enumerate(second):
            if word == candidate and place not in taken and other not in used:
                length = now[other + 1] = ending[other] + 1
                if best is None or length > best[2]:
                    best = (place - length + 1, other - length + 1, length)
        ending = now
    return best


def _line(words: Sequence[str]) -> str:
    return " ".join(words).replace("|||", "")
