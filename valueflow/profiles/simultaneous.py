"""Critical values for many differences together of units that wrote about the same threads: models that answered one query set.

The influence of a thread on a mean says how far the mean moves with that thread (`estimate.Estimates`). A difference of two
means has the difference of their influences: what a query does to both models cancels, and values and models stay correlated as
they are. Threads are drawn again with replacement, the same ones for all contrasts, and the largest |deviation| / error over
all contrasts is kept (max-T; Westfall and Young 1993). Its 95 % quantile is at most that of independent contrasts.

A draw of few threads has no quantile of Student's distribution in it. So the quantile is turned into the error level of one
contrast by the normal distribution, and each contrast gets the t quantile of that level with the threads of its own.

Shapes: Q threads, P pairs, V values, B draws.
"""

import numpy as np
from scipy.stats import norm

from valueflow.profiles.bootstrap import draws


class MaxT:
    """The distribution of the largest studentized deviation of some contrasts.

    Args:
        influence_QPV: of the threads on the contrasts; nan where a contrast is missing.
        seed: of the draws.
    """

    def __init__(self, influence_QPV: np.ndarray, seed: int = 0) -> None:
        influence_QK = influence_QPV.reshape(len(influence_QPV), -1)
        error_K = np.sqrt((influence_QK**2).sum(0))
        studentized_QK = influence_QK[:, error_K > 0] / error_K[error_K > 0]
        deviation_BK = (draws(len(influence_QK), seed).T - 1.0) @ studentized_QK
        self.largest_B = np.sort(np.abs(deviation_BK).max(1, initial=0.0))

    def level(self) -> float:
        """Return the two-sided error level of one contrast by which any of all is wrong in 5 %."""
        return float(2 * norm.sf(np.quantile(self.largest_B, 0.95)))

    def adjusted(self, p_PV: np.ndarray) -> np.ndarray:
        """Return p values for all contrasts together from those of each; nan stays nan."""
        size_PV = norm.isf(np.nan_to_num(p_PV, nan=1.0) / 2)
        above_PV = len(self.largest_B) - np.searchsorted(self.largest_B, size_PV)
        together_PV = np.maximum((1 + above_PV) / (1 + len(self.largest_B)), p_PV)
        return np.where(np.isfinite(p_PV), together_PV, np.nan)
