"""Windows put in order, as arrays that the Plackett-Luce solver reads, and how `rankings` rows become such arrays.

Shapes: W windows, K texts in a window. Texts are items 0..N-1: positions in a sorted list of text ids.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.errors import InputError
from valueflow.numerics.hashing import combine64, stream64


class Orders(NamedTuple):
    """Windows of one length: items best first, and a likelihood weight for each window (1 for a plain answer).

    A preference with probability p is two rows with weights p and 1-p; a tie is two rows with weight 1/2. In a partial order
    only the first `top` items are ordered; the others follow in any order.
    """

    items_WK: np.ndarray
    weight_W: np.ndarray
    positions_WK: np.ndarray | None = None  # slot in which each item was shown
    judge_W: np.ndarray | None = None
    top: int | None = None
    key_W: np.ndarray | None = None  # seeds a window's random signs, wherever its shard is

    @property
    def stages(self) -> int:
        """Number of choices in a window."""
        k = self.items_WK.shape[1]
        return k - 1 if self.top is None else min(self.top, k - 1)


def orders_of(rankings: pa.Table, text_ids: list[str], judge: int = 0) -> list[Orders]:
    """Return one judge's valid windows grouped by length, sorted by window id; items index the sorted `text_ids`.

    Failed windows are left out, and a window answered twice counts once. A preference with a probability (k=2) becomes the two
    orders of the pair with weights p and 1-p.

    Args:
        rankings: rows of the table `rankings`.
        text_ids: ids of all texts of the value, sorted.
        judge: number of the judge, where judges are modelled.

    Raises:
        InputError: a window shows a text that is not among `text_ids`.
    """
    rankings = rankings.filter(pc.is_null(rankings["error"]))
    first = np.unique(rankings["window_id"].to_numpy().astype("S16"), return_index=True)[1]
    rankings = rankings.take(first)
    ids = np.array(text_ids)
    orders = []
    lengths = pc.list_value_length(rankings["text_ids"])
    for k in pc.unique(lengths).to_pylist():
        rows = rankings.filter(pc.equal(lengths, k))
        flat = pc.list_flatten(rows["text_ids"]).to_numpy().astype(str)
        item = np.minimum(np.searchsorted(ids, flat), len(ids) - 1)
        if (ids[item] != flat).any():
            raise InputError(f"a window shows the text {flat[ids[item] != flat][0]}, which is none of the value's")
        window_WK = item.reshape(-1, k)
        order_WK = pc.list_flatten(rows["order"]).to_numpy().reshape(-1, k)  # positions in the window, best first
        items_WK = np.take_along_axis(window_WK, order_WK, axis=1)
        weight_W = rows["weight"].to_numpy().astype(float)
        plain = np.isnan(weight_W)
        # Judges answer the same windows, but each answer needs its own random signs.
        key_W = _keys(rows["window_id"]) ^ stream64(judge)
        judge_W = np.full(len(order_WK), judge, np.int32)
        orders.append(Orders(items_WK, np.where(plain, 1.0, weight_W), order_WK, judge_W, key_W=key_W))
        if not plain.all():
            reverse = (items_WK[~plain][:, ::-1], 1.0 - weight_W[~plain], order_WK[~plain][:, ::-1], judge_W[~plain])
            orders.append(Orders(*reverse, key_W=~key_W[~plain]))
    return orders


def _keys(window_ids: pa.ChunkedArray) -> np.ndarray:
    """Return a 64-bit key for each id of 16 characters."""
    halves = window_ids.to_numpy().astype("S16").view(np.uint64).reshape(-1, 2)
    return combine64(halves[:, 0], halves[:, 1])
