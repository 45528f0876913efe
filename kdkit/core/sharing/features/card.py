"""Shared columns: license, record and card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.json_record import JsonRecord
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.registry.lock import FileFact

RECORD = "kdkit-features.json"
README = "README.md"
"""The card; people may edit it on the Hub."""
CARD = "card.md"
"""The card as kdkit computed it."""
STORE = "features"
"""The folder of the repository that is a feature store, as in a project."""


Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class SharedColumn(JsonRecord):
    """One column of a data set repository; its files lie in ``features/<teacher>/<first 12 of fingerprint>/``.

    Attributes:
        fingerprint, parts: as in the column's header.
        source, commit, license: of the teacher; a local folder is not published.
        signals: name -> shape of a row and dtype, such as ``512 float16``.
        rows, texts: samples and prompts with features.
        domains: domain -> samples.
    """

    fingerprint: Fingerprint
    parts: Mapping[str, str]
    source: str
    commit: str | None
    license: str
    signals: Mapping[str, str]
    rows: int
    texts: int
    domains: Mapping[str, int]


@dataclass(frozen=True)
class FeaturesRecord(JsonRecord):
    """``kdkit-features.json``: the columns, and size and sha256 of every other file but ``README.md``."""

    FORMAT: ClassVar[int] = 2

    kdkit: str
    columns: Mapping[str, SharedColumn]
    files: Mapping[str, FileFact]

    @classmethod
    def load(cls, path: Path, where: str) -> FeaturesRecord:
        """Read the record of the repository ``where``.

        Raises:
            KdkitError: it is missing, something else, or of another format.
        """
        try:
            return cls.from_bytes(path.read_bytes())
        except (OSError, ValueError) as error:
            raise KdkitError(
                "KD-SHARE-001",
                "not a data set of features that this kdkit can read",
                where=where,
                why=f"{RECORD}: {error}",
                fix="name a repository of 'kdkit features push'; one of a newer kdkit needs: pip install -U kdkit",
                code=ExitCode.MISSING,
            ) from None


def license_to_share(name: str, facts: LicenseFacts, *, public: bool) -> str:
    """The license under which a teacher's features may be passed on.

    Raises:
        KdkitError: exit code 4: derivatives are forbidden; in public, also an unknown license and an
            agreement that others do not have.
    """
    kind, agreement = facts.strictest, "if the owner permits it, record that: 'license: LicenseRef-AGREEMENT'"
    if kind == "agreement":
        if public:
            raise _refused(name, "your own agreement is not everybody's", "push to a private repository")
        return str(facts.asserted)
    if kind == "no-derivatives" or facts.distillation == "forbidden":
        why = f"{facts.shown} allows no derivatives, and features are derived from the teacher"
        raise _refused(name, f"{why}: {facts.note}" if facts.note else why, agreement)
    if kind == "unknown" and facts.distillation != "allowed" and public:
        fix = "find out and write it into registry.yaml as 'license:', or push to a private repository"
        raise _refused(name, f"its license is {facts.shown}", fix)
    return facts.names[0] if len(facts.names) == 1 else facts.shown


def _refused(name: str, why: str, fix: str) -> KdkitError:
    return KdkitError(
        "KD-SHARE-003",
        f"features of '{name}' may not be shared",
        where=f"teachers.{name}",
        why=why,
        fix=fix,
        code=ExitCode.DENIED,
    )


def card(repo: str, columns: Mapping[str, SharedColumn]) -> str:
    """``README.md``: the columns, their teachers, and how to read them."""
    licenses = sorted({column.license for column in columns.values()})
    one = licenses[0] if len(licenses) == 1 and re.fullmatch(r"[a-z0-9.-]+", licenses[0]) else ""
    known = one if one and one != "unknown" else "other"
    name, column = next(iter(columns.items()))
    folder, signal = f"{STORE}/{name}/{column.fingerprint[:12]}", next(iter(column.signals))
    head = ["---", f"license: {known}"]
    if known == "other":
        head += [f"license_name: {json.dumps(', '.join(licenses))}"]
    head += ["tags: [kdkit, features, knowledge-distillation]", "viewer: false", "---"]
    table = ["| teacher | source | license | signals | samples | prompts |", "|---|---|---|---|---|---|"]
    table += [_row(teacher, facts) for teacher, facts in columns.items()]
    domains = sorted({domain for facts in columns.values() for domain in facts.domains})
    counts = [
        "| teacher | " + " | ".join(d.replace("|", "\\|") for d in domains) + " |",
        "|---" * (len(domains) + 1) + "|",
    ]
    for teacher, facts in columns.items():
        counts.append("| " + " | ".join([teacher, *(str(facts.domains.get(d, 0)) for d in domains)]) + " |")
    values = {"repo": repo, "folder": folder, "signal": signal, "teacher": name}
    return "\n".join([*head, "", _TEXT.format(table="\n".join(table), counts="\n".join(counts), **values)])


def _row(name: str, column: SharedColumn) -> str:
    commit = f" at `{column.commit[:12]}`" if column.commit else ""
    signals = ", ".join(f"{signal} {shape}" for signal, shape in column.signals.items())
    cells = (name, f"`{column.source}`{commit}", column.license, signals, str(column.rows), str(column.texts))
    return "| " + " | ".join(cells) + " |"


_TEXT = """\
# {repo}

Outputs of frozen teachers for images and captions: columns of kdkit's feature store. The data set contains no
images, captions, labels or sample names.

{table}

Samples per domain:

{counts}

## Keys

A row belongs to a 64-bit digest of its image file's bytes and its caption. The same file and caption
find the row; another crop, encoding or caption is another sample. Features are not normalized.

Features are not anonymous. With an image and its caption one can check whether it is included, and features can be
inverted in part. Use them under the teachers' licenses, and do not try to identify anybody.

## With kdkit

```
kdkit features pull {repo}
```

In a project whose `registry.lock` has the same teachers: hashes, fingerprints and block checksums are verified, and
`kdkit distill` then does not need these teachers' weights for these samples.

## With h5py

```python
import h5py

with h5py.File("{folder}/shard-0000.h5") as file:
    digests = file["digests"][:]  # (N,) uint64
    features = file["signals/{signal}"][:]  # (N, ...)
```

`{record}` holds the sha256 of every file; `texts.safetensors` features of zero-shot prompts, which name the classes.
""".replace("{record}", RECORD)
