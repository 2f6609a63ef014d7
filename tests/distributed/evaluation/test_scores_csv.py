"""The scores CSV that is written chunk by chunk is the one of all rows at once."""

import pyarrow as pa

from valueflow import store
from valueflow.distributed.evaluation.run import _write_csv
from valueflow.records import SCHEMAS
from valueflow.store import Build

VALUES = ("benevolence", "power")


def test_chunk_by_chunk_is_all_at_once(tmp_path):
    build = Build(str(tmp_path), "evaluations", "b")
    for value in VALUES:
        for chunk in range(3):
            rows = [
                {
                    "response_id": f"{n:0>16}", "query": "q", "dataset": "d", "response": f"text {n}", "theory": "svt",
                    "value": value, "intensity": n + 0.5 * (value == "power"), "num_windows": 1, "num_failed": 0,
                    "judge": "j", "vidb_version": "v", "sampling": "uniform", "k": 2, "m": 1, "low": -9.0, "high": 9.0,
                }
                for n in range(2 * chunk, 2 * chunk + 2)
            ]  # fmt: skip
            table = pa.Table.from_pylist(rows, SCHEMAS["evaluations"])
            store.write_part(build, table, "0", f"theory=svt/value={value}/chunk={chunk:05d}")
    _write_csv(build, True)
    by_chunk = store.read_bytes(f"{build.url}/scores.csv").decode()
    _write_csv(build, False)
    assert store.read_bytes(f"{build.url}/scores.csv").decode() == by_chunk
    assert by_chunk.splitlines()[0] == "query,dataset,response,benevolence_score,power_score"
    assert by_chunk.splitlines()[-1] == "q,d,text 5,5.0,5.5"
