"""A real LLM in one vLLM engine behind the service: over HTTP and Ray Serve, cancellation, free text, readiness."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import httpx
import pyarrow as pa
import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve import app
from serve.app import builder
from valueflow import vidb
from valueflow.cli.backend import read_judge
from valueflow.client import Client
from valueflow.llm import Question
from valueflow.store import current, publish

pytestmark = [pytest.mark.llm, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
SMOLLM2 = read_judge("conf/build_vidb/tiny-llm.yaml")
pytest.importorskip("vllm", reason="vLLM is not installed; make llm")


class Engine(NamedTuple):
    """The served engine: its URL, and the handle of its replica."""

    url: str
    judge: DeploymentHandle


@pytest.fixture(scope="module")
def engine(cluster, tmp_path_factory) -> Iterator[Engine]:
    folder = str(tmp_path_factory.mktemp("root"))
    rows = [{"theory": "svt", "value": "power", "text": f"I took charge {i} times.", "intensity": i / 2 - 5} for i in range(20)]
    with open(f"{folder}/anchors.jsonl", "w") as file:
        file.write("\n".join(map(json.dumps, rows)))
    build, _ = vidb.import_version([f"{folder}/anchors.jsonl"], "MIT", "made for this test", folder)
    publish(folder, build.build_id, current(folder))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    class Observed(app.JudgeReplica):  # defined here, so that replicas need not import the tests
        def unfinished(self) -> int:
            """Questions that the engine has not answered."""
            return self.ask_judge.engine.output_processor.get_num_unfinished_requests()

        async def ask(self, question: Question):
            return await self.ask_judge.ask(question)

    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app, "JudgeReplica", Observed)
            serve.run(builder({"root": folder, "fast": False, "judge": SMOLLM2.model_dump()}))
        yield Engine(f"http://127.0.0.1:{port}", serve.get_deployment_handle("judge", "default"))
    finally:
        serve.shutdown()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_texts_are_scored_by_the_engine_over_http(engine):
    with Client(engine.url) as client:
        result = client.score(["I lead.", "I follow.", "I lead."], "svt:power", k=3, m=2)
        again = client.score(["I lead."], "svt:power", k=3, m=2)
    assert result.judge == "smollm2-135m"
    assert [score.num_windows for score in result.scores] == [2, 2, 2]
    assert all(score.low < score.intensity < score.high and score.num_failed == 0 for score in result.scores)
    # The same text and seed, the same windows; greedy answers, but batched otherwise, may differ in a rounding.
    assert result.scores[0].model_dump(exclude={"index"}) == result.scores[2].model_dump(exclude={"index"})
    assert again.scores[0].num_windows == 2
    assert httpx.get(f"{engine.url}/readyz").status_code == 200


def test_a_cancelled_call_leaves_the_engine_which_also_writes_free_text(engine):
    windows = pa.table(
        {
            "window_id": [f"w{i}" for i in range(64)], "theory": ["svt"] * 64, "value": ["power"] * 64, "round": [0] * 64,
            "text_ids": [["a", "b", "c"]] * 64, "texts": [[f"I lead {i}.", "I follow.", "I win."] for i in range(64)],
        }
    )  # fmt: skip

    def unfinished() -> int:
        return engine.judge.unfinished.remote().result()

    call = engine.judge.rank.remote(app._serialized(windows))
    wait_for(lambda: unfinished() > 2, 60)  # they are handed over one by one
    call.cancel()
    wait_for(lambda: unfinished() == 0, 10)
    answered = app._deserialized(engine.judge.rank.remote(app._serialized(windows.slice(0, 2))).result())
    assert [sorted(order) for order in answered["order"].to_pylist()] == [[0, 1, 2]] * 2
    question = Question([{"role": "user", "content": "Tell me about the sea."}], None, 12)
    story = engine.judge.ask.remote(question).result()
    assert (story.error, story.tokens_out, story.first_probability) == ("", 12, None)
    assert len(story.text.split()) > 3
