"""A word-level tokenizer from a list of words, written as ordinary tokenizer files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from kdkit.core.base.errors import KdkitError

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"

# ``END`` has the highest id because open_clip's default text pooling takes the token with the highest id.
_FRONT = (PAD, UNKNOWN, START)

_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",  # a name that transformers 4 and 5 both know
    "pad_token": PAD,
    "unk_token": UNKNOWN,
    "bos_token": START,
    "eos_token": END,
    "clean_up_tokenization_spaces": False,
}


def word_vocabulary(words: Sequence[str]) -> dict[str, int]:
    """Token -> id: padding 0, unknown 1, start 2, then ``words`` in their order, and the end token last."""
    return {token: index for index, token in enumerate((*_FRONT, *words, END))}


def word_tokenizer_files(words: Sequence[str]) -> dict[str, bytes]:
    """File name -> content of a tokenizer that ``AutoTokenizer.from_pretrained`` reads.

    Text is lowercased and split into runs of word characters and of punctuation. A word that is not in ``words``
    becomes the unknown token. A start and an end token enclose every text.

    Raises:
        KdkitError: a word is empty, not lowercase, repeated, or would be split.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    cut = pre_tokenizers.Whitespace()
    seen: set[str] = set(_FRONT) | {END}
    for word in words:
        parts = [part for part, _ in cut.pre_tokenize_str(word)]
        if word in seen or word != word.lower() or parts != [word]:
            raise KdkitError(
                "KD-LOAD-032",
                f"the tokenizer cannot use the word {word!r}",
                where="tokenizer.words",
                why="each word must be lowercase, without spaces or hyphens, and listed once",
                fix="correct or remove the word",
            )
        seen.add(word)
    vocabulary = word_vocabulary(words)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = cut
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(t, vocabulary[t]) for t in (START, END)]
    )
    tokenizer.add_special_tokens([*_FRONT, END])
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": json.dumps(_CONFIG, indent=2).encode(),
    }


def words_of(files: Mapping[str, bytes]) -> list[str] | None:
    """The words for which :func:`word_tokenizer_files` gives exactly ``files``; None for other files."""
    try:
        vocabulary: dict[str, int] = json.loads(files["tokenizer.json"])["model"]["vocab"]
        words = sorted(vocabulary, key=lambda word: vocabulary[word])[len(_FRONT) : -1]
        return words if word_tokenizer_files(words) == dict(files) else None
    except (KeyError, ValueError, TypeError, AttributeError, KdkitError, RecursionError):
        return None
