"""The mass of the tokens that a stored distribution does not name, at any temperature.

With log-probabilities l_j of the unnamed tokens and s = 1 / T, the mass is exp(f(s)), f(s) = log sum_j exp(s l_j). No
finite number of values gives f everywhere: it holds every l_j. Stored are f and its slope f'(s) = sum_j w_j l_j, w =
softmax(s l), at the :data:`TEMPERATURES`. There the mass is exact. f is convex in s (a cumulant generating function),
so between two of them the chord is an upper and the tangents are a lower bound; the cubic Hermite interpolant, limited
to these bounds, is the estimate.

An error e of f changes the tail's probability m by at most e m (1 - m) to first order, at most e / 4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 16.0)
"""Where the mass is exact; others between the first and the last are interpolated."""
MASSES = 3
"""Width of a tail with the log mass at the first temperatures alone; no others are known."""
TAIL = 2 * len(TEMPERATURES)
"""Width of a whole tail: the log masses, then the slopes."""
NEVER = -1e4
"""Log-probability of an impossible class."""
NOT_KNOWN = 100.0
"""Marks an unknown log mass or slope; a log mass at these temperatures is below log V."""
SUM_ERROR = 2.0**-23
"""Error of a sum of probabilities in float32, which servers compute with."""


class TailMass(NamedTuple):
    """Log sum of p^(1/T) over the unnamed tokens: an estimate between its bounds, each (..., 1)."""

    estimate: Tensor
    least: Tensor
    most: Tensor


def tail_statistics(log_p: Tensor) -> Tensor:
    """The tail (N, :data:`TAIL`) of (N, V) log-probabilities at temperature 1, -inf for the named tokens."""
    finite = log_p.clamp(min=NEVER)  # a weight of 0 times an infinite logarithm is no number
    masses, slopes = [], []
    for temperature in TEMPERATURES:
        scaled = log_p / temperature
        mass = scaled.logsumexp(-1)
        weights = (scaled - mass.clamp(min=NEVER)[:, None]).exp()
        masses.append(mass)
        slopes.append((weights * finite).sum(-1))
    return torch.stack(masses + slopes, dim=-1).clamp(min=NEVER)


def tail_of(log_p: Tensor) -> Tensor:
    """The tail (N, :data:`TAIL`) given only the top ``log_p`` (N, k), decreasing, as a server returns them.

    At temperature 1 the mass is what remains, to :data:`SUM_ERROR`. A remainder that cancels is set to that error, or
    to the probability of the last of the k if that is less: 0 would make a reverse KL infinite.

    Each other token is at most as likely as the last of the k, so the slope is at most its log-probability. The line
    with that slope is an upper bound below temperature 1, and exact at 1. Above 1 there is no bound without the number
    of tokens: :data:`NOT_KNOWN`.
    """
    least = log_p[..., -1].exp().clamp(max=SUM_ERROR)
    rest = torch.maximum(1 - log_p.exp().sum(-1), least).log().clamp(min=NEVER)
    last = log_p[..., -1].clamp(min=NEVER)
    known = {0.5: (rest + last, last), 1.0: (rest, last)}
    unknown = (torch.full_like(rest, NOT_KNOWN),) * 2
    masses, slopes = zip(*(known.get(temperature, unknown) for temperature in TEMPERATURES), strict=True)
    return torch.stack(masses + slopes, dim=-1).clamp(min=NEVER)


def has_temperature(temperature: float, width: int = TAIL) -> bool:
    """Whether a tail of this width has the mass at a temperature, exact or interpolated."""
    whole = width == TAIL
    return TEMPERATURES[0] <= temperature <= TEMPERATURES[-1] if whole else temperature in TEMPERATURES[:width]


def tail_mass(tail: Tensor, temperature: float) -> TailMass:
    """The log mass at a temperature.

    Args:
        tail: (..., :data:`TAIL`), or (..., :data:`MASSES`).
        temperature: one of :func:`has_temperature`.

    Returns:
        All three equal where the mass is stored; :data:`NOT_KNOWN` where it is unknown.
    """
    if temperature in TEMPERATURES:
        place = TEMPERATURES.index(temperature)
        stored = tail[..., place, None]
        return TailMass(stored, stored, stored)
    right = next(place for place, stored in enumerate(TEMPERATURES) if stored > temperature)
    return _between(tail, right, temperature)


def _between(tail: Tensor, right: int, temperature: float) -> TailMass:
    """The mass between two stored temperatures, by the cubic Hermite interpolant in s = 1 / T."""
    (f0, f1), (g0, g1) = (
        (tail[..., shift + right, None], tail[..., shift + right - 1, None]) for shift in (0, len(TEMPERATURES))
    )
    s0, s1, s = (1 / t for t in (TEMPERATURES[right], TEMPERATURES[right - 1], temperature))
    width, t = s1 - s0, (s - s0) / (s1 - s0)
    cubic = (
        (2 * t**3 - 3 * t**2 + 1) * f0
        + (t**3 - 2 * t**2 + t) * width * g0
        + (3 * t**2 - 2 * t**3) * f1
        + (t**3 - t**2) * width * g1
    )
    most = torch.lerp(f0, f1, t)
    least = torch.minimum(torch.maximum(f0 + (s - s0) * g0, f1 - (s1 - s) * g1), most)  # rounding may cross them
    unknown = (f0 >= NOT_KNOWN) | (f1 >= NOT_KNOWN)
    bounded = torch.minimum(torch.maximum(cubic, least), most)
    return TailMass(*(torch.where(unknown, NOT_KNOWN, x) for x in (bounded, least, most)))
