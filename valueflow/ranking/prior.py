"""Independent normal priors of the Plackett-Luce parameters.

Shapes: N items, J judges, P positions; `likelihood.Layout` orders the parameters.
"""

from typing import NamedTuple

import numpy as np

from valueflow.ranking.likelihood import Layout

# A judge's sharpness lies around that of the judge fixed at 1; a position changes a text's log-worth by up to about two nats.
BETA_SD, GAMMA_SD = 1.0, 1.0
FIXED = 1e12  # precision of a parameter that is not estimated


class ItemPriors(NamedTuple):
    """Prior mean and standard deviation of each item's theta; NaN for items without a prior of their own."""

    mean_N: np.ndarray
    sd_N: np.ndarray


class Prior(NamedTuple):
    """Means and precisions of all parameters, both of shape (parameters,)."""

    mean: np.ndarray
    precision: np.ndarray

    def penalty(self, phi: np.ndarray) -> float:
        """Return the negative log-density up to a constant, nats."""
        deviation = phi - self.mean
        return 0.5 * float(deviation @ (self.precision * deviation))


def parameter_prior(
    layout: Layout, sd: float, effects: np.ndarray | None = None, item_priors: ItemPriors | None = None
) -> Prior:
    """Return the prior of all parameters.

    Args:
        layout: sizes of the parameter vector.
        sd: theta ~ N(0, sd^2), nats, unless `item_priors` has an entry for the item.
        effects: beta and gamma, held at these values; None: beta ~ N(1, 1), gamma ~ N(0, 1).
        item_priors: priors of single items.
    """
    n, j, p = layout
    mean = np.concatenate([np.zeros(n), np.ones(j), np.zeros(j * p)])
    precision = np.repeat([sd**-2, BETA_SD**-2, GAMMA_SD**-2], [n, j, j * p])
    if item_priors is not None:
        mean[:n] = np.where(np.isnan(item_priors.mean_N), 0.0, item_priors.mean_N)
        precision[:n] = np.where(np.isnan(item_priors.sd_N), sd**-2, item_priors.sd_N**-2.0)
    if effects is not None:
        mean[n:], precision[n:] = effects, FIXED
    return Prior(mean, precision)
