"""The error that all responses share: anchors whose theta is an estimate.

Every response is placed among the same anchors, so an anchor that is published too high moves all responses near it, and more
queries do not help. The anchors are drawn again from their posterior, the saved rankings are scored again (without any
call of the judge), the study is run again, and Rubin's rule adds the variance between draws:

    T = W + (1 + 1 / B) between,    r = (1 + 1 / B) between / W,    freedom (B - 1)(1 + 1 / r)²

(Rubin 1987; for few queries with Barnard and Rubin 1999.) Errors of single answers of the judge are in W already.

Shapes: B draws, U texts, A anchors, J contrasts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t

from valueflow.evaluation.scoring import EvaluatorConfig, Posterior, Scoring
from valueflow.judging.kind import Relevance
from valueflow.ranking.calibration import Calibration
from valueflow.vidb.version import Anchors

Recalibrate = Callable[[np.ndarray], Calibration]


class SavedAnswers(NamedTuple):
    """The answered windows of some texts on one value: what a score is made of.

    Attributes:
        anchors: of the value.
        error_A: standard errors of their theta.
        text_ids: of the texts (U).
        answers: index of a text and row of `rankings` for each answered window.
        sharpness: of the judge.
        config: of the evaluation.
        relevance: whether the judge says relevance, and how.
        recalibrate: from theta of the anchors to the map to intensity; None keeps the map.
    """

    anchors: Anchors
    error_A: np.ndarray
    text_ids: list[str]
    answers: list[tuple[int, dict[str, Any]]]
    sharpness: float
    config: EvaluatorConfig
    relevance: Relevance = "none"
    recalibrate: Recalibrate | None = None


def redrawn_scores(saved: SavedAnswers, num_draws: int, rng: np.random.Generator, score: str = "intensity") -> np.ndarray:
    """Return the scores of the texts under each draw of the anchors (B, U); NaN where a text has no valid answer.

    Args:
        saved: answers that were stored; no judge is called.
        num_draws: B.
        rng: source of the draws.
        score: field of `evaluation.scoring.Total`.
    """
    scoring = Scoring(saved.anchors, saved.text_ids, saved.sharpness, saved.config, saved.relevance)
    windows = scoring.parse(saved.answers)
    answered_U = np.bincount(windows.unit_N.astype(int), minlength=len(saved.text_ids)) > 0
    drawn_BU = np.full((num_draws, len(saved.text_ids)), np.nan)
    for draw in range(num_draws if answered_U.any() else 0):
        # The order of the anchors stays: windows name them by id, and no window is planned.
        theta_A = rng.normal(saved.anchors.theta_A, saved.error_A)
        calibration = saved.recalibrate(theta_A) if saved.recalibrate else saved.anchors.calibration
        anchors = saved.anchors._replace(theta_A=theta_A, calibration=calibration)
        scoring.posterior = Posterior(anchors, len(saved.text_ids), saved.sharpness)
        scoring.posterior.update_all(*windows)
        drawn_BU[draw] = [getattr(total, score) for total in scoring.scores()]
    return np.where(answered_U, drawn_BU, np.nan)


class Imputed(NamedTuple):
    """J effects with the shared error of the judge.

    Attributes:
        error_J: standard errors, sampling and shared error together.
        freedom_J: degrees of freedom of t.
        missing_J: fraction of missing information, the share of the variance that comes from the anchors.
    """

    error_J: np.ndarray
    freedom_J: np.ndarray
    missing_J: np.ndarray

    def interval(self, estimate_J: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the intervals around the estimates."""
        half_J = t.ppf(0.5 + level / 2, self.freedom_J) * self.error_J
        return estimate_J - half_J, estimate_J + half_J


def rubin(estimate_BJ: np.ndarray, error_BJ: np.ndarray, freedom_J: np.ndarray) -> Imputed:
    """Return the combined error of effects that were estimated under each draw.

    Args:
        estimate_BJ: effects.
        error_BJ: their standard errors.
        freedom_J: degrees of freedom of one draw.
    """
    num_draws = len(estimate_BJ)
    within_J = (error_BJ**2).mean(0)
    between_J = (1 + 1 / num_draws) * estimate_BJ.var(0, ddof=1)
    total_J = within_J + between_J
    share_J = np.divide(between_J, total_J, out=np.zeros_like(total_J), where=total_J > 0)
    with np.errstate(divide="ignore"):
        of_draws_J = (num_draws - 1) / share_J**2
    of_data_J = (freedom_J + 1) / (freedom_J + 3) * freedom_J * (1 - share_J)
    combined_J = 1 / (1 / of_draws_J + 1 / np.maximum(of_data_J, 1e-9))
    freedom_J = np.maximum(combined_J, 1.0)
    ratio_J = np.divide(between_J, within_J, out=np.full_like(total_J, np.inf), where=within_J > 0)
    missing_J = np.where(np.isinf(ratio_J), 1.0, (ratio_J + 2 / (freedom_J + 3)) / (np.minimum(ratio_J, 1e12) + 1))
    return Imputed(np.sqrt(total_J), freedom_J, np.where(between_J > 0, missing_J, 0.0))
