"""A light request of the service beside a heavy one of another caller, and after a heavy caller has gone.

python -m benchmarks.fairness ROOT [KEY=VALUE ...]    # ROOT has a published VIDB; arguments of `serve run`

Without keys every request is a caller of its own. The heavy request scores new texts of one of the `LENGTHS` on one value,
the light one a new text of 60 characters. A line per mode and lengths: the median seconds of the light
request alone, and how many times as long it takes beside the heavy one, and at once after the heavy caller has closed its
connection (3 s after it began).
"""

import itertools
import statistics
import sys
import threading
import time

import httpx
from ray import serve
from ray.serve.config import HTTPOptions

from serve.app import absolute, builder
from valueflow.distributed.cluster import ClusterConfig, session

PORT, REMARKS = 8000, itertools.count()
URL, VALUE, LEAVES_AFTER = f"http://127.0.0.1:{PORT}", "svt:benevolence", 3.0
LENGTHS = {
    "1,000 texts of 1,200": [1_200] * 1_000,
    "800 texts of 10,000": [10_000] * 800,
    "1,000 texts of 40 or (every tenth) 2,000": [2_000, *[40] * 9] * 100,
}


def light(mode: str) -> float:
    """Seconds of a light request."""
    text = f"I carried her bags to the station, and that was {next(REMARKS)}."
    started = time.perf_counter()
    answer = httpx.post(f"{URL}/v1/score", json={"texts": [text], "values": [VALUE], "mode": mode}, timeout=200)
    answer.raise_for_status()
    return time.perf_counter() - started


def heavy(mode: str, lengths: list[int]) -> threading.Thread:
    """Send a heavy request, whose caller leaves after `LEAVES_AFTER`, in a thread."""
    remark = "They shared what they had, and nobody was left out. "
    texts = [f"Remark {next(REMARKS)}. {remark * (length // len(remark))}" for length in lengths]

    def send() -> None:
        with httpx.Client() as http:
            try:
                http.post(f"{URL}/v1/score", json={"texts": texts, "values": [VALUE], "mode": mode}, timeout=LEAVES_AFTER)
                print("the heavy request ended before its caller left")
            except httpx.ReadTimeout:
                pass

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def measure(mode: str, name: str) -> None:
    """Print the line of one mode and lengths."""
    light(mode)
    alone = statistics.median(light(mode) for _ in range(9))
    beside, after = [], []
    for _ in range(3):
        caller = heavy(mode, LENGTHS[name])
        time.sleep(1.0)
        beside.append(light(mode))
        caller.join()
        after.append(light(mode))
        time.sleep(1.0)
    ratios = [statistics.median(times) / alone for times in (beside, after)]
    print(
        f"{mode:7} light alone {alone:.2f} s; beside {name} characters {ratios[0]:.1f} times; caller gone "
        f"{ratios[1]:.1f} times",
        flush=True,
    )


def main() -> None:
    root, more = absolute(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:])
    with session(ClusterConfig(num_cpus=8)):
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=PORT))
        serve.run(builder({"root": root, **more}), name="default")
        for mode, name in itertools.product(("ranked", "fast"), LENGTHS):
            measure(mode, name)
        serve.shutdown()


if __name__ == "__main__":
    main()
