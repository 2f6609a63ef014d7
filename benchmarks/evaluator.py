"""Error and interval coverage of the evaluator in the simulation of the official estimator.

python -m benchmarks.evaluator

10,000 anchors, clip(N(0, sd 4), -10, 10), calibration identity; true intensities -10, -8, ..., 10. The judge perceives
intensity + noise * Gumbel, and `bias` more for the text in the first position.
"""

from typing import NamedTuple

import numpy as np

from valueflow.evaluation.scoring import EvaluatorConfig, Posterior, Window, estimate_sharpness, plan_round
from valueflow.ranking.calibration import Calibration
from valueflow.records import LIMIT
from valueflow.vidb.version import Anchors

NUM_ANCHORS = 10_000
TRUTHS = np.arange(-10.0, 11.0, 2.0)
NOISE = (0, 1, 2, 3)
# Mean absolute error of the official estimator (k=6, m=3) for each noise.
OFFICIAL = (0.69, 1.04, 1.55, 2.04)
UNBEATABLE = 1e6


class Answered(NamedTuple):
    """One window and the judge's order."""

    unit: int
    window: Window
    order: list[int]


class Simulation(NamedTuple):
    """Scores of simulated responses (R of them) and the sharpness they were computed with."""

    truth_R: np.ndarray
    intensity_R: np.ndarray
    low_R: np.ndarray
    high_R: np.ndarray
    sharpness: float

    @property
    def error(self) -> float:
        """Mean absolute error."""
        return float(np.abs(self.intensity_R - self.truth_R).mean())

    @property
    def coverage(self) -> float:
        """Share of responses whose interval contains the truth."""
        return float(((self.low_R <= self.truth_R) & (self.truth_R <= self.high_R)).mean())


def simulated_anchors(seed: int = 0) -> Anchors:
    """Anchors of one value on a scale where theta is the intensity."""
    theta_A = np.sort(np.clip(np.random.default_rng(seed).normal(0.0, 4.0, NUM_ANCHORS), -LIMIT, LIMIT))
    identity = Calibration(mode="imported", theta=[-LIMIT, LIMIT], intensity=[-LIMIT, LIMIT])
    return Anchors("svt", "simulated", np.array([f"anchor {i}" for i in range(NUM_ANCHORS)]), theta_A, identity)


def simulate(
    anchors: Anchors, truth_R: np.ndarray, noise: float, sampling: str, bias: float = 0.0, k: int = 6, m: int = 3,
    seed: int = 0, neutral_share: float = 0.0,
) -> Simulation:  # fmt: skip
    """Plan, answer and score m rounds, as the batch job does.

    The sharpness is estimated from the first round's answers, as the job does.
    """
    config = EvaluatorConfig(k=k, m=m, sampling=sampling, seed=seed, neutral_share=neutral_share)
    rng = np.random.default_rng(seed + 1)
    units = [f"response {i}" for i in range(len(truth_R))]
    used: list[set[int]] = [set() for _ in units]
    answered: list[Answered] = []
    sharpness = 1.0
    for round_ in range(m):
        posterior = _posterior(anchors, len(units), sharpness, answered)
        for unit, window in enumerate(plan_round(posterior, units, units, used, round_, config)):
            perceived_K = np.insert(anchors.theta_A[window.anchors], window.position, truth_R[unit])
            perceived_K[0] += bias
            answered.append(Answered(unit, window, np.argsort(-(perceived_K + noise * rng.gumbel(size=k))).tolist()))
        if round_ == 0:
            anchor_theta = [np.insert(anchors.theta_A[a.window.anchors], a.window.position, np.nan) for a in answered]
            sharpness = estimate_sharpness(anchor_theta, [a.order for a in answered])
    scores = np.array(_posterior(anchors, len(units), sharpness, answered).scores())
    return Simulation(truth_R, *scores.T, sharpness)


def _posterior(anchors: Anchors, num_units: int, sharpness: float, answered: list[Answered]) -> Posterior:
    posterior = Posterior(anchors, num_units, sharpness)
    for unit, window, order in answered:
        posterior.update(unit, window, order, None)
    return posterior


def main() -> None:
    anchors = simulated_anchors()
    truth_R = np.repeat(TRUTHS, 100)
    unbeatable_R = np.full(200, UNBEATABLE)
    print(f"k=6, m=3, {len(truth_R)} responses; shift: mean change of the score if the judge adds 2 to the first position;")
    print("unbeatable: lowest score of 200 responses that beat every anchor.")
    print("Goals: error below the official estimator's, coverage about 0.95, shift 0 (official 1.5), unbeatable near 10 (6.2).")
    print("sampling  noise official  error coverage sharpness  shift unbeatable")
    for sampling in ("adaptive", "bucket"):
        for noise, official in zip(NOISE, OFFICIAL, strict=True):
            plain = simulate(anchors, truth_R, noise, sampling)
            biased = simulate(anchors, truth_R, noise, sampling, bias=2.0)
            lowest = simulate(anchors, unbeatable_R, noise, sampling).intensity_R.min()
            shift = (biased.intensity_R - plain.intensity_R).mean()
            print(
                f"{sampling:<9} {noise:5d} {official:8.2f} {plain.error:6.3f} {plain.coverage:8.3f} {plain.sharpness:9.3f} "
                f"{shift:6.3f} {lowest:10.2f}"
            )


if __name__ == "__main__":
    main()
