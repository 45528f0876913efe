"""What the Hub demands of the YAML at the top of a card. Its messages name the field, as the real ones do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc
lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl
odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
LICENSES = frozenset(_LICENSES.split())
"""What ``license`` may say: as in the Hub's documentation (docs/hub/repositories-licenses), which grows."""
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")
_STRINGS = ("library_name", "pipeline_tag", "license_name", "license_link", "new_version")
_LISTS = ("tags", "datasets", "metrics", "language")
_RELATIONS = ("adapter", "merge", "quantized", "finetune")


def card_errors(content: str, kind: str) -> list[str]:
    """What is wrong with a card; empty when the Hub would take it. No metadata at all is allowed."""
    front = _FRONT.match(content)
    if front is None:
        return []
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        metadata = YAML(typ="safe").load(front[1])
    except YAMLError as error:
        return [f"YAML metadata is not valid: {' '.join(str(error).split())}"]
    if metadata is None:
        return []
    if not isinstance(metadata, Mapping):
        return ["YAML metadata must be an object"]
    return [*_fields(metadata), *(_model_index(metadata.get("model-index")) if kind == "model" else ())]


def _fields(metadata: Mapping[str, Any]) -> Iterator[str]:
    license = metadata.get("license")
    for name in license if isinstance(license, list) else [license]:
        if name is not None and name not in LICENSES:
            yield f'"license" must be one of [{", ".join(sorted(LICENSES))}]'
    for field in _STRINGS:
        if metadata.get(field) is not None and not isinstance(metadata[field], str):
            yield f'"{field}" must be a string'
    for field in _LISTS:
        value = metadata.get(field)
        if value is None or (isinstance(value, str) and field == "language"):
            continue
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            yield f'"{field}" must be an array of strings'
    bases = metadata.get("base_model")
    for base in bases if isinstance(bases, list) else [bases]:
        if base is not None and not (isinstance(base, str) and _REPO.fullmatch(base)):
            yield '"base_model" must be a repository id, or an array of them'
    relation = metadata.get("base_model_relation")
    if relation is not None and relation not in _RELATIONS:
        yield f'"base_model_relation" must be one of [{", ".join(_RELATIONS)}]'


def _model_index(index: Any) -> Iterator[str]:
    """``[{name, results: [{task: {type}, dataset: {name, type}, metrics: [{type, value}]}]}]``."""
    if index is None:
        return
    if not isinstance(index, list):
        yield '"model-index" must be an array'
        return
    for number, model in enumerate(index):
        where = f"model-index[{number}]"
        if not isinstance(model, Mapping) or not isinstance(model.get("name"), str):
            yield f'"{where}.name" is required'
        elif not isinstance(model.get("results"), list):
            yield f'"{where}.results" must be an array'
        else:
            for position, result in enumerate(model["results"]):
                yield from _result(f"{where}.results[{position}]", result)


def _result(where: str, result: Any) -> Iterator[str]:
    for path in ("task.type", "dataset.name", "dataset.type"):
        value = result
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(value, str):
            yield f'"{where}.{path}" is required'
    metrics = result.get("metrics") if isinstance(result, Mapping) else None
    if not isinstance(metrics, list) or not metrics:
        yield f'"{where}.metrics" must be an array with at least one item'
        return
    for number, metric in enumerate(metrics):
        for key in ("type", "value"):
            if not isinstance(metric, Mapping) or metric.get(key) is None:
                yield f'"{where}.metrics[{number}].{key}" is required'
