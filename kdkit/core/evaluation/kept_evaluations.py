"""A folder of evaluations by key: those of finished trials, whose students are gone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.json_record import with_checksum, without_checksum
from kdkit.core.base.locks import file_lock
from kdkit.core.evaluation.scores import Evaluation

NAME_LENGTH = 32
"""Characters of a key in a file name."""


@dataclass(frozen=True)
class KeptEvaluations:
    """Evaluations in a folder, each with a checksum.

    Attributes:
        command: makes them, for messages.
        others: further folders that are read, not written.
        claims: folder of the claims, where the work behind a key is; all that may do it share this folder.
    """

    folder: Path
    command: str
    others: Sequence[Path] = field(default=())
    claims: Path | None = None

    def has(self, key: str) -> bool:
        """Whether an evaluation is there."""
        return self._found(key) is not None

    def load(self, key: str) -> Evaluation:
        """The evaluation of this key.

        Raises:
            KdkitError: it is absent or damaged.
        """
        file = self._found(key) or self._file(key)
        try:
            return Evaluation.from_json(without_checksum(json.loads(file.read_bytes())))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise KdkitError(
                "KD-EVAL-381",
                "the evaluation of a run cannot be read",
                where=str(file),
                why=str(error),
                fix=f"delete the file; '{self.command}' repeats the run",
                code=ExitCode.MISSING,
            ) from None

    def save(self, key: str, evaluation: Evaluation) -> None:
        """Write an evaluation in one step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(with_checksum(evaluation.to_json()), allow_nan=False)
        write_atomically(self._file(key), content.encode())

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Claim the work behind a key until the block ends; a killed process loses its claim.

        Yields:
            False if another process has it. On a file system without locks always True.
        """
        folder = self.claims or self.folder
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{key[:NAME_LENGTH]}.busy"
        with file_lock(file) as mine:
            yield mine is not False
            if mine:
                file.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key[:NAME_LENGTH]}.json"

    def _found(self, key: str) -> Path | None:
        for folder in (self.folder, *self.others):
            file = folder / self._file(key).name
            if file.is_file():
                return file
        return None
