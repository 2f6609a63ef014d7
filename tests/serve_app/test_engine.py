"""A real LLM in a vLLM engine behind the service: over HTTP and Ray Serve, and cancellation."""

import asyncio
import json
import socket

import pyarrow as pa
import pytest
from ray import serve

from serve.app import builder
from valueflow import vidb
from valueflow.cli.commands import read_judge
from valueflow.client import Client
from valueflow.llm import Question, Reply
from valueflow.store import current, publish

pytestmark = [pytest.mark.llm, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
SMOLLM2 = read_judge("conf/build_vidb/tiny-llm.yaml")
pytest.importorskip("vllm", reason="vLLM is not installed; make llm")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("root"))
    rows = [{"theory": "svt", "value": "power", "text": f"I took charge {i} times.", "intensity": i / 2 - 5} for i in range(20)]
    with open(f"{folder}/anchors.jsonl", "w") as file:
        file.write("\n".join(map(json.dumps, rows)))
    build, _ = vidb.import_version([f"{folder}/anchors.jsonl"], "MIT", "made for this test", folder)
    publish(folder, build.build_id, current(folder))
    return folder


def test_texts_are_scored_by_the_engine_over_http(cluster, root):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(builder({"root": root, "fast": False, "judge": SMOLLM2.model_dump()}))
        with Client(f"http://127.0.0.1:{port}") as client:
            result = client.score(["I lead.", "I follow.", "I lead."], "svt:power", k=3, m=2)
            again = client.score(["I lead."], "svt:power", k=3, m=2)
    finally:
        serve.shutdown()
    assert result.judge == "smollm2-135m"
    assert [score.num_windows for score in result.scores] == [2, 2, 2]
    assert all(score.low < score.intensity < score.high and score.num_failed == 0 for score in result.scores)
    # The same text and seed, the same windows; greedy answers, but batched otherwise, may differ in a rounding.
    assert result.scores[0].model_dump(exclude={"index"}) == result.scores[2].model_dump(exclude={"index"})
    assert again.scores[0].num_windows == 2


def test_a_cancelled_call_leaves_the_engine_which_also_writes_free_text():
    from valueflow.distributed.vllm_engine import OnlineEngine

    async def ask_and_cancel() -> tuple[int, int, pa.Table, Reply]:
        engine = OnlineEngine(SMOLLM2)
        windows = pa.table(
            {
                "window_id": [f"w{i}" for i in range(64)], "theory": ["svt"] * 64, "value": ["power"] * 64, "round": [0] * 64,
                "text_ids": [["a", "b", "c"]] * 64, "texts": [[f"I lead {i}.", "I follow.", "I win."] for i in range(64)],
            }
        )  # fmt: skip
        processor = engine.engine.output_processor
        call = asyncio.ensure_future(engine(windows))
        while processor.get_num_unfinished_requests() < 3 and not call.done():  # they are handed over one by one
            await asyncio.sleep(0.01)
        most = processor.get_num_unfinished_requests()
        call.cancel()
        for _ in range(100):
            await asyncio.sleep(0.1)
            if not processor.get_num_unfinished_requests():
                break
        remaining = processor.get_num_unfinished_requests()
        answered = await engine(windows.slice(0, 2))
        story = await engine.ask(Question([{"role": "user", "content": "Tell me about the sea."}], None, 12))
        engine.engine.shutdown()
        return most, remaining, answered, story

    most, remaining, answered, story = asyncio.run(ask_and_cancel())
    assert most > 2
    assert remaining == 0
    assert [sorted(order) for order in answered["order"].to_pylist()] == [[0, 1, 2]] * 2
    assert (story.error, story.tokens_out, story.first_probability) == ("", 12, None)
    assert len(story.text.split()) > 3
