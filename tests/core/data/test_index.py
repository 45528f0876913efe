"""Samples with their domains, labels and splits as arrays."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.contracts import FINDINGS, METADATA, SPLITS, Sample
from kdkit.core.data import load_index
from kdkit.core.data.index import SampleIndex, text_key
from kdkit.core.data.teacher_labels import GAVE
from tests.core.data.projects import make_project, row
from tests.errors import raises_error


def test_samples_are_selected_by_split_domain_and_label(tmp_path: Path) -> None:
    rows = [row(i) for i in range(24)] + [row(24, label=None, domain="mr")]
    index = load_index(make_project(tmp_path, rows))
    assert len(index) == 25
    assert index.ids == tuple(one["id"] for one in rows)
    assert index.domains == ("ct", "fundus", "mr")
    assert [index.domains[i] for i in index.domain_index] == [one["domain"] for one in rows]
    assert index.classes == {"ct": ("abnormal", "normal"), "fundus": ("abnormal", "normal"), "mr": ()}
    labels = [
        index.classes[s.domain][i] if i >= 0 else None for s, i in zip(index.samples, index.label_index, strict=True)
    ]
    assert labels == [one.get("label") for one in rows]
    for split in (None, *SPLITS):
        for domains in (None, ["ct"], ["mr", "fundus"], []):
            for labeled in (None, True, False):
                expected = [
                    i
                    for i, one in enumerate(rows)
                    if (split is None or one["split"] == split)
                    and (domains is None or one["domain"] in domains)
                    and (labeled is None or ("label" in one) == labeled)
                ]
                got = index.select(split, domains, labeled)
                assert got.tolist() == expected
                assert got.dtype == np.int64
    with raises_error("KD-DATA-013", mentions=("'fondus'", "'fundus'")):
        index.select(domains=["fondus"])


def test_a_domain_gets_no_class_from_a_sample_that_a_teacher_put_there() -> None:
    """Or what trust and evaluation choose among would depend on labels of teachers."""
    given = {METADATA: {GAVE["domain"]: True}}
    samples = [
        Sample("a", Path("/a"), "", "ct", "mass", "calibration", extra={FINDINGS: ["edema"]}),
        Sample("b", Path("/b"), "", "ct", "mass", extra=given),
        Sample("c", Path("/c"), "", "ct", "fracture", extra={FINDINGS: ["pus"], **given}),
    ]
    index = SampleIndex(samples, np.zeros(3, np.uint64), np.zeros(3, bool))
    assert (index.classes, index.findings) == ({"ct": ("mass",)}, {"ct": ("edema",)})
    assert index.label_index.tolist() == [0, 0, -1]


@given(st.lists(st.text(st.sampled_from("aB. \t\n\x1c\x0b\xa0ßÉ\u2009µ")), max_size=12))
def test_texts_are_numbered_by_their_keys(texts: list[str]) -> None:
    samples = [Sample(str(n), Path("x.png"), text, "ct") for n, text in enumerate(texts)]
    index = SampleIndex(samples, np.zeros(len(texts), np.uint64), np.zeros(len(texts), bool))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(map(text_key, texts)))}
    with patch.object(sys.modules[SampleIndex.__module__], "TEXTS", 3):
        assert index.text_index.tolist() == [numbers[text_key(text)] for text in texts]
