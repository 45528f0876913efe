"""Temperatures of token losses against what the teachers' signals hold, before an extraction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import LOGPROBS, LossSpec, Reporter
from kdkit.core.contracts.tail_mass import MASSES, TEMPERATURES, has_temperature

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.recipe import Recipe
    from kdkit.core.project.registry.lock import LockedTeacher

TAIL_SIGNAL = "tail"


def check_token_temperatures(
    recipe: Recipe, catalogue: Catalogue, teachers: Mapping[str, LockedTeacher], reporter: Reporter
) -> None:
    """Compare the option ``temperature`` of losses that read distributions with every teacher that gives them.

    Warns where the mass of the tokens that are not named is an estimate or a bound.

    Raises:
        KdkitError: a temperature that a teacher's signals cannot have.
    """
    for part in recipe.losses:
        if TAIL_SIGNAL not in (catalogue.spec(LossSpec, part.name).signals or ()):
            continue
        temperature = float(part.options.get("temperature", 1.0))
        given = {name: facts for name, facts in teachers.items() if TAIL_SIGNAL in facts.signals}
        for name, facts in given.items():
            _require(part.name, temperature, name, facts)
        bounded = [name for name, facts in given.items() if LOGPROBS in facts.identity]
        if bounded and temperature < 1:
            reporter.warn(
                f"{part.name} at temperature {temperature:g}: {', '.join(bounded)} gives the likeliest tokens alone, "
                "so the mass of the others is an upper bound; it is exact at temperature 1"
            )
        if set(given) - set(bounded) and temperature not in TEMPERATURES:
            reporter.warn(
                f"{part.name} at temperature {temperature:g}: the mass of the tokens that are not stored is "
                f"interpolated; it is exact at {', '.join(f'{t:g}' for t in TEMPERATURES)} "
                "(docs: reference/losses, Temperature)"
            )


def _require(loss: str, temperature: float, teacher: str, facts: LockedTeacher) -> None:
    width = facts.signals[TAIL_SIGNAL].shape[-1]
    if not has_temperature(temperature, width):
        exact = ", ".join(f"{t:g}" for t in TEMPERATURES[:width])
        raise KdkitError(
            "KD-DIST-560",
            f"'{loss}' has temperature {temperature:g}, which the signals of teacher '{teacher}' do not have",
            where=f"recipe, loss {loss}",
            why=f"they hold the mass of their other tokens at {exact}" + (" alone" if width == MASSES else ""),
            fix=f"choose one of {exact}"
            if width == MASSES
            else f"choose a temperature from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g}",
            code=ExitCode.FOUND,
        )
    if temperature > 1 and LOGPROBS in facts.identity:
        raise KdkitError(
            "KD-DIST-561",
            f"'{loss}' has temperature {temperature:g}, and teacher '{teacher}' gives its likeliest tokens alone",
            where=f"recipe, loss {loss}",
            why="a server does not return the others, which weigh more at high temperatures",
            fix="choose temperature 1 (exact), or one from 0.5 to 1 (a bound)",
            code=ExitCode.FOUND,
        )
