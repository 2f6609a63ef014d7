"""Memory of the driver and speed of a steering job with the free generator, by number of planned rows.

python -m benchmarks.steer [10000 100000 1000000]

Each number runs in a process of its own, on a Ray with two CPUs. Printed: the driver's resident memory before the job and its
largest during the generation and after the end (export included), and rows per second of the generation and of the whole job.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time

import psutil

from valueflow import store
from valueflow.config import parse
from valueflow.distributed.cluster import session
from valueflow.distributed.steering.generate import steer
from valueflow.distributed.steering.generate_config import SteerConfig

ROWS = (10_000, 100_000, 1_000_000)
QUERIES, VALUES = 500, 32
CELLS = VALUES * 4 + 2  # conditions of a replicate: 32 values at four levels, and two controls
MB = 1e6


class Peak(threading.Thread):
    """The largest resident memory of this process so far, printed every half minute."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.process, self.largest, self.running = psutil.Process(os.getpid()), 0, True

    def run(self) -> None:
        """Watch until `running` is False."""
        told = time.monotonic()
        while self.running:
            self.largest = max(self.largest, self.process.memory_info().rss)
            if time.monotonic() > told + 30:
                told = time.monotonic()
                print(f"          … the driver has had {self.largest / MB:,.0f} MB at most", flush=True)
            time.sleep(0.05)


def measure(rows: int) -> None:
    """Run a job of about so many rows and print a line."""
    with tempfile.TemporaryDirectory() as root:
        replicates = -(-rows // (QUERIES * CELLS))
        queries = max(rows // (replicates * CELLS), 1)
        with open(f"{root}/queries.csv", "w", encoding="utf-8") as file:
            file.write("query\n" + "".join(f"What would you do in situation number {n}?\n" for n in range(queries)))
        settings = {
            "root": root,
            "queries": [f"{root}/queries.csv"],
            "conditions": {"controls": ["bare", "neutral_persona"]},
            "replicates": replicates,
            "models": [{"kind": "simulated", "batch_size": 2000, "num_cpus": 0.9}],
            "cluster": {"num_cpus": 2},
        }
        config = parse(SteerConfig, settings, "benchmark")
        with session(config.cluster):
            before = psutil.Process().memory_info().rss
            peak = Peak()
            peak.start()
            started = time.perf_counter()
            result = steer(config)
            seconds = time.perf_counter() - started
            peak.running = False
        manifest = store.require_manifest(result.builds["simulated"])
        count = manifest.num_rows
        print(
            f"{count:>9,} rows: driver {before / MB:,.0f} MB before, {peak.largest / MB:,.0f} MB at most; {seconds:,.0f} s, "
            f"{count / seconds:,.0f} rows/s with plan, commit and export",
            flush=True,
        )


def main() -> None:
    """Measure each number of rows in a process of its own."""
    if sys.argv[1:2] == ["--one"]:
        measure(int(sys.argv[2]))
        return
    for rows in [int(argument) for argument in sys.argv[1:]] or ROWS:
        subprocess.run([sys.executable, "-m", "benchmarks.steer", "--one", str(rows)], check=True)


if __name__ == "__main__":
    main()
