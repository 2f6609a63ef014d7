"""Verdicts by intervals: a value is steerable or hard only where an interval says so, else undetermined.

A side (polarity) is judged by the effect of its outer level, in points, against a margin that is set before the study:

    moved     the simultaneous 95 % interval lies beyond the margin, in the intended direction
    reversed  it lies beyond the margin in the other direction
    still     the simultaneous 90 % interval lies within ± margin (two one-sided tests; Schuirmann 1987)

"Not steerable" is thus a claim of its own, not the absence of one. With simultaneous intervals the probability of any false
claim in a study is at most 5 %. A type also needs room: a default at the end of the scale cannot move further.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import norm

Side = Literal["moved", "still", "reversed", "undetermined"]
Type = Literal["bidirectional", "asymmetric", "hard", "ceiling", "floor", "reversed", "undetermined"]
POWER = 0.9


class Interval(NamedTuple):
    """An estimate with its standard error, and the critical values of the 95 % and the 90 % interval."""

    estimate: float
    error: float
    critical: float
    critical_90: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.estimate - self.critical * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.estimate + self.critical * self.error

    @property
    def negated(self) -> "Interval":
        """The interval of the opposite effect."""
        return self._replace(estimate=-self.estimate)

    def within(self, margin: float) -> bool:
        """Return whether the 90 % interval lies within ± margin: the effect is equivalent to none."""
        return abs(self.estimate) + self.critical_90 * self.error < margin


class Verdict(NamedTuple):
    """The type of a value, and what it rests on.

    Attributes:
        type: see the module.
        plus: the side of level +2.
        minus: the side of level -2.
        reason: one clause for a reader.
        needed: queries that would decide an undetermined value with probability 0.9, if effects and spread are as estimated;
            None where the value is decided, or where no number would do (an effect as large as the margin).
    """

    type: Type
    plus: Side
    minus: Side
    reason: str
    needed: int | None


def side(effect: Interval, margin: float) -> Side:
    """Return the side of an effect whose intended direction is positive."""
    if math.isnan(effect.estimate) or math.isnan(effect.error):
        return "undetermined"
    if effect.low > margin:
        return "moved"
    if effect.high < -margin:
        return "reversed"
    return "still" if effect.within(margin) else "undetermined"


def verdict(
    plus: Interval, minus: Interval, default: Interval, margin: float, reach: tuple[float, float], queries: int
) -> Verdict:
    """Return the type of a value.

    Args:
        plus: effect of level +2 against the neutral persona, in points.
        minus: effect of level -2; intended is a negative one.
        default: mean score under the neutral persona.
        margin: smallest effect of interest, points.
        reach: lowest and highest score that a response can reach, points.
        queries: number of queries behind the effects.
    """
    sides = side(plus, margin), side(minus.negated, margin)
    if "undetermined" in sides:
        gaps = [
            needed_queries(interval, margin, queries)
            for interval, of_side in zip((plus, minus.negated), sides, strict=True)
            if of_side == "undetermined"
        ]
        needed = None if None in gaps else max(gap for gap in gaps if gap is not None)
        which = [level for level, of_side in zip(("+2", "−2"), sides, strict=True) if of_side == "undetermined"]
        return Verdict("undetermined", *sides, f"the interval of {' and '.join(which)} crosses the margin", needed)
    if "reversed" in sides:
        return Verdict("reversed", *sides, "a level moves the score against its direction", None)
    if sides == ("moved", "moved"):
        return Verdict("bidirectional", *sides, "both polarities move", None)
    return _with_room(sides, default, margin, reach, queries)


def _with_room(sides: tuple[Side, Side], default: Interval, margin: float, reach: tuple[float, float], queries: int) -> Verdict:
    """The type where a side is still: what it means depends on whether the default leaves room on that side."""
    low, high = reach
    for number, (kind, end, room, full) in enumerate(
        (
            ("ceiling", "upper", default.high < high - margin, default.low > high - margin),
            ("floor", "lower", default.low > low + margin, default.high < low + margin),
        )
    ):
        if sides[number] == "still" and not room:
            if not full:
                threshold = high - margin if kind == "ceiling" else low + margin
                shifted = default._replace(estimate=default.estimate - threshold)
                needed = needed_queries(shifted, 0.0, queries)
                return Verdict("undetermined", *sides, f"the default may lie at the {end} end of the scale", needed)
            if sides[1 - number] == "moved":
                type_: Type = "ceiling" if kind == "ceiling" else "floor"
                return Verdict(type_, *sides, f"the default lies at the {end} end of the scale", None)
            return Verdict("undetermined", *sides, f"no room: the default lies at the {end} end of the scale", None)
    if "moved" in sides:
        which = "+2" if sides[0] == "moved" else "−2"
        return Verdict("asymmetric", *sides, f"only {which} moves", None)
    return Verdict("hard", *sides, "neither polarity moves, with room on both sides", None)


def needed_queries(effect: Interval, margin: float, queries: int) -> int | None:
    """Return the queries that tell an effect of this size from ± margin with probability 0.9; None if none would do."""
    gap = abs(abs(effect.estimate) - margin)
    if math.isnan(gap) or math.isnan(effect.error) or gap < 1e-9:
        return None
    critical = effect.critical if abs(effect.estimate) > margin else effect.critical_90
    return math.ceil(queries * ((critical + norm.ppf(POWER)) * effect.error / gap) ** 2)


class Regime(NamedTuple):
    """How steerable a model is as a whole.

    Attributes:
        label: the name of the range that holds the 95 % interval, or undetermined.
        estimate: mean over values of the shift, Cliff's delta.
        low: lower end of its interval.
        high: upper end.
        probabilities: by label, the share of bootstrap draws in its range.
    """

    label: str
    estimate: float
    low: float
    high: float
    probabilities: dict[str, float]


def model_regime(shift: float, draws_B: np.ndarray, edges: Sequence[float], labels: Sequence[str]) -> Regime:
    """Return the regime of a model.

    Args:
        shift: mean over values and polarities of Cliff's delta in the intended direction.
        draws_B: the same in every draw of the queries.
        edges: between the ranges of the labels, increasing.
        labels: one more than edges, from the lowest range.
    """
    low, high = np.quantile(draws_B, [0.025, 0.975])
    bin_B = np.searchsorted(edges, draws_B)
    first, last = np.searchsorted(edges, [low, high])
    probabilities = {label: float((bin_B == number).mean()) for number, label in enumerate(labels)}
    return Regime(labels[first] if first == last else "undetermined", shift, float(low), float(high), probabilities)
