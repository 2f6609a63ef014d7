"""Overhead of plan -> judge -> parse -> write with a judge of no cost: windows per second, and memory by number of windows.

python -m benchmarks.pipeline
"""

import shutil
import tempfile
import threading
import time

import psutil
import pyarrow as pa

from valueflow import store
from valueflow.distributed import answer
from valueflow.distributed.build.plan import plan
from valueflow.distributed.cluster import ClusterConfig, session
from valueflow.distributed.rank import rank
from valueflow.distributed.texts import ValueTexts
from valueflow.judging.answers import answers
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.parse import parse_order
from valueflow.ranking.windows import WindowsConfig
from valueflow.records import text_id
from valueflow.store import Build

TEXTS, VALUES = 5_000, ("benevolence", "security")


def free_judge(windows):
    """Return a reply for each window, parsed like a real one."""
    return windows.map_batches(_reply, batch_format="pyarrow", batch_size=4096)


def _reply(windows: pa.Table) -> pa.Table:
    replies = ["A" if ids[0] < ids[1] else "B" for ids in windows["text_ids"].to_pylist()]
    orders = [parse_order(reply, 2) for reply in replies]
    return answers(windows, "free", orders, replies, [None] * len(replies))


def candidates(root: str) -> Build:
    build = Build(root, "candidates", "bench")
    texts = [f"text number {i} says something about a value in about twenty words or so, like people do" for i in range(TEXTS)]
    for value in VALUES:
        columns = {
            "theory": ["svt"] * TEXTS, "value": [value] * TEXTS, "text_id": [text_id(t) for t in texts], "text": texts,
            "direction": pa.nulls(TEXTS, pa.int8()), "neutral": [False] * TEXTS,
            "source": ["b"] * TEXTS, "license": ["MIT"] * TEXTS,
        }  # fmt: skip
        store.write_part(build, pa.table(columns), "0", store.value_folder(f"svt:{value}"))
    store.commit(build, store.CandidatesDetails())
    return build


class Peak(threading.Thread):
    """Largest resident memory of this process and its children, sampled."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.driver = self.workers = 0
        self.stop = False

    def run(self) -> None:
        """Sample until `stop` is set."""
        me = psutil.Process()
        while not self.stop:
            self.driver = max(self.driver, me.memory_info().rss)
            for child in me.children(recursive=True):
                try:
                    if "ray::" in child.name() or "ray::" in " ".join(child.cmdline()[:1]):
                        memory = child.memory_info()
                        self.workers = max(self.workers, memory.rss - memory.shared)
                except psutil.Error:
                    continue
            time.sleep(0.2)


def main() -> None:
    root = tempfile.mkdtemp()
    answer.judge = lambda *_: free_judge  # everything but the judge is real
    with session(ClusterConfig(num_cpus=2)):
        pool = candidates(root)
        print(f"{'windows':>10} {'seconds':>8} {'windows/s':>10} {'driver MiB':>11} {'largest worker MiB':>19}")
        for m in (4, 4, 20, 40):  # the first is a warm-up of the worker processes
            windows = Build(root, "windows", f"m{m}-{time.time_ns()}")
            out = Build(root, "rankings", windows.build_id)
            peak = Peak()
            peak.start()
            started = time.monotonic()
            plan(pool, WindowsConfig(k=2, m=m), windows)
            manifest = rank(windows, ValueTexts((pool,)), SimulatedJudge(), out, 0, {})
            seconds = time.monotonic() - started
            peak.stop = True
            peak.join()
            rows = manifest.num_rows
            memory = (peak.driver / 2**20, peak.workers / 2**20)
            print(f"{rows:>10,} {seconds:>8.1f} {rows / seconds:>10,.0f} {memory[0]:>11.0f} {memory[1]:>19.0f}", flush=True)
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
