"""From `rankings` rows to the arrays the Plackett-Luce solver reads."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.ranking.likelihood import Orders


def orders_of(rankings: pa.Table, text_ids: list[str], judge: int = 0) -> list[Orders]:
    """Return the answered windows by length, in the order of their ids; items are positions in the sorted `text_ids`.

    Broken answers are left out, a window answered twice counts once. A weighted preference (k=2) becomes the two orders of a
    pair with weights p and 1-p. All are the answers of one judge, of this number where judges are modelled.
    """
    rankings = rankings.filter(pc.is_null(rankings["error"]))
    first = np.unique(rankings["window_id"].to_numpy().astype("S16"), return_index=True)[1]
    rankings = rankings.take(first)
    ids = np.array(text_ids)
    orders = []
    lengths = pc.list_value_length(rankings["text_ids"])
    for k in pc.unique(lengths).to_pylist():
        rows = rankings.filter(pc.equal(lengths, k))
        flat = pc.list_flatten(rows["text_ids"]).to_numpy().astype(ids.dtype)
        shown_WK = np.searchsorted(ids, flat).reshape(-1, k)
        order_WK = pc.list_flatten(rows["order"]).to_numpy().reshape(-1, k)
        best_first_WK = np.take_along_axis(shown_WK, order_WK, axis=1)
        weight_W = rows["weight"].to_numpy().astype(float)
        plain = np.isnan(weight_W)
        # Judges answer the same windows, and each answer has its own draws.
        key_W = _keys(rows["window_id"]) ^ np.uint64(judge * 0xD1B54A32D192ED03 % 2**64)
        judge_W = np.full(len(order_WK), judge, np.int32)
        # A position in the window is the place at which the text was shown.
        orders.append(Orders(best_first_WK, np.where(plain, 1.0, weight_W), order_WK, judge_W, key_W=key_W))
        if not plain.all():
            turned = (best_first_WK[~plain][:, ::-1], 1.0 - weight_W[~plain], order_WK[~plain][:, ::-1], judge_W[~plain])
            orders.append(Orders(*turned, key_W=~key_W[~plain]))
    return orders


def _keys(window_ids: pa.ChunkedArray) -> np.ndarray:
    """A number for each id, of its 16 characters."""
    halves = window_ids.to_numpy().astype("S16").view(np.uint64).reshape(-1, 2)
    return halves[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ halves[:, 1]
