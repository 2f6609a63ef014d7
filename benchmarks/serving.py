"""The service under load, with the load generator on the same machine: half and twice the sustainable rate, a swap, and kills.

python -m benchmarks.serving ROOT [SECONDS]    # ROOT has a published VIDB whose judge is the encoder, as that of `make demo`
python -m benchmarks.serving ROOT 0 [KEY=VALUE ...]    # single requests only, any judge, arguments of `serve run`

One line per phase: requests, statuses, requests and scores per second, latency in milliseconds, and resident megabytes of all
replicas at its start and end. A request scores 4 new texts on 2 values, m=3. First, sequential requests of several sizes: the
share of their time spent outside the judge. `closed`: as many callers as the server has slots, each sending its next request
after a response; its rate is the sustainable rate. `half`, `twice`: open-loop (Poisson) arrivals at half and twice that rate
without retries, which shows refusals; `twice` takes SECONDS (default 60), the others at most a minute. `swap`, `kill judge`,
`kill front`: half the rate with the client's default retries, while the version is reloaded or a replica is killed (-9).
"""

import asyncio
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

from serve.app import absolute, builder
from valueflow import vidb
from valueflow.client import AsyncClient, ValueFlowError
from valueflow.distributed.cluster import ClusterConfig, session
from valueflow.tabular import strict_rows

# No queue: on two cores, refuse requests rather than let them wait.
ARGS = {"fast": "false", "http.max_in_flight": "2", "http.max_queued": "0"}
URL, BODY = "http://127.0.0.1:8000", {"values": ["svt:benevolence", "duty:fidelity"], "m": 3}
TEXTS, REMARKS = 4, itertools.count()


class Answer(NamedTuple):
    """Status (0: no response), seconds, and whether a 429 had a Retry-After."""

    status: int
    seconds: float
    has_retry_after: bool = True


def requests(size: int = TEXTS) -> Callable[[], dict]:
    """Return a function that creates bodies with new texts."""
    texts = [row.fields["text"] for row in strict_rows("valueflow/samples/corpus.csv", ["text"])]
    rng = random.Random(0)
    return lambda: BODY | {"texts": [f"{rng.choice(texts)} And this is remark {next(REMARKS)}." for _ in range(size)]}


def replicas(kind: str) -> list[psutil.Process]:
    """The processes of a deployment's replicas."""
    name = f"ServeReplica:default:{kind}"
    return [p for p in psutil.process_iter(["cmdline"]) if name in " ".join(p.info["cmdline"] or [])]


def megabytes() -> float:
    """Resident memory of all replicas."""
    return sum(p.memory_info().rss for kind in ("evaluator", "judge", "encoder") for p in replicas(kind)) / 2**20


async def send_once(http: httpx.AsyncClient, body: dict) -> Answer:
    """One request without retries."""
    started = time.perf_counter()
    try:
        answer = await http.post(f"{URL}/v1/score", json=body, timeout=120)
    except httpx.HTTPError:
        return Answer(0, time.perf_counter() - started)
    has_retry_after = answer.status_code != 429 or int(answer.headers.get("retry-after", 0)) > 0
    return Answer(answer.status_code, time.perf_counter() - started, has_retry_after)


async def send_with_retries(client: AsyncClient, body: dict) -> Answer:
    """One request with the client's retries."""
    started = time.perf_counter()
    try:
        await client.score(body["texts"], body["values"], m=body["m"])
    except ValueFlowError as error:
        return Answer(error.problem.status if error.problem else 0, time.perf_counter() - started)
    return Answer(200, time.perf_counter() - started)


async def closed(callers: int, seconds: float, ask: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    """Closed loop: each caller sends its next request after a response."""
    end, answers = time.perf_counter() + seconds, []

    async def caller() -> None:
        while time.perf_counter() < end:
            answers.append(await ask())

    await asyncio.gather(*(caller() for _ in range(callers)))
    return answers


async def open_loop(rate: float, seconds: float, ask: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    """Open loop: Poisson arrivals, `rate` per second, independent of responses."""
    rng, tasks = np.random.default_rng(0), []
    end = time.perf_counter() + seconds
    arrival = time.perf_counter()
    while arrival < end:
        await asyncio.sleep(max(0.0, arrival - time.perf_counter()))
        tasks.append(asyncio.create_task(ask()))
        arrival += rng.exponential(1 / rate)
    return list(await asyncio.gather(*tasks))


def report(name: str, answers: list[Answer], seconds: float, before: float) -> float:
    """Print a phase; return the median latency of accepted requests in milliseconds."""
    accepted = np.array([a.seconds for a in answers if a.status == 200]) * 1000
    p50, p99 = np.percentile(accepted, [50, 99]) if len(accepted) else (np.nan, np.nan)
    without_retry_after = sum(not a.has_retry_after for a in answers)
    rate = len(accepted) / seconds
    print(
        f"{name:11} {len(answers):6,} requests {dict(Counter(a.status for a in answers))}"
        + (f", {without_retry_after} of 429 without Retry-After" if without_retry_after else "")
        + f"  {rate:6.1f} requests/s {rate * TEXTS * len(BODY['values']):7.1f} scores/s  p50 {p50:7.0f}  p99 {p99:7.0f}"
        f"  memory {before:,.0f} -> {megabytes():,.0f} MB",
        flush=True,
    )
    return float(p50)


async def outside(http: httpx.AsyncClient, body: Callable[[], dict], judge: serve.handle.DeploymentHandle) -> str:
    """Share of the time of sequential requests (ten, or half a minute) spent outside the judge, with milliseconds of one."""
    before = await judge.seconds.remote()
    started, num = time.perf_counter(), 0
    while num < 10 and time.perf_counter() < started + 30:
        if (answer := await send_once(http, body())).status != 200:
            return f"status {answer.status}"
        num += 1
    spent = time.perf_counter() - started
    outside_judge = spent - (await judge.seconds.remote() - before)
    return f"{outside_judge / spent:.1%} ({1000 * outside_judge / num:.0f} of {1000 * spent / num:.0f} ms)"


async def phases(root: str, overload: float) -> None:
    """Run all phases."""
    body, seconds = requests(), min(overload, 60.0)
    limits = httpx.Limits(max_connections=2000, max_keepalive_connections=200)
    async with httpx.AsyncClient(limits=limits) as http, AsyncClient(URL) as client:
        await closed(2, 10 if overload else 1, lambda: send_once(http, body()))
        judge = serve.get_deployment_handle("judge", "default")

        async def phase(name: str, waiting: Awaitable[list[Answer]], length: float) -> float:
            before = megabytes()
            answers = await waiting
            report.last = answers  # type: ignore[attr-defined]
            return report(name, answers, length, before)

        for size in (1, 4, 32, 128):
            share = await outside(http, requests(size), judge)
            print(f"outside the judge, single requests of {size} texts: {share}", flush=True)
        if not overload:
            return
        callers = int(ARGS["http.max_in_flight"])
        started = time.perf_counter()
        before = megabytes()
        answers = await closed(callers, seconds / 2, lambda: send_once(http, body()))
        length = time.perf_counter() - started
        report("closed", answers, length, before)
        rate = sum(a.status == 200 for a in answers) / length
        half = await phase("half", open_loop(rate / 2, seconds, lambda: send_once(http, body())), seconds)
        await phase("twice", open_loop(2 * rate, overload, lambda: send_once(http, body())), overload)
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
            await phase(name, open_loop(rate / 2, seconds / 2, lambda: send_with_retries(client, body())), seconds / 2)
            await happening


def main() -> None:
    root, seconds = absolute(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
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
