"""The service under load, beside its load on one machine: at half of what it can do, at twice that, through a swap and kills.

python -m benchmarks.serving ROOT [SECONDS]    # ROOT has a published VIDB whose judge is the encoder, as that of `make demo`
python -m benchmarks.serving ROOT 0 [KEY=VALUE ...]    # lone requests only; to any judge, with arguments of `serve run`

One line a phase: requests, statuses, requests and scores a second, milliseconds, and resident megabytes of all replicas at its
start and end. A request scores 4 new texts on 2 values, m=3. Before them, requests one after another of several sizes: what
share of their time is spent outside the judge. `closed`: as many callers as the server works for, each asking when it has its
answer; its rate is called sustainable. `half`, `twice`: requests arrive by the clock (Poisson) at half and twice that rate,
without retries, so that refusals are seen; `twice` takes SECONDS (default 60), the others a minute or less. `swap`, `kill
judge`, `kill front`: at half the rate with the client's default retries, while the version is loaded anew, or a replica is
killed (-9).
"""

import asyncio
import csv
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import httpx
import numpy as np
import psutil
from ray import serve
from ray.serve.config import HTTPOptions

from serve.app import builder
from valueflow import vidb
from valueflow.client import AsyncClient, ValueFlowError
from valueflow.distributed.cluster import ClusterConfig, session

# No queue: on two cores, what would wait behind others is better told to come back.
ARGS = {"fast": "false", "http.max_in_flight": "2", "http.max_queued": "0"}
URL, BODY = "http://127.0.0.1:8000", {"values": ["svt:benevolence", "duty:fidelity"], "m": 3}
TEXTS, REMARKS = 4, itertools.count()


class Answer(NamedTuple):
    """Status (0: no answer), seconds, and whether a refusal said when to come back."""

    status: int
    seconds: float
    told: bool = True


def requests(size: int = TEXTS) -> Callable[[], dict]:
    """Return what makes bodies of texts never seen before."""
    with open("valueflow/samples/corpus.csv", newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    rng = random.Random(0)
    return lambda: BODY | {"texts": [f"{rng.choice(texts)} And this is remark {next(REMARKS)}." for _ in range(size)]}


def replicas(kind: str) -> list[psutil.Process]:
    """The processes of a deployment's replicas."""
    name = f"ServeReplica:default:{kind}"
    return [p for p in psutil.process_iter(["cmdline"]) if name in " ".join(p.info["cmdline"] or [])]


def megabytes() -> float:
    """Resident memory of all replicas."""
    return sum(p.memory_info().rss for kind in ("evaluator", "judge", "encoder") for p in replicas(kind)) / 2**20


async def plain(http: httpx.AsyncClient, body: dict) -> Answer:
    """One request without retries."""
    started = time.perf_counter()
    try:
        answer = await http.post(f"{URL}/v1/score", json=body, timeout=120)
    except httpx.HTTPError:
        return Answer(0, time.perf_counter() - started)
    told = answer.status_code != 429 or int(answer.headers.get("retry-after", 0)) > 0
    return Answer(answer.status_code, time.perf_counter() - started, told)


async def persistent(client: AsyncClient, body: dict) -> Answer:
    """One request with the client's retries."""
    started = time.perf_counter()
    try:
        await client.score(body["texts"], body["values"], m=body["m"])
    except ValueFlowError as error:
        return Answer(error.problem.status if error.problem else 0, time.perf_counter() - started)
    return Answer(200, time.perf_counter() - started)


async def closed(callers: int, seconds: float, ask: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    """Callers that ask when they have their answer."""
    end, answers = time.perf_counter() + seconds, []

    async def caller() -> None:
        while time.perf_counter() < end:
            answers.append(await ask())

    await asyncio.gather(*(caller() for _ in range(callers)))
    return answers


async def by_the_clock(rate: float, seconds: float, ask: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    """Requests at random times, `rate` a second, whether or not earlier ones are answered."""
    rng, tasks = np.random.default_rng(0), []
    end = time.perf_counter() + seconds
    at = time.perf_counter()
    while at < end:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        tasks.append(asyncio.create_task(ask()))
        at += rng.exponential(1 / rate)
    return list(await asyncio.gather(*tasks))


def report(name: str, answers: list[Answer], seconds: float, before: float) -> float:
    """Print a phase; return the median latency of what was accepted."""
    accepted = np.array([a.seconds for a in answers if a.status == 200]) * 1000
    p50, p99 = np.percentile(accepted, [50, 99]) if len(accepted) else (np.nan, np.nan)
    untold = sum(not a.told for a in answers)
    rate = len(accepted) / seconds
    print(
        f"{name:11} {len(answers):6,} requests {dict(Counter(a.status for a in answers))}"
        + (f", {untold} of 429 without Retry-After" if untold else "")
        + f"  {rate:6.1f} requests/s {rate * TEXTS * len(BODY['values']):7.1f} scores/s  p50 {p50:7.0f}  p99 {p99:7.0f}"
        f"  memory {before:,.0f} -> {megabytes():,.0f} MB",
        flush=True,
    )
    return float(p50)


async def outside(http: httpx.AsyncClient, body: Callable[[], dict], judge: serve.handle.DeploymentHandle) -> str:
    """Share of the time of lone requests, ten of them or half a minute, that is not spent in the judge; milliseconds of one."""
    before = await judge.seconds.remote()
    started, num = time.perf_counter(), 0
    while num < 10 and time.perf_counter() < started + 30:
        if (answer := await plain(http, body())).status != 200:
            return f"status {answer.status}"
        num += 1
    spent = time.perf_counter() - started
    beside = spent - (await judge.seconds.remote() - before)
    return f"{beside / spent:.1%} ({1000 * beside / num:.0f} of {1000 * spent / num:.0f} ms)"


async def phases(root: str, overload: float) -> None:
    """All of them, one after another."""
    body, seconds = requests(), min(overload, 60.0)
    limits = httpx.Limits(max_connections=2000, max_keepalive_connections=200)
    async with httpx.AsyncClient(limits=limits) as http, AsyncClient(URL) as client:
        await closed(2, 10 if overload else 1, lambda: plain(http, body()))
        judge = serve.get_deployment_handle("judge", "default")

        async def phase(name: str, waiting: Awaitable[list[Answer]], length: float) -> float:
            before = megabytes()
            answers = await waiting
            report.last = answers  # type: ignore[attr-defined]
            return report(name, answers, length, before)

        for size in (1, 4, 32, 128):
            print(f"outside the judge, lone requests of {size} texts: {await outside(http, requests(size), judge)}", flush=True)
        if not overload:
            return
        callers = int(ARGS["http.max_in_flight"])
        started = time.perf_counter()
        before = megabytes()
        answers = await closed(callers, seconds / 2, lambda: plain(http, body()))
        length = time.perf_counter() - started
        report("closed", answers, length, before)
        rate = sum(a.status == 200 for a in answers) / length
        half = await phase("half", by_the_clock(rate / 2, seconds, lambda: plain(http, body())), seconds)
        await phase("twice", by_the_clock(2 * rate, overload, lambda: plain(http, body())), overload)
        accepted = [a.seconds * 1000 for a in report.last if a.status == 200]  # type: ignore[attr-defined]
        print(f"p99 of accepted requests at twice the rate: {np.percentile(accepted, 99) / half:.1f} times the p50 at half")

        async def swap() -> None:
            await asyncio.sleep(seconds / 6)
            await asyncio.to_thread(
                serve.run, builder({"root": root, "vidb": vidb.load(root).build.build_id, **ARGS}), name="default"
            )

        def kill(kind: str) -> Callable[[], Awaitable[None]]:
            async def killing() -> None:
                await asyncio.sleep(seconds / 6)
                for process in replicas(kind)[:1]:
                    os.kill(process.pid, signal.SIGKILL)

            return killing

        for name, event in (("swap", swap), ("kill judge", kill("judge")), ("kill front", kill("evaluator"))):
            happening = asyncio.create_task(event())
            await phase(name, by_the_clock(rate / 2, seconds / 2, lambda: persistent(client, body())), seconds / 2)
            await happening


def main() -> None:
    root, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    more = dict(word.split("=", 1) for word in sys.argv[3:])
    with session(ClusterConfig(num_cpus=8)):
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=8000))
        started = time.perf_counter()
        serve.run(builder({"root": root, **ARGS, **more}), name="default")
        print(f"ready after {time.perf_counter() - started:.1f} s")
        asyncio.run(phases(root, seconds))
        serve.shutdown()


if __name__ == "__main__":
    main()
