"""Profiles of a judge's scores of all texts that are corrected by trusted scores of a random subset (`profile --trusted`)."""

import sys
from collections.abc import Sequence

import numpy as np

from valueflow.cli.output import Row
from valueflow.console import say
from valueflow.errors import InputError
from valueflow.evaluation import prediction_powered
from valueflow.profiles.bands import band
from valueflow.records import LIMIT, ValueId, text_id
from valueflow.theories import expand
from valueflow.vidb.ratings import Means, ratings_of

METHOD = "prediction-powered"
MAX_IMBALANCE = 4.0  # standard errors; a random subset of one of 32 values exceeds it once in 500 profiles


class Trusted:
    """The trusted scores of a file.

    Args:
        url: a file that `vidb.ratings.read_ratings` reads.
        texts: of the profile.
        names: values and theories that the profile is limited to; None for all that have trusted scores. What else the file
            rates is left out; so are values with too few trusted scores for an interval, which standard error names.

    Raises:
        InputError: as `vidb.ratings.ratings_of`; or no value has enough trusted scores.
    """

    def __init__(self, url: str, texts: list[str], names: Sequence[str] | None) -> None:
        self._ids = [text_id(text) for text in texts]
        ratings = ratings_of(url, set(self._ids))
        selected = list(ratings) if not names or "all" in names else expand(names)
        self._ratings: Means = {}
        reasons = []
        for value in selected:
            try:
                of_value = ratings.get(value, {})
                prediction_powered.check_trusted(np.array(list(of_value.values())))
                self._ratings[value] = of_value
            except InputError as error:
                reasons.append(f"{value}: {error}")
        if not self._ratings:
            raise InputError(f"{url} has too few ratings for a profile; {reasons[0]}")
        if reasons:
            say(f"{len(reasons)} of {len(selected)} values left out (first: {reasons[0]})", sys.stderr)

    @property
    def values(self) -> list[ValueId]:
        """The values of the profile."""
        return list(self._ratings)

    def row(self, value: ValueId, judge_T: np.ndarray) -> Row:
        """Return the row of a value; NaN stands for a text that the judge could not score."""
        is_scored_T = np.isfinite(judge_T)
        # Any number that does not depend on the trusted scores keeps the interval valid, and leaving texts out would not: those
        # that a judge fails on are not a random part.
        constant = float(judge_T[is_scored_T].mean()) if is_scored_T.any() else 0.0
        trusted_T = prediction_powered.align(self._ids, self._ratings[value])
        sample = prediction_powered.Sample(np.where(is_scored_T, judge_T, constant), trusted_T, self._ids)
        result = prediction_powered.profile({value: sample})[value]
        if abs(result.imbalance[0]) > MAX_IMBALANCE:
            more = "higher" if result.imbalance[0] > 0 else "lower"
            say(
                f"{value}: the judge scores the trusted texts {abs(result.imbalance[0]):.1f} standard errors {more} than the "
                "others, so they are hardly a random subset; without one the interval does not hold",
                sys.stderr,
            )
        mean, low, high = (float(np.clip(number, -LIMIT, LIMIT)) for number in result[:3])
        return {
            "value": value, "intensity": mean, "low": low, "high": high, "num_texts": int(is_scored_T.sum()),
            "num_trusted": result.num_trusted, "judge_weight": result.judge_weights[0],
            "band": band(mean), "method": METHOD,
        }  # fmt: skip
