"""A teacher whose features were imported: trusted, taught from and reported like the teacher that computed them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import Silent
from kdkit.core.data import load_index
from kdkit.core.data.prompts import all_prompts, prompt_sets
from kdkit.core.distill.explain.explain import plan_explanation
from kdkit.core.distill.explain.runs import ExplainOptions
from kdkit.core.distill.plan.inventory import take_inventory
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.trust.measure import measure_trust
from kdkit.core.features.extract.missing import extract_missing
from kdkit.core.features.imports.importing import ImportRequest, import_features
from kdkit.core.features.store.store import FeatureStore
from kdkit.core.project.project import Project
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.teachers.add import remove_teacher
from tests.core.distill.toy_runs import Heard, run
from tests.core.features.imports.saved import save_npz
from tests.errors import raises_error
from tests.toy_project import make_project, open_project

DOMAINS = ("ct", "mri", "xray")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose teacher ``known`` has computed its features."""
    project = make_project(tmp_path_factory.mktemp("p") / "p", teachers={"known": ("ct", "mri")}, domains=DOMAINS)
    extract_missing(project, load_index(project))
    return open_project(project.root)


def save_features(project: Project, to: Path, *, without: int = 0) -> tuple[Path, Path]:
    """The features and prompts of ``known`` as files of another program."""
    index = load_index(project)
    column = FeatureStore(project.features).column("known")
    rows = column.locate(index)[without:]
    arrays = {signal: column.gather(signal, rows) for signal in ("image", "text")}
    prompts = all_prompts(prompt_sets(project.registry, index))
    return (
        save_npz(to / "features.npz", index.ids[without:], **arrays),
        save_npz(to / "prompts.npz", prompts, text=column.text_features(prompts)),
    )


def test_import_trust_and_distill(extracted: Project, tmp_path: Path) -> None:
    features, prompts = save_features(extracted, tmp_path)
    import_features(extracted, "twin", ImportRequest([features], prompts=prompts, license="mit"))
    project = open_project(extracted.root)

    evaluator = make_evaluator(project.registry, project.catalogue, load_index(project))
    table = measure_trust(evaluator, FeatureStore(project.features), project.lock, ["known", "twin"])
    assert np.array_equal(table.accuracy[0], table.accuracy[1])
    assert table.accuracy[1].max() > 0.7

    outcome = run(project)
    assert [teacher.name for teacher in outcome.version.lineage.teachers] == ["known", "twin"]

    remove_teacher(project, "twin")
    with raises_error("KD-DIST-085", mentions=("kdkit features import twin --from PATH",)):
        plan_explanation(open_project(project.root), None, ExplainOptions(seeds=1, cpu=True), Silent())


def test_replaced_prompts_are_measured_again(extracted: Project, tmp_path: Path) -> None:
    features, prompts = save_features(extracted, tmp_path)
    with np.load(prompts) as archive:
        ids, right = archive["ids"], archive["text"]
    wrong = save_npz(
        tmp_path / "wrong.npz", list(ids), text=np.random.default_rng(0).permutation(right) - right.mean(0)
    )

    def trust(prompts: Path) -> np.ndarray:
        request = ImportRequest([features], prompts=prompts, license="mit", replace=True)
        import_features(open_project(extracted.root), "mended", request)
        project = open_project(extracted.root)
        evaluator = make_evaluator(project.registry, project.catalogue, load_index(project))
        return measure_trust(evaluator, FeatureStore(project.features), project.lock, ["known", "mended"]).accuracy

    known, measured = trust(wrong)
    assert not np.array_equal(measured, known)
    known, measured = trust(prompts)
    assert np.array_equal(measured, known)


def test_what_it_lacks_is_said_before_training(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", teachers={"known": ("ct", "mri")}, domains=DOMAINS)
    extract_missing(project, load_index(project))
    features, prompts = save_features(project, tmp_path, without=7)
    import_features(open_project(project.root), "twin", ImportRequest([features], prompts=prompts, license="mit"))
    heard, project = Heard(), open_project(project.root)
    recipe = load_recipe(project.registry.recipe, project.catalogue, project.root)
    inventory = take_inventory(project, recipe, load_index(project), lambda _: None, device="cpu", reporter=heard)
    assert int(inventory.taught("twin").sum()) < int((inventory.sample_weights("twin") > 0).sum())
    assert [warning for warning in heard.warnings if "'twin' was imported" in warning and " 7 of " in warning]


def test_image_vectors_alone_are_trusted_by_a_probe(extracted: Project, tmp_path: Path) -> None:
    index = load_index(extracted)
    column = FeatureStore(extracted.features).column("known")
    file = save_npz(tmp_path / "images.npz", index.ids, image=column.gather("image", column.locate(index)))
    import_features(extracted, "images", ImportRequest([file], license="mit"))
    project = open_project(extracted.root)
    evaluator = make_evaluator(project.registry, project.catalogue, index)
    table = measure_trust(evaluator, FeatureStore(project.features), project.lock, ["images"])
    assert table.probed == {"images": "image"}
    assert np.isfinite(table.accuracy).all()
    assert table.accuracy.max() > 0.7
