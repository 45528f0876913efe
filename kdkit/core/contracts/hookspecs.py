# mypy: disable-error-code="empty-body"
# Hookspecs are declarations, never called.
"""The hooks of a plugin: twelve functions that return specs.

Every kdkit command imports the modules that implement them, so they import no torch and do no work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from kdkit.core.contracts import specs as c

PROJECT = "kdkit"
PLUGIN_API = 1
"""A plugin module may set ``KDKIT_API``; kdkit skips and reports a module that needs a higher number than this."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def kdkit_loaders() -> Iterable[c.LoaderSpec]:
    """Loaders: how a folder of files becomes a teacher.

    Example::

        @hookimpl
        def kdkit_loaders():
            yield LoaderSpec(
                name="stain",
                summary="StainNet folders",
                factory="kdkit_stain.model:load",  # load(folder: Path, **options) -> Teacher
                marks=("stain.json",),
            )
    """


@hookspec
def kdkit_teachers() -> Iterable[c.TeacherSpec]:
    """Teachers that can be added by name.

    Example::

        @hookimpl
        def kdkit_teachers():
            yield TeacherSpec(
                name="stain",
                summary="tells three stains of microscopy apart",
                source="hf:acme/stain@1a2b3c4",
                loader="stain",
                license="apache-2.0",
                distillation="allowed",
            )
    """


@hookspec
def kdkit_students() -> Iterable[c.StudentSpec]:
    """Families of students.

    Example::

        @hookimpl
        def kdkit_students():
            yield StudentSpec(
                name="small",
                summary="a dual encoder of two small towers",
                factory="kdkit_small.student:SmallStudent",  # SmallStudent(**config) -> Student
                loader="kdkit_small.student:load",  # load(folder: Path) -> Student
            )
    """


@hookspec
def kdkit_aligners() -> Iterable[c.AlignerSpec]:
    """Maps between feature spaces.

    Example::

        @hookimpl
        def kdkit_aligners():
            yield AlignerSpec(name="cca", summary="canonical correlation", factory="kdkit_cca.aligner:CCA")
    """


@hookspec
def kdkit_losses() -> Iterable[c.LossSpec]:
    """Losses that recipes can name.

    Example::

        @hookimpl
        def kdkit_losses():
            yield LossSpec(
                name="huber",
                summary="Huber distance to each teacher's features",
                factory="kdkit_huber.loss:Huber",  # an nn.Module: LossInput -> scalar
                options={"delta": 1.0},
            )
    """


@hookspec
def kdkit_rope_variants() -> Iterable[c.RopeSpec]:
    """Rotary position designs for vision-language students.

    Example::

        @hookimpl
        def kdkit_rope_variants():
            yield RopeSpec(name="small-steps", summary="image tokens step by 1/4", factory="kdkit_steps.rope:Steps")
    """


@hookspec
def kdkit_sources() -> Iterable[c.SourceSpec]:
    """Data sources: where samples come from. A source yields a ``Skipped`` for each file or record that it leaves out.

    Example::

        @hookimpl
        def kdkit_sources():
            yield SourceSpec(name="dicom", summary="DICOM folders", factory="kdkit_dicom.source:read")
    """


@hookspec
def kdkit_image_readers() -> Iterable[c.ImageReaderSpec]:
    """Readers of images that are no image files of their own. A source says which of its images a reader reads.

    Example::

        @hookimpl
        def kdkit_image_readers():
            yield ImageReaderSpec(name="nifti", summary="slices of volumes", factory="kdkit_nifti.reader:Slices")
    """


@hookspec
def kdkit_trust_policies() -> Iterable[c.TrustPolicySpec]:
    """Policies that turn measured accuracies into trust weights.

    Example::

        @hookimpl
        def kdkit_trust_policies():
            yield TrustPolicySpec(name="skill", summary="accuracy above chance", factory="kdkit_skill.policy:Skill")
    """


@hookspec
def kdkit_tasks() -> Iterable[c.TaskSpec]:
    """Evaluation tasks.

    Example::

        @hookimpl
        def kdkit_tasks():
            yield TaskSpec(name="retrieval", summary="recall of captions", factory="kdkit_retrieval.task:Retrieval")
    """


@hookspec
def kdkit_recipes() -> Iterable[c.RecipeSpec]:
    """Complete, named recipes.

    Example::

        @hookimpl
        def kdkit_recipes():
            yield RecipeSpec(name="strict", summary="a strict trust gate", resource="kdkit_strict:recipe.yaml")
    """


@hookspec
def kdkit_suites() -> Iterable[c.SuiteSpec]:
    """Benchmark suites: definitions of public data sets for ``kdkit evaluate --suite``.

    Example::

        @hookimpl
        def kdkit_suites():
            yield SuiteSpec(name="stains", summary="three stains", resource="kdkit_stains:suite.yaml")
    """
