"""The application under Ray Serve over HTTP: equal scores, live swap, killed replicas, mode fast, extraction."""

import asyncio
import contextlib
import csv
import json
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import fault_server
import httpx
import numpy as np
import psutil
import pytest
from configs import job_config
from ray import serve

from jobs import embed, ingest
from serve.app import ServeConfig, builder
from valueflow import api, store, vidb
from valueflow.client import Client
from valueflow.errors import InputError
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.simulated import true_theta
from valueflow.records import ValueId, text_id
from valueflow.service.local import local_service
from valueflow.store import current, publish

pytestmark = pytest.mark.ray
VALUES = ["svt:power", "mft:care-harm"]
JUDGE = {"judge.kind": "simulated", "judge.name": "sim", "judge.spread": "3.0"}


def version(root: str, num: int) -> str:
    """A version whose intensities are the simulated judge's truth."""
    rows = [
        {
            "theory": theory,
            "value": node,
            "text": text,
            "intensity": float(np.clip(true_theta(node, text_id(text), 3.0), -10, 10)),
        }
        for theory, node in ((ValueId(value).theory, ValueId(value).node) for value in VALUES)
        for text in (f"I did thing number {i} for them." for i in range(num))
    ]
    with open(f"{root}/anchors-{num}.jsonl", "w") as file:
        file.write("\n".join(map(json.dumps, rows)))
    build, _ = vidb.import_version([f"{root}/anchors-{num}.jsonl"], "MIT", "simulated", root)
    return build.build_id


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("root"))
    publish(folder, version(folder, 150), current(folder))
    return folder


@pytest.fixture(scope="module")
def url(cluster) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def served(url, root) -> str:
    serve.run(builder({"root": root, "fast": False, **JUDGE}))
    return url


@contextmanager
def under_load(url: str):
    """Four clients that send requests without pause, none of which may fail; yields the versions of the responses."""
    stop, versions = [], []

    def caller(number: int) -> None:
        with Client(url) as client:
            for turn in range(10**9):
                if stop:
                    return
                scores = client.score([f"text {number} {turn}"], VALUES)
                assert all(s.intensity is not None for s in scores.scores)
                versions.append(scores.vidb_version)

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(caller, number) for number in range(4)]
        try:
            yield versions
        finally:
            stop.append(True)
        for one in callers:
            one.result()


def wait_for(what, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def replica(kind: str) -> psutil.Process:
    """The process of a replica of this Ray; other tests of the machine may serve too."""
    name = f"ServeReplica:default:{kind}"
    mine = {process.pid for process in psutil.Process().children(recursive=True)}
    return next(p for p in psutil.process_iter(["cmdline"]) if p.pid in mine and name in " ".join(p.info["cmdline"] or []))


def test_a_served_score_is_that_of_the_service_in_process(served, root):
    request = api.ScoreRequest(texts=["one text", "another text"], values=VALUES, seed=4)
    in_process = asyncio.run(local_service(root, judge=SimulatedJudge(name="sim", spread=3.0)).score(request, "r"))
    with Client(served) as client:
        served_scores = client.score(request.texts, VALUES, seed=4)
    assert served_scores.scores == in_process.scores
    assert (served_scores.judge, served_scores.vidb_version) == (in_process.judge, in_process.vidb_version)


def test_the_page_and_the_description_are_served(served):
    page = httpx.get(served)
    assert page.headers["content-type"].startswith("text/html")
    assert "__NONCE__" not in page.text
    assert "/v1/score" in httpx.get(f"{served}/openapi.json").json()["paths"]
    assert httpx.get(f"{served}/readyz").text == "ready\n"


def test_a_version_is_swapped_under_load_without_a_failed_request(served, root):
    before, after = vidb.load(root).build.build_id, version(root, 160)
    with under_load(served) as versions:
        wait_for(lambda: len(versions) > 20)
        serve.run(builder({"root": root, "vidb": after, "fast": False, **JUDGE}))
        mark = len(versions)
        wait_for(lambda: len(versions) > mark + 40)
    assert set(versions) == {before, after}
    assert set(versions[-10:]) == {after}
    with Client(served) as client:
        assert client.vidb().values == dict.fromkeys(VALUES, 160)


def test_a_new_version_that_is_damaged_leaves_the_old_one_in_use(served, root):
    before, damaged = vidb.load(root).build.build_id, version(root, 170)
    serve.run(builder({"root": root, "vidb": before, "fast": False, **JUDGE}))
    (part,) = Path(root, "vidb", damaged, "theory=svt", "value=power").glob("*.parquet")
    part.write_bytes(bytes(part.stat().st_size))  # of the size in its manifest
    with under_load(served) as versions:
        with pytest.raises(InputError, match="differs from its manifest"):
            serve.run(builder({"root": root, "vidb": damaged, "fast": False, **JUDGE}))
        mark = len(versions)
        wait_for(lambda: len(versions) > mark + 40)
    assert set(versions) == {before}
    assert httpx.get(f"{served}/readyz").status_code == 200


@pytest.fixture
def deleted(url, tmp_path) -> str:
    """The root of a version that is served and whose files have been deleted."""
    own = str(tmp_path)
    publish(own, version(own, 20), current(own))
    serve.run(builder({"root": own, "fast": False, **JUDGE}))
    wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200)
    shutil.rmtree(f"{own}/vidb")
    return own


def test_a_version_that_is_deleted_stays_in_use(url, deleted):
    with Client(url) as client:
        assert client.score(["one text"], VALUES).scores[0].intensity is not None
        assert client.anchors(VALUES[0]).total == 20
    assert httpx.get(f"{url}/v1/values/svt:powr").status_code == 404
    assert httpx.get(f"{url}/readyz").status_code == 200


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_probes_tell_when_no_version_can_be_loaded(url, deleted):
    os.kill(replica("evaluator").pid, signal.SIGKILL)
    # Ray's proxy holds requests while it has no replica, so one may get no answer at all.
    answers: list[httpx.Response] = []

    def refuses() -> bool:
        with contextlib.suppress(httpx.TimeoutException):
            probe = httpx.get(f"{url}/readyz", timeout=10)
            answers[:] = [probe, httpx.post(f"{url}/v1/score", json={"texts": ["a"], "values": VALUES}, timeout=10)]
        return [answer.status_code for answer in answers] == [503, 503]

    wait_for(refuses, 300)  # a replica is started several times before it is given up
    assert not any(deleted in answer.text for answer in answers)


def test_probes_tell_that_the_server_starts_and_that_its_judge_is_gone(url, root):
    with fault_server.start() as endpoint:
        endpoint.reset(key="")
        judge = {"kind": "openai", "name": "far", "url": endpoint.url, "model": "m", "key_env": ""}
        encoder = {"encoder.num_cpus": "0.1"}  # takes seconds to load
        statuses = []
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(serve.run, builder({"root": root, "judge": judge, **encoder}), name="default")
            while not starting.done() or statuses[-1] != 200:  # the application before may have answered 200 at first
                try:
                    statuses.append(httpx.get(f"{url}/readyz", timeout=2).status_code)
                except httpx.HTTPError as error:
                    statuses.append(str(error))
                time.sleep(0.2)
        assert httpx.head(f"{url}/readyz").status_code == 200
    wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 503, 20)
    assert httpx.head(f"{url}/readyz").status_code == 503
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert 503 in statuses


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["judge", "evaluator"])
def test_a_killed_replica_fails_no_request_of_the_client(served, kind):
    with under_load(served) as versions:
        wait_for(lambda: len(versions) > 20)
        os.kill(replica(kind).pid, signal.SIGKILL)
        mark = len(versions)
        wait_for(lambda: len(versions) > mark + 40)


def test_calls_to_the_judge_are_cancelled_when_the_client_disconnects(url, root):
    with fault_server.start() as endpoint:
        endpoint.reset(service=[600.0, 600.0], key="")
        judge = {"kind": "openai", "name": "slow", "url": endpoint.url, "model": "m", "key_env": "", "timeout": 900.0}
        serve.run(builder({"root": root, "fast": False, "judge": judge}))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/score", json={"texts": ["We help."], "values": VALUES[:1]}, timeout=10.0)
        assert endpoint.seen()["most"] > 0
        wait_for(lambda: endpoint.seen()["in_flight"] == 0, 30.0)
        assert not endpoint.seen()["paid"]


@pytest.fixture(scope="module")
def encoding(url, tmp_path_factory) -> str:
    """The root of an application with an encoder: mode fast, and extraction by a few labelled texts of the sample corpus."""
    root = tmp_path_factory.mktemp("encoding")
    publish(str(root), version(str(root), 150), current(str(root)))
    with open("valueflow/samples/corpus.csv", newline="", encoding="utf-8") as read, (root / "corpus.csv").open("w") as write:
        rows = csv.DictReader(read)
        writer = csv.DictWriter(write, rows.fieldnames)
        writer.writeheader()
        writer.writerows([row for row in rows if row["theory"] in ("svt", "duty")][::4])
    columns = {name: name for name in ("text", "theory", "value", "direction")}
    corpus = {"format": "generic", "path": f"{root}/corpus.csv", "license": "MIT", "columns": columns}
    ingest.main(job_config(ingest, root, corpora=[corpus]))
    embed.main(job_config(embed, root, "npz=false"))
    serve.run(builder({"root": str(root), "extraction": {}, **JUDGE}))
    return str(root)


@pytest.mark.slow
def test_fast_scores_come_with_their_agreement(encoding, url):
    with Client(url) as client:
        assert client.vidb().modes == ["ranked", "fast"]
        result = client.score(["I did thing number 7 for them."], VALUES, mode="fast")
    assert [a.value for a in result.agreement] == VALUES
    assert all(s.low <= s.intensity <= s.high and s.num_windows == 0 for s in result.scores)


def test_extraction_finds_the_nodes_of_labelled_texts(encoding, url):
    (texts,) = store.finished(encoding, "texts")
    labels = store.read_table(store.Build(encoding, "source_labels", texts)).to_pylist()
    rows = store.read_table(store.Build(encoding, "texts", texts), ["text_id", "text"]).to_pylist()
    label = next(row for row in labels if row["theory"] == "svt" and row["direction"] == 1)
    text = next(row["text"] for row in rows if row["text_id"] == label["text_id"])
    with Client(url) as client:
        assert client.vidb().extract
        result = client.extract([text, "I paid back what I owed her."], ["svt", "duty"], top=2)
    svt = [node for node in result.texts[0].nodes if node.theory == "svt"]
    assert min(node.distance for node in svt) < 1e-3  # a labelled text is its own neighbor
    assert svt[0].path[-1] == label["node"]
    assert {node.theory for node in result.texts[1].nodes} == {"svt", "duty"}
    assert all(0 <= node.confidence <= 1 for node in result.texts[1].nodes)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"rot": "x"}, "rot: unknown key; did you mean 'root'"),
        ({"root": "/nowhere/at/all"}, "nothing is published under /nowhere/at/all"),
        ({"root": "R", "vidb": "v-none"}, "v-none"),
        ({"root": "R", "http.max_in_flight": "0"}, "http.max_in_flight"),
        ({"root": "R", "extraction": {}}, "jobs.ingest|no ingested texts"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_starts(root, args, message):
    with pytest.raises(InputError, match=message):
        builder({key: root if value == "R" else value for key, value in args.items()})


def test_settings_may_be_nested_or_dotted():
    nested = ServeConfig.model_validate({"root": "r", "http": {"max_texts": 5}})
    assert nested.http.max_texts == 5
