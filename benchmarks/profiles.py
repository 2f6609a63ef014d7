"""Speed and memory of profiles: many units shard by shard from given scores, and the encoder's texts per second in mode fast.

python -m benchmarks.profiles
"""

import resource
import time

import numpy as np
import pyarrow as pa

from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker
from valueflow.profiles.estimate import EstimateConfig, TextScores
from valueflow.profiles.table import Basis, profile_rows, unit_ids
from valueflow.profiles.unit_texts import SHARDS
from valueflow.ranking.content_error import ContentError
from valueflow.records import SCHEMAS, text_id
from valueflow.theories import operational

TEXTS = 30  # of a unit
ENCODED = 1500


def shard(number: int, units: int) -> pa.Table:
    """Texts of some units."""
    rows = []
    for u in range(units):
        for i in range(TEXTS):
            text = f"unit {number}-{u} says number {i}"
            row = {"row_id": text, "unit": f"{number}-{u:06d}", "text_id": text_id(text), "text": text}
            rows.append(row | {"thread": "", "weight": 1.0})
    return pa.Table.from_pylist(rows, SCHEMAS["unit_texts"])


def main() -> None:
    """Print seconds and peak memory for 1,000 and 10,000 units, then the speed of the encoder."""
    values = operational()
    basis = Basis(values, dict.fromkeys(values, ContentError()), dict.fromkeys(values, 3.0), EstimateConfig())
    rng = np.random.default_rng(0)
    for units in (1_000, 10_000):
        started = time.perf_counter()
        for number in range(SHARDS):
            texts = shard(number, units // SHARDS)
            size = (len(texts), len(values))
            profile_rows(texts, TextScores(rng.normal(0, 3, size), rng.random(size)), basis, unit_ids(texts))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.perf_counter() - started
        print(f"{units:,} units x {TEXTS} texts x {len(values)} values: {seconds:.0f} s, peak {peak:,.0f} MiB")
    ranker = EncoderRanker(EncoderJudge(name="head"))
    texts = [f"I helped neighbour number {i} with the shopping because it was raining." for i in range(ENCODED)]
    started = time.perf_counter()
    ranker.head(ranker.encoder(texts))
    print(f"encoder and head: {ENCODED / (time.perf_counter() - started):,.0f} texts of 12 words a second")


if __name__ == "__main__":
    main()
