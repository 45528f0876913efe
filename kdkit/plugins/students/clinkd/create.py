"""Create and load students of the family ``clinkd``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import require_readable
from kdkit.plugins.students.clinkd.adapters import import_peft, quiet, with_adapters
from kdkit.plugins.students.clinkd.byte_tokenizer import byte_tokenizer_files
from kdkit.plugins.students.clinkd.families.known import FAMILIES
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.folder import SAVED, Saved, read_files, read_turns
from kdkit.plugins.students.clinkd.images import ImageSettings
from kdkit.plugins.students.clinkd.network import Sizes, random_network, read_network
from kdkit.plugins.students.clinkd.origin import ORIGIN, Base, Origin
from kdkit.plugins.students.clinkd.quantized import with_values_of
from kdkit.plugins.students.clinkd.rotary import complete
from kdkit.plugins.students.clinkd.settings import WHERE, Choice, Settings
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from kdkit.plugins.students.clinkd.tokens import Tokens


def create_student(
    *,
    init: str | None = None,
    sizes: Mapping[str, Any] | None = None,
    base: str | None = None,
    families: Mapping[str, FamilySpec] = FAMILIES,
    **settings: Any,
) -> ClinkdStudent:
    """A new student, in training mode; give exactly one of ``init`` and ``sizes``.

    Args:
        init: a folder with a model of one of ``families``, or with a saved student, which keeps its RoPE variants.
        sizes: for random weights from torch's global generator and a tokenizer of bytes; see ``Sizes``.
        base: with ``lora``, the repository ``ORG/NAME`` that ``hf download --local-dir`` fetched ``init`` from, so that
            the adapters can be published. Not needed for a snapshot in the Hub's cache.
        families: ``model_type`` -> spec. A plugin that adds one passes ``{**FAMILIES, name: spec}`` in its own factory.
        settings: see ``Settings``.

    Raises:
        KdkitError: an invalid config, a folder without such a model or not downloaded from ``base``, a RoPE variant
            that does not fit the model or its training.
    """
    if (init is None) == (sizes is None):
        raise KdkitError(
            "KD-STUD-007",
            "the student needs exactly one of init and sizes",
            where=WHERE,
            fix="for example 'config: {init: ./Qwen2-VL-2B-Instruct}', or '{sizes: {}}' for a tiny one",
        )
    if base is not None:
        _check_base(init, base, settings)
    if init is not None:
        return _from_folder(Path(init), settings, base, families).train()
    chosen = Settings.of(settings)
    if chosen.lora is not None:
        raise KdkitError(
            "KD-STUD-008", "adapters need a base model", where=f"{WHERE}.lora", fix="give init, or leave lora out"
        )
    made = Sizes.of(sizes or {})
    tokens = Tokens(byte_tokenizer_files(made.words), f"{WHERE}.sizes")
    network = random_network(made, tokens, chosen.max_tokens, chosen.dtype, chosen.attn_implementation)
    images = ImageSettings.from_config({}, min_pixels=chosen.min_pixels, max_pixels=chosen.max_pixels)
    return ClinkdStudent(network, tokens, images, chosen, Origin(sizes=made)).train()


def load_student(
    folder: Path,
    *,
    rope: str | Mapping[str, Any] | None = None,
    families: Mapping[str, FamilySpec] = FAMILIES,
    dequantized: bool = False,
) -> ClinkdStudent:
    """A saved student in eval mode. Also loads a plain model folder.

    Args:
        rope: the expected variant, if any.
        families: as of :func:`create_student`.
        dequantized: write the values of 4-bit weights into whole ones, with which adapters can be merged.

    Raises:
        KdkitError: another variant than ``rope``; missing or damaged files.
    """
    folder = Path(folder)
    saved = Saved.read(folder)
    if saved is None:
        return _from_folder(folder, {} if rope is None else {"rope": rope}, families=families).eval()
    config = dict(saved.config)
    if rope is not None:
        _require_same("rope", Choice.of(rope), Choice.of(config["rope"]), folder)
    sizes, init, base = (config.pop(name, None) for name in ORIGIN)
    settings, weights = Settings.of(config), folder
    if saved.base is not None:
        weights = saved.base.find(str(folder))
        init = str(weights)
    elif init is not None:
        init = str(folder)
    origin = Origin(None if sizes is None else Sizes.of(sizes), init, base)
    quantize = None if settings.lora is None else settings.lora.quantize
    read = partial(read_network, weights, settings.dtype, settings.attn_implementation, families=families)
    network = read(quantize=quantize)
    if quantize is not None and dequantized:
        network = with_values_of(read(), network)
    family = families[network.config.model_type]
    if settings.lora is not None:
        peft = import_peft()
        require_readable(folder)
        with quiet():
            network = peft.PeftModel.from_pretrained(network, folder, is_trainable=True)
    return _assemble(folder, network, family, settings, origin, saved=True).eval()


def _check_base(init: str | None, base: str, settings: Mapping[str, Any]) -> None:
    where = f"{WHERE}.base"
    if init is None or settings.get("lora") is None:
        raise KdkitError(
            "KD-STUD-009",
            "base needs init and lora: it names the base model of adapters",
            where=where,
            fix="give init and lora as well, or leave base out",
        )
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", base):
        raise KdkitError("KD-STUD-010", f"'{base}' is no repository", where=where, fix="write base: ORG/NAME")
    Base.of(Path(init), base)


def _from_folder(
    folder: Path,
    given: Mapping[str, Any],
    base: str | None = None,
    families: Mapping[str, FamilySpec] = FAMILIES,
) -> ClinkdStudent:
    """A new student that starts from the whole weights in ``folder``."""
    saved = Saved.read(folder)
    settings = Settings.of(given if saved is None else _continued(folder, saved, given))
    lora = settings.lora
    network = read_network(
        folder,
        settings.dtype,
        settings.attn_implementation,
        whole=lora is None,
        quantize=None if lora is None else lora.quantize,
        families=families,
    )
    family = families[network.config.model_type]
    if settings.lora is not None:
        network = with_adapters(network, settings.lora, family)
    return _assemble(folder, network, family, settings, Origin(init=str(folder), base=base), saved=saved is not None)


def _assemble(
    folder: Path, network: Any, family: FamilySpec, settings: Settings, origin: Origin, *, saved: bool
) -> ClinkdStudent:
    """``network`` with tokenizer, image settings and learned frequencies of ``folder``."""
    tokens, images = read_files(folder, family, settings)
    student = ClinkdStudent(network, tokens, images, settings, origin, family)
    if student.vision_turns is not None and saved:
        read_turns(student.vision_turns, folder)
    return student


def _continued(folder: Path, saved: Saved, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a saved student, updated by ``given``."""
    if saved.base is not None:
        raise KdkitError(
            "KD-STUD-011",
            "this folder holds adapters",
            where=str(folder),
            why="a student starts from whole weights",
            fix=f"start from their base, {saved.base.folder or saved.base.repo}, or load the student itself",
        )
    before = {name: value for name, value in saved.config.items() if name not in ORIGIN}
    for name in ("rope", "vision_rope"):
        if given.get(name) is not None:
            trained = before.get(name)
            _require_same(name, Choice.of(given[name]), None if trained is None else Choice.of(trained), folder)
    return {**before, **{name: x for name, x in given.items() if name not in ("rope", "vision_rope")}}


def _require_same(key: str, wanted: Choice, trained: Choice | None, folder: Path) -> None:
    whole = complete(wanted)
    options = {name: value for name, value in whole.options.items() if value is not None}
    if trained is not None and whole.name == trained.name and options.items() <= trained.options.items():
        return
    raise KdkitError(
        "KD-STUD-012",
        f"this student was trained with the {key} '{trained or 'of the model itself'}', not '{wanted}'",
        where=str(folder),
        why="other positions make its training useless",
        fix=f"leave {key} out; to start from its weights anyway, remove {SAVED} from a copy of the folder",
    )
