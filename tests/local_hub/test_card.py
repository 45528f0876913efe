"""The card's metadata is really checked."""

from __future__ import annotations

import pytest

from tests.local_hub.card import card_errors

RESULT = """
model-index:
- name: student
  results:
  - task: {type: zero-shot-image-classification}
    dataset: {name: MedMNIST, type: medmnist}
    metrics:
    - {type: accuracy, value: 0.9}
"""


def errors(metadata: str, kind: str = "model") -> list[str]:
    return card_errors(f"---\n{metadata}\n---\n# Title\n", kind)


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "license: apache-2.0",
        "license: other\nlicense_name: mine\nlicense_link: LICENSE",
        "license: [mit, apache-2.0]",
        "tags: [clip, kdkit]\nlanguage: en\ndatasets: []",
        "base_model: org/init\nbase_model_relation: finetune",
        "distilled_from: {any: thing}",
        RESULT,
    ],
)
def test_what_the_hub_takes(metadata: str) -> None:
    assert errors(metadata) == []


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("license: gpl-99", '"license" must be one of'),
        ("license: [mit, none]", '"license" must be one of'),
        ("tags: clip", '"tags" must be an array of strings'),
        ("datasets: [1]", '"datasets" must be an array of strings'),
        ("library_name: [a]", '"library_name" must be a string'),
        ("base_model: not a name", '"base_model" must be a repository id'),
        ("base_model: a/b\nbase_model_relation: distilled", '"base_model_relation" must be one of'),
        ("a: [", "YAML metadata is not valid"),
        ("- a", "YAML metadata must be an object"),
        ("model-index: {}", '"model-index" must be an array'),
        ("model-index: [{results: []}]", '"model-index[0].name" is required'),
        (RESULT.replace("type: medmnist", "id: x"), '"model-index[0].results[0].dataset.type" is required'),
        (RESULT.replace(", value: 0.9", ""), '"model-index[0].results[0].metrics[0].value" is required'),
    ],
)
def test_what_it_refuses_is_named(metadata: str, said: str) -> None:
    assert any(message.startswith(said) for message in errors(metadata))


def test_a_card_without_metadata_and_data_sets_without_results() -> None:
    assert card_errors("# Title\n", "model") == []
    assert errors("model-index: {}", "dataset") == []
