"""Loads the compiled loops of the fit where it is imported: once in the process that attempts are forked from, not in each."""

import numpy as np

from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import Orders
from valueflow.ranking.plackett_luce import fit

fit(LikelihoodShard(3, [Orders(np.array([[0, 1], [1, 2], [2, 0], [1, 0]]), np.ones(4))]), None, 1e-9)
