"""What a rerun of an unfinished build costs before it asks anything: with the journal of its parts, and without.

    python -m benchmarks.resume [PARTS [ROOT]]
    python -m benchmarks.resume PARTS s3

ROOT may be a URL (`s3://bucket/folder`); by default a temporary folder. Prints seconds, seconds per 100,000 parts, and how much
memory the driver's process gained. With `s3` the build is on moto's server on this machine, and a proxy counts requests:
the parts are copies of one, made in the server, for a rerun lists them and reads the journal alone, which is a real one.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from tests.moto_bucket import free_port
from tests.s3_proxy import Proxy
from valueflow import store
from valueflow.records import SCHEMAS, digest

BATCH = 64
VALUES = ("power", "security", "benevolence", "hedonism")


BUCKET = "resume"


def main() -> None:
    """Measure what the command line names."""
    numbers = sys.argv[1:]
    if numbers[:1] == ["serve"]:
        serve(int(numbers[1]), int(numbers[2]))
    elif numbers[1:] == ["s3"]:
        resume_on_s3(int(numbers[0]))
    else:
        resume(int(numbers[0]) if numbers else 4000)


def resume(num_parts: int) -> None:
    """Write an unfinished build, load its journal, remove the journal, and load it again from the parts."""
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


def resume_on_s3(num_parts: int) -> None:
    """Write the journal of parts that the server made, and load it."""
    port = free_port()
    credentials = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.resume", "serve", str(port), str(num_parts)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}")
        with Proxy(f"http://127.0.0.1:{port}") as proxy:
            os.environ.update(credentials | {"AWS_ENDPOINT_URL": proxy.url})
            build = store.Build(f"s3://{BUCKET}", "rankings", "resume-benchmark")
            one, journal = _one_part(), store.Journal(build, "window_id")
            row, rng = one[0].to_pylist()[0], np.random.default_rng(0)
            started = time.perf_counter()
            for n in range(num_parts):
                ids = rng.bytes(8 * BATCH).hex().encode()
                journal.add(pa.Table.from_pylist([row | {"path": _path(n), "ids": ids}], store.RECORDS))
            journal.save()
            _print("recorded", num_parts, time.perf_counter() - started, 0)
            written, before, started, busy = len(proxy.calls), _memory(), time.perf_counter(), time.process_time()
            again = store.Journal(build, "window_id")
            ids = again.load()
            _print("resumed with its journal", num_parts, time.perf_counter() - started, _memory() - before)
            print(f"of these seconds this process, the proxy included, computed for {time.process_time() - busy:.1f}")
            assert sum(map(len, ids.values())) == again.totals.rows == num_parts * BATCH
            read = len(proxy.calls) - written
            total = 1 + (written + read) / num_parts
            print(f"requests: {written:,} to record, {read:,} to resume; with the part's own file {total:.2f} a part")
    finally:
        server.terminate()
        server.wait()


def serve(port: int, num_parts: int) -> None:
    """Run moto's server with the parts of an unfinished build."""
    from moto.s3.models import s3_backends
    from moto.server import main as moto_server

    content = _one_part()[1]
    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    for n in range(num_parts):
        backend.put_object(BUCKET, f"rankings/resume-benchmark/{_path(n)}", content)
    moto_server(["-H", "127.0.0.1", "-p", str(port)])


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"nobody answers at {url}")


def _path(number: int) -> str:
    return f"{store.value_folder(f'svt:{VALUES[number % len(VALUES)]}')}/part-{number:06d}.parquet"


def _one_part() -> tuple[pa.Table, bytes]:
    """A part's record and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        build = store.Build(folder, "rankings", "one")
        record = _write(build, 0)
        return record, store.read_bytes(f"{build.url}/{record['path'][0].as_py()}")


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
    table = pa.table({field.name: pa.array(rows.get(field.name, [None] * BATCH), field.type) for field in SCHEMAS["rankings"]})
    return store.write_recorded(build, table, f"{number:06d}", store.value_folder(f"svt:{value}"), "window_id")


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _print(what: str, parts: int, seconds: float, memory: float) -> None:
    print(f"{parts:,} parts {what}: {seconds:.1f} s, {seconds / parts * 100_000:.0f} s per 100,000 parts, +{memory:.0f} MB")


if __name__ == "__main__":
    main()
