"""Cost of what is around a judge: plan, rank, merge of parts and aggregate; the judge answers at once or after a delay.

    python -m benchmarks.pipeline [VALUES TEXTS M [BATCH [SECONDS ACTORS]]]

One run is VALUES values of TEXTS texts, each in M windows of two, in batches of BATCH windows; without arguments three small
runs. With SECONDS each batch takes its actor so long, and the share of the actors' time in which they did not judge is printed:
of the rank stage, and of the whole build. The peak memory of the driver is that of its process, what it shares with the object
store included.
"""

import shutil
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import psutil
import pyarrow as pa

from valueflow import store
from valueflow.distributed.answer import AnswerStage
from valueflow.distributed.build.aggregate import AggregateConfig, Source, aggregate
from valueflow.distributed.build.plan import plan
from valueflow.distributed.cluster import ClusterConfig, session
from valueflow.distributed.rank import rank
from valueflow.distributed.texts import ValueTexts
from valueflow.judging.answers import answers
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.kinds import KINDS
from valueflow.judging.parse import parse_order
from valueflow.ranking.windows import WindowsConfig
from valueflow.records import digest, text_id
from valueflow.store import Build

NAME = "free"
SMALL = ((2, 5_000, 4), (2, 5_000, 4), (2, 5_000, 20), (2, 5_000, 40))  # the first is a warm-up of the worker processes


class FreeRanker:
    """Answers windows by a hash of texts and window, parsed as a reply is; noise keeps the fit from a perfect order."""

    def __init__(self, config: SimulatedJudge) -> None:
        self.seconds = config.seconds_per_batch

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of windows."""
        time.sleep(self.seconds)
        replies = [
            "A" if 2 * int(a[:8], 16) + int(window[:8], 16) > 2 * int(b[:8], 16) + int(window[8:16], 16) else "B"
            for window, (a, b) in zip(windows["window_id"].to_pylist(), windows["text_ids"].to_pylist(), strict=True)
        ]
        orders = [parse_order(reply, 2) for reply in replies]
        return answers(windows, NAME, orders, replies, [None] * len(replies))


def candidates(root: str, values: int, texts: int) -> Build:
    """Write a pool of texts for each value."""
    build = Build(root, "candidates", digest(values, texts))
    pool = [f"text number {i} says something about a value in about twenty words or so, like people do" for i in range(texts)]
    for value in (f"value-{n:02d}" for n in range(values)):
        columns = {
            "theory": ["svt"] * texts, "value": [value] * texts, "text_id": [text_id(t) for t in pool], "text": pool,
            "direction": pa.nulls(texts, pa.int8()), "neutral": [False] * texts,
            "source": ["b"] * texts, "license": ["MIT"] * texts,
        }  # fmt: skip
        store.write_part(build, pa.table(columns), "0", store.value_folder(f"svt:{value}"))
    store.commit(build, store.CandidatesDetails())
    return build


class Peak(threading.Thread):
    """Largest resident memory of this process and of its largest worker, sampled."""

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


class Seconds(NamedTuple):
    """Wall-clock seconds by stage; `rank` is without the merge."""

    plan: float
    rank: float
    merge: float
    aggregate: float


def build(pool: Build, m: int, judge: SimulatedJudge) -> tuple[int, Seconds]:
    """Run the stages around the judge; return the number of windows and the time of each stage."""
    name = f"m{m}-{time.time_ns()}"
    windows, rankings, utilities = (Build(pool.root, table, name) for table in ("windows", "rankings", "utilities"))
    merge, finish = [], AnswerStage.finish

    def timed(stage: AnswerStage) -> list[store.File]:
        began = time.monotonic()
        files = finish(stage)
        merge.append(time.monotonic() - began)
        return files

    AnswerStage.finish = timed
    try:
        at = [time.monotonic()]
        plan(pool, WindowsConfig(k=2, m=m), windows)
        at.append(time.monotonic())
        manifest = rank(windows, ValueTexts((pool,)), judge, rankings, 0, {"judge": judge.public()})
        at.append(time.monotonic())
        aggregate(pool, [Source(rankings, name=NAME)], 2, AggregateConfig(), utilities)
        at.append(time.monotonic())
    finally:
        AnswerStage.finish = finish
    assert set(store.read_part(rankings, manifest.files[0], ["judge"])["judge"].to_pylist()) == {NAME}
    return manifest.num_rows, Seconds(at[1] - at[0], at[2] - at[1] - merge[0], merge[0], at[3] - at[2])


def report(pool: Build, m: int, judge: SimulatedJudge) -> None:
    """Print one line: time by stage, memory, and with a delay the share of time outside the judge."""
    peak = Peak()
    peak.start()
    before = psutil.Process().memory_info().rss
    rows, seconds = build(pool, m, judge)
    peak.stop = True
    peak.join()
    line = "  ".join(f"{name} {value:.1f} s ({rows / value:,.0f}/s)" for name, value in seconds._asdict().items())
    memory = (peak.driver / 2**20, (peak.driver - before) / 2**20, peak.workers / 2**20)
    print(
        f"{rows:,} windows in batches of {judge.batch_size}: {line}; all {rows / sum(seconds):,.0f}/s; driver "
        f"{memory[0]:.0f} MiB (+{memory[1]:.0f}), largest worker {memory[2]:.0f} MiB",
        flush=True,
    )
    if judge.seconds_per_batch:
        busy = -(-rows // judge.batch_size) * judge.seconds_per_batch / judge.num_actors
        print(
            f"  actors judged for {busy:.1f} s each; outside the judge: {1 - busy / seconds.rank:.1%} of rank, "
            f"{1 - busy / sum(seconds):.1%} of the build",
            flush=True,
        )


def main() -> None:
    """Run the sizes of the command line, or the small ones."""
    numbers = sys.argv[1:]
    values, texts, m = map(int, numbers[:3]) if numbers else SMALL[0]
    delay = {"seconds_per_batch": float(numbers[4]), "num_actors": int(numbers[5])} if len(numbers) > 4 else {}
    judge = SimulatedJudge(name=NAME, batch_size=int(numbers[3]) if len(numbers) > 3 else 4096, num_cpus=0.1, **delay)
    KINDS["simulated"] = KINDS["simulated"]._replace(ranker=FreeRanker)  # everything but the judge is real
    root = tempfile.mkdtemp()
    try:
        with session(ClusterConfig(num_cpus=2 + judge.num_actors // 10)):
            pool = candidates(root, values, texts)
            for _, _, m_ in ((values, texts, m),) if numbers else SMALL:
                report(pool, m_, judge)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
