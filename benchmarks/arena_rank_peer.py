"""The peer arena-rank, run by `benchmarks.solver` in a separate environment: it needs other versions of numpy and jax.

PYTHON benchmarks/arena_rank_peer.py ORDERS.npy ITEMS THETA.npy
"""

import json
import resource
import sys
import time

import numpy as np
import pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset


def solve(items_WK: np.ndarray, num_items: int) -> np.ndarray:
    names = np.array([f"{i:06d}" for i in range(num_items)])
    frame = pd.DataFrame({"model_a": names[items_WK[:, 0]], "model_b": names[items_WK[:, 1]], "winner": "model_a"})
    data = PairDataset.from_pandas(frame)
    model = BradleyTerry(n_competitors=len(data.competitors), max_iter=10_000, ftol=1e-15, gtol=1e-12)
    model.fit(data)
    theta = np.zeros(num_items)
    theta[np.array(data.competitors, int)] = np.asarray(model.params["ratings"])
    return theta - theta.mean()


def main() -> None:
    items_WK, num_items = np.load(sys.argv[1]), int(sys.argv[2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    solve(items_WK[:1000], num_items)  # compiles, for other shapes
    started = time.perf_counter()
    theta = solve(items_WK, num_items)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.save(sys.argv[3], theta)
    print(json.dumps([seconds, (after - before) * 1024 / items_WK.nbytes]))


if __name__ == "__main__":
    main()
