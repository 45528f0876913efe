"""Text metrics against pycocoevalcap (where it is installed), and against what it gave for the same sentences."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.plugins.answers.text.clef_bleu import clef_bleu
from kdkit.plugins.answers.text.meteor import JAR, MeteorLite, find_jar, make_meteor, stem
from kdkit.plugins.answers.text.overlap import bleu, bleu_counts, cider, longest_common_subsequence, rouge_l
from kdkit.plugins.answers.text.spice import CORENLP, Spice
from kdkit.plugins.answers.text.tokens import words_of
from tests.errors import raises_error

JAVA = shutil.which("java") is not None and find_jar("meteor", JAR) is not None
needs_java = pytest.mark.skipif(not JAVA, reason="no Java, or no pycocoevalcap")

PAIRS = [
    ("There is a large mass in the left lung.", "A big mass is seen in the left lung, well-defined."),
    ("No evidence of pneumonia!", "No evidence of pneumonia."),
    ("yes", "no"),
    ("The PAS (Periodic Acid-Schiff) staining shows mucin in goblet cells", "Goblet cells with stored mucin"),
    ("the the the the", "the lesion has the shape of the letter c"),
    ("", "an empty answer scores nothing"),
]
SPEECH = "there is a large mass in the left lung lungs no evidence evident of pneumonia seen normal yes"
WORDS = SPEECH.split()
lists = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12)
GOLDEN = {
    "bleu": [0.4959315474246081, 0.34860765387014064, 0.2726064960368815, 0.21370807691544644],
    "rouge_l": 0.385235244315433,
    "cider": 2.533799575209199,
    "meteor": 0.23150853232495064,
}
"""What pycocoevalcap 1.2 gave for PAIRS."""
GOLDEN_METEOR = [0.3279775860348915, 1.0, 0.0, 0.25609027248399174, 0.079734219269103, 0.0]
"""The same, for each of them."""


def tokenized() -> tuple[list[list[str]], list[list[str]]]:
    return [words_of(answer) for answer, _ in PAIRS], [words_of(reference) for _, reference in PAIRS]


def corpus_bleu(answers: list[list[str]], references: list[list[str]]) -> Any:
    return bleu(bleu_counts(answers, references).sum(axis=0, keepdims=True))[0]


def as_coco(lists: list[list[str]]) -> dict[int, list[str]]:
    return {number: [" ".join(words)] for number, words in enumerate(lists)}


def coco(module: str, name: str) -> Any:
    """A scorer of pycocoevalcap."""
    pytest.importorskip("pycocoevalcap")
    return getattr(import_module(f"pycocoevalcap.{module}"), name)


def test_golden_values() -> None:
    answers, references = tokenized()
    assert corpus_bleu(answers, references) == pytest.approx(GOLDEN["bleu"], abs=1e-9)
    pairs = list(zip(answers, references, strict=True))
    assert np.mean([rouge_l(a, r) for a, r in pairs]) == pytest.approx(GOLDEN["rouge_l"], abs=1e-9)
    assert 10 * np.mean(cider(answers, references)) == pytest.approx(GOLDEN["cider"], abs=1e-9)


@settings(max_examples=40)
@given(st.lists(st.tuples(lists, lists), min_size=2, max_size=6))
def test_bleu_rouge_and_cider_equal_pycocoevalcap(pairs: list[tuple[list[str], list[str]]]) -> None:
    answers, references = [a for a, _ in pairs], [r for _, r in pairs]
    given_to = as_coco(references), as_coco(answers)
    whole, each = coco("bleu.bleu", "Bleu")(4).compute_score(*given_to, verbose=0)
    assert corpus_bleu(answers, references) == pytest.approx(whole, abs=1e-9)
    single = bleu(bleu_counts(answers, references)).T
    assert single == pytest.approx(np.array(each), abs=1e-9)
    mean, single = coco("rouge.rouge", "Rouge")().compute_score(*given_to)
    assert [rouge_l(a, r) for a, r in pairs] == pytest.approx(single, abs=1e-9)
    mean, single = coco("cider.cider", "Cider")().compute_score(*given_to)
    assert 10 * np.array(cider(answers, references)) == pytest.approx(np.array(single), abs=1e-9)
    assert 10 * np.mean(cider(answers, references)) == pytest.approx(mean, abs=1e-9)


def test_an_empty_answer_scores_nothing() -> None:
    assert bleu(bleu_counts([[]], [["a", "b"]])) == pytest.approx(0.0, abs=1e-9)
    assert rouge_l([], ["a"]) == 0.0
    assert cider([[], ["a", "b"]], [["a"], ["c", "d"]])[0] == 0.0
    lite = MeteorLite()
    assert lite.score(lite.counts([[]], [["a"]])).tolist() == [0.0]


@given(lists, lists)
def test_the_longest_common_subsequence(first: list[str], second: list[str]) -> None:
    def slowly(a: tuple[str, ...], b: tuple[str, ...]) -> int:
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + slowly(a[1:], b[1:])
        return max(slowly(a[1:], b), slowly(a, b[1:]))

    a, b = tuple(first[:6]), tuple(second[:6])
    assert longest_common_subsequence(a, b) == slowly(a, b) == longest_common_subsequence(b, a)


@given(lists)
def test_equal_texts_score_best(words: list[str]) -> None:
    lite = MeteorLite()
    assert rouge_l(words, words) == pytest.approx(1.0)
    assert bleu(bleu_counts([words], [words]))[0, 0] == pytest.approx(1.0, abs=1e-6)
    score = lite.score(lite.counts([words], [words]))[0]
    assert score == pytest.approx(1 - 0.5 / len(words) ** 3)


# ------------------------------------------------------------------------------------- METEOR


def test_meteor_lite_by_hand() -> None:
    """Stems match after equal words; "the left lung" is one chunk, "mass" another."""
    counts = MeteorLite().counts([words_of("mass in the left lungs")], [words_of("the left lung has a mass")])
    assert counts.tolist() == [[5, 6, 4, 2]]
    precision, recall = 4 / 5, 4 / 6
    wanted = (1 - 0.5 * (2 / 4) ** 3) * precision * recall / (0.9 * precision + 0.1 * recall)
    assert MeteorLite().score(counts)[0] == pytest.approx(wanted, abs=1e-12)


def test_meteor_lite_differs_from_nltk_in_the_alignment_of_repeated_words() -> None:
    """nltk matches each word with the last free equal one; METEOR asks for the fewest chunks. nltk 3.10.4 without
    WordNet gives 0.5875 and 4 chunks here, and the same as ours where no word is repeated."""
    lite = MeteorLite()
    for answer, nltk, equal in (
        ("the mass in the left lung", 0.5874840357598978, False),
        ("a mass in right lung", 0.5186046511627908, True),
    ):
        counts = lite.counts([answer.split()], [["a", "mass", "in", "the", "left", "lung", "and", "the", "right"]])
        found = float(lite.score(counts)[0])
        assert found == pytest.approx(nltk, abs=1e-12) if equal else (found > nltk and counts[0, 3] == 2)


def test_meteor_is_never_replaced_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_meteor("lite").name == "meteor-lite"
    with raises_error("KD-ANS-015", mentions=("'nltk'",)):
        make_meteor("nltk")
    monkeypatch.setenv("PATH", "")
    with raises_error("KD-ANS-016") as error:
        make_meteor("jar")
    assert "meteor: lite" in error.value.fix


@needs_java
def test_meteor_of_the_jar_equals_pycocoevalcap() -> None:
    """One start of the jar takes seconds, so pycocoevalcap's own run is not repeated here."""
    meteor = make_meteor("jar")
    counts = meteor.counts(*tokenized())
    assert meteor.name == "meteor-1.5"
    assert meteor.score(counts) == pytest.approx(GOLDEN_METEOR, abs=1e-9)
    assert meteor.score(counts.sum(axis=0, keepdims=True))[0] == pytest.approx(GOLDEN["meteor"], abs=1e-9)
    assert meteor.counts([], []).shape == (0, 23)


PORTER = (
    "caresses:caress ponies:poni ties:ti cats:cat feed:feed agreed:agre plastered:plaster bled:bled motoring:motor "
    "sing:sing conflated:conflat troubled:troubl sized:size hopping:hop tanned:tan falling:fall hissing:hiss "
    "fizzed:fizz failing:fail filing:file happy:happi sky:sky relational:relat conditional:condit rational:ration "
    "digitizer:digit radicalli:radic vietnamization:vietnam operator:oper decisiveness:decis sensibiliti:sensibl "
    "triplicate:triplic formative:form electrical:electr goodness:good revival:reviv adjustable:adjust "
    "replacement:replac adoption:adopt communism:commun angulariti:angular bowdlerize:bowdler probate:probat "
    "rate:rate cease:ceas controll:control roll:roll generalizations:gener oscillators:oscil is:is t2:t2"
)


@pytest.mark.parametrize(("word", "root"), [pair.split(":") for pair in PORTER.split()])
def test_porter_stems(word: str, root: str) -> None:
    assert stem(word) == root


# -------------------------------------------------------------------------------------- SPICE


def test_spice_without_corenlp(tmp_path: Path) -> None:
    with raises_error("KD-ANS-018") as error:
        Spice(tmp_path)
    assert error.value.why == f"no {CORENLP[0]} in it"
    assert error.value.where == str(tmp_path)


@needs_java
def test_spice_with_a_damaged_corenlp(tmp_path: Path) -> None:
    for name in CORENLP:
        (tmp_path / name).write_bytes(b"")
    with raises_error("KD-ANS-019"):
        Spice(tmp_path, memory="256m").scores(["a mass"], ["a mass in the lung"])


# ---------------------------------------------------------------------------------- tokenizer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A well-defined, 3.5 cm mass.", "a well-defined 3.5 cm mass"),
        ("It doesn't (cannot) matter: it's \"normal\"!", "it does n't -lrb- can not -rrb- matter it 's normal"),
        ("T2-weighted H&E x100 L4/L5", "t2-weighted h&e x100 l4/l5"),
        ("<box>(12,34),(567,890)</box>", "<box> -lrb- 12,34 -rrb- -lrb- 567,890 -rrb- </box>"),
        ("Dr. Smith, e.g. Fig. 3 ... etc", "dr. smith e.g. fig. 3 etc"),
        ("a 1.5-cm nodule, 2-4.5 cm; 3-mm", "a 1.5-cm nodule 2-4 .5 cm 3-mm"),
        ("1/2-inch, 1,000-2,000 cells, v1.2", "1/2-inch 1,000-2 ,000 cells v1 .2"),
        ("3–4 cm — well… left―right x---y", "3 4 cm well left right x y"),
        ("“mass” of ‘lung’, left‐sided", "mass of lung left‐sided"),
        ("from -3 to +5, (-3.5) 4.5mm", "from -3 to +5 -lrb- -3.5 -rrb- 4.5 mm"),
        ("et al. Jan. 2020 etc. and vitamin A.", "et al. jan. 2020 etc. and vitamin a."),
        ("H&E a&b why?? '90s", "h&e a & b why ?? '90s"),
        ("", ""),
        ("?!", "?!"),
    ],
)
def test_words(text: str, words: str) -> None:
    assert words_of(text) == words.split()


@needs_java
def test_words_equal_the_stanford_tokenizer() -> None:
    texts = [text for pair in PAIRS for text in pair if text] + [
        "T2-weighted MRI shows hyperintensity in the fronto-parietal region; 10% decrease, yes/no",
        "e.g. the U.S. patient, Dr. Smith's X-ray: 5mm nodule, 1/3 of the lobe [1] and/or atelectasis",
        "The lesion’s border is ill-defined -- irregular, -5 HU & ~37°C, SpO2 95%, ≥ 3 mm",
        "she'll we've I'm they'd can't won't; the patients' lungs, 0.1-0.2 ml, p<0.05, T1N0M0, 3,000 cells",
        "<ref>liver</ref><box>(12,34),(567,890)</box>",
        "a 1.5-cm nodule, 2-4.5 cm; 3-mm 1/2-inch, 1,000-2,000 cells, v1.2 3–4 cm — well… left―right x---y",
        "“mass” of ‘lung’, left‐sided from -3 to +5, (-3.5) 4.5mm et al. Jan. 2020 etc. and vitamin A.",
        "H&E a&b why?? '90s BI-RADS-4 Gleason 3+4=7 5.5-mm 90–95% CD4+/CD8- no?! 10-15-3 5'-end",
    ]
    given_to = {number: [{"caption": text}] for number, text in enumerate(texts)}
    found = coco("tokenizer.ptbtokenizer", "PTBTokenizer")().tokenize(given_to)
    assert [" ".join(words_of(text)) for text in texts] == [found[number][0] for number in range(len(texts))]


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("cta - ct angiography", "cta - ct angiography", 1.0),
        ("ct angiography", "cta - ct angiography", 0.60653066),
        ("mr - t1w w/gadolinium", "mr - t2 weighted", 0.759835686),
        ("no", "yes", 0.0),
        ("no", "not", 1.0),
        ("lung and pleura", "lung, mediastinum, pleura", 0.60653066),
        ("multiple cystic masses of the left kidney", "cystic mass in the left kidney", 0.668740305),
        (
            "a glioblastoma multiforme of the left temporal lobe with edema",
            "glioblastoma multiforme (gbm, astrocytoma grade 4/iv)",
            0.508132748,
        ),
        ("pulmonary embolism, right lower lobe", "pulmonary embolism", 0.562341325),
    ],
)
def test_bleu_of_vqa_med(answer: str, reference: str, value: float) -> None:
    """What ``sentence_bleu`` of NLTK 3.2.5 gave for the evaluator's words."""
    assert clef_bleu(answer, reference) == pytest.approx(value, abs=1e-9)
