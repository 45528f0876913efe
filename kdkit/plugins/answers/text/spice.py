"""SPICE (Anderson et al., ECCV 2016) by its own implementation, with the user's CoreNLP."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.answers.text.meteor import find_jar

JAR = "spice-1.0.jar"
CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
"""SPICE needs exactly this version; pycocoevalcap would download it."""
MAIN = "edu.anu.spice.SpiceScorer"


class Spice:
    """Runs SPICE's jar of an installed pycocoevalcap with the CoreNLP of a folder. Nothing is downloaded.

    Args:
        corenlp: folder that holds ``stanford-corenlp-3.6.0.jar`` and its models.
        memory: of the Java process.

    Raises:
        KdkitError: a missing part.
    """

    def __init__(self, corenlp: Path, memory: str = "8G") -> None:
        missing = [name for name in CORENLP if not (corenlp / name).is_file()]
        jar = find_jar("spice", JAR)
        why = f"no {missing[0]} in it" if missing else ""
        why = why or ("" if shutil.which("java") else "no 'java' command")
        why = why or ("" if jar else "pycocoevalcap, which has the jar, is not installed")
        if why or jar is None:
            raise KdkitError(
                "KD-ANS-018",
                "SPICE cannot run",
                where=str(corenlp),
                why=why,
                fix="install Java, 'pip install --no-deps pycocoevalcap', and unpack stanford-corenlp-full-2015-12-09",
                code=ExitCode.MISSING,
            )
        jars = [jar, *sorted((jar.parent / "lib").glob("*.jar")), *(corenlp / name for name in CORENLP)]
        self._command = ["java", f"-Xmx{memory}", "-cp", os.pathsep.join(map(str, jars)), MAIN]

    def scores(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray[Any, Any]:
        """(N,) F-scores in [0, 1] of N answers against one reference each; 0 if SPICE gives none.

        Raises:
            KdkitError: when the jar fails.
        """
        rows = [
            {"image_id": number, "test": answer, "refs": [reference]}
            for number, (answer, reference) in enumerate(zip(answers, references, strict=True))
        ]
        with TemporaryDirectory(prefix="kdkit-spice-") as name:
            given, found = Path(name) / "in.json", Path(name) / "out.json"
            given.write_text(json.dumps(rows), encoding="utf-8")
            command = [*self._command, str(given), "-out", str(found), "-subset", "-silent"]
            done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
            if done.returncode or not found.is_file():
                raise KdkitError(
                    "KD-ANS-019",
                    "SPICE's jar failed",
                    why=done.stderr.strip()[-300:],
                    fix="check the CoreNLP folder and the Java version (8), or remove the option corenlp",
                    code=ExitCode.MISSING,
                )
            scored = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(found.read_text("utf-8"))}
        return np.nan_to_num(np.array([scored[number] for number in range(len(rows))], dtype=np.float64))
