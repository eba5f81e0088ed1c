"""A figure: what was measured, what it has to be, and whether it is. Also the medians that figures are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    ``measured`` is text with its unit, ``bar`` what it has to be (empty: it is only told), ``met`` whether it
    is (None without a bar). ``detail`` holds the absolute figures behind a ratio.
    """

    what: str
    measured: str
    bar: str = ""
    met: bool | None = None
    detail: str = ""


def fact(what: str, measured: str, detail: str = "") -> Figure:
    """Give a figure that has no bar."""
    return Figure(what, measured, detail=detail)


def at_least(what: str, value: float, bar: float, unit: str = " ×", detail: str = "") -> Figure:
    """Give a figure that has to be ``bar`` or more."""
    return Figure(what, shown(value) + unit, f"≥ {shown(bar)}{unit}", value >= bar, detail)


def at_most(what: str, value: float, bar: float, unit: str = " ×", detail: str = "") -> Figure:
    """Give a figure that has to be ``bar`` or less."""
    return Figure(what, shown(value) + unit, f"≤ {shown(bar)}{unit}", value <= bar, detail)


def shown(value: float) -> str:
    """Write a number with three digits that count.

    >>> [shown(value) for value in (0.4567, 1.0, 12.34, 128, 154_803.2)]
    ['0.457', '1.00', '12.3', '128', '154,803']
    """
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 1 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"


def ratio(values: Iterable[float], others: Iterable[float]) -> float:
    """Give the median over the rounds of one's value by the other's of the same round."""
    return median(value / other for value, other in zip(values, others, strict=True))


def spread(values: Sequence[float], unit: str = "") -> str:
    """Write the median, and the least and the most that it came from."""
    return f"{shown(median(values))}{unit} ({shown(min(values))}–{shown(max(values))})"


def beside(ours: Iterable[float], theirs: Iterable[float], unit: str) -> str:
    """Write what both have measured, round by round.

    >>> beside([5.21, 6], [12.34, 11], " ms")
    '5.21 6.00 ms; theirs 12.3 11 ms'
    """
    first, second = (" ".join(shown(value) for value in side) for side in (ours, theirs))
    return f"{first}{unit}; theirs {second}{unit}"
