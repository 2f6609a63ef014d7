"""What a rerun of an unfinished build costs before it asks anything: with the journal of its parts, and without.

    python -m benchmarks.resume [PARTS [ROOT]]

ROOT may be a URL (`s3://bucket/folder`); by default a temporary folder. Prints seconds, seconds per 100,000 parts, and how much
memory the driver's process gained.
"""

import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from valueflow import store
from valueflow.records import SCHEMAS, digest

BATCH = 64
VALUES = ("power", "security", "benevolence", "hedonism")


def main() -> None:
    """Write an unfinished build, load its journal, remove the journal, and load it again from the parts."""
    num_parts = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    with tempfile.TemporaryDirectory() as folder:
        build = store.Build(sys.argv[2] if len(sys.argv) > 2 else folder, "rankings", "resume-benchmark")
        journal = store.Journal(build, "window_id")
        started = time.perf_counter()
        with ThreadPoolExecutor(4) as pool:
            for records in pool.map(lambda n: _write(build, n), range(num_parts)):
                journal.add(records)
        journal.save()
        _print("written and recorded", num_parts, time.perf_counter() - started, 0)
        seconds = {}
        for what in ("with its journal", "from the parts alone"):
            before, started = _memory(), time.perf_counter()
            again = store.Journal(build, "window_id")
            again.load()
            assert again.totals.rows == num_parts * BATCH
            seconds[what] = time.perf_counter() - started
            _print(f"resumed {what}", num_parts, seconds[what], _memory() - before)
            again.close()
        print(f"with its journal {seconds['from the parts alone'] / seconds['with its journal']:.1f} times faster")
        store.remove_unfinished(build)


def _write(build: store.Build, number: int) -> pa.Table:
    value = VALUES[number % len(VALUES)]
    rng = np.random.default_rng(number)
    ids = [digest(number, n) for n in range(BATCH)]
    texts = [digest(n) for n in range(1000)]
    rows = {
        "window_id": ids, "theory": ["svt"] * BATCH, "value": [value] * BATCH,
        "text_ids": [[texts[i] for i in rng.choice(1000, 2, replace=False)] for _ in ids], "round": [0] * BATCH,
        "judge": ["j"] * BATCH, "order": [[0, 1]] * BATCH, "weight": [None] * BATCH, "error": [None] * BATCH,
        "reply": ["A"] * BATCH, "tokens_in": [300] * BATCH, "tokens_out": [2] * BATCH,
    }  # fmt: skip
    table = pa.table({field.name: pa.array(rows[field.name], field.type) for field in SCHEMAS["rankings"]})
    return store.write_recorded(build, table, f"{number:06d}", store.value_folder(f"svt:{value}"), "window_id")


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _print(what: str, parts: int, seconds: float, memory: float) -> None:
    print(f"{parts:,} parts {what}: {seconds:.1f} s, {seconds / parts * 100_000:.0f} s per 100,000 parts, +{memory:.0f} MB")


if __name__ == "__main__":
    main()
