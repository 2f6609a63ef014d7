"""A judge behind an endpoint that several callers share, against a real HTTP server with a limit."""

import asyncio

import pyarrow as pa
import pytest
from fault_server import KEY, Handle, start

from valueflow.callers import Caller, calling
from valueflow.judging.llm_judge import EndpointJudge
from valueflow.llm.configs import EndpointModel


@pytest.fixture(scope="module")
def server():
    with start() as handle:
        yield handle


def windows(name: str, count: int) -> pa.Table:
    return pa.table(
        {
            "window_id": [f"{name}{i}" for i in range(count)], "theory": ["svt"] * count, "value": ["power"] * count,
            "text_ids": [["a", "b", "c"]] * count, "round": pa.array([0] * count, pa.int32()),
            "texts": [[f"{name} leads {i}.", "I follow.", "I win."] for i in range(count)],
        }
    )  # fmt: skip


def calls(server: Handle, name: str) -> int:
    """Calls about the texts of a caller that the server has seen."""
    return sum(count for prompt, count in server.seen()["seen"].items() if f"{name} leads" in prompt)


@pytest.fixture
def judge(server, monkeypatch, tmp_path) -> EndpointJudge:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server.reset(service=(0.05, 0.05))
    settings = {"url": server.url, "model": "m", "key_env": "JUDGE_KEY", "structured": "choice", "concurrency": 2}
    return EndpointJudge(EndpointModel(name="judge", **settings), str(tmp_path))


def ask(judge: EndpointJudge, name: str, count: int) -> asyncio.Task[pa.Table]:
    with calling(Caller(name, name)):
        return asyncio.create_task(judge(windows(name, count)))


def test_a_light_caller_is_answered_beside_a_heavy_one_and_a_caller_that_has_gone_leaves_the_calls_in_flight(judge, server):
    async def main() -> None:
        heavy = ask(judge, "heavy", 200)
        while calls(server, "heavy") < 4:
            await asyncio.sleep(0.05)
        before = calls(server, "heavy")
        light = await ask(judge, "light", 3)
        during = calls(server, "heavy")
        assert light["order"].null_count == 0
        assert during - before <= 10  # about one beside each of its own; the rest of 200 is the queue
        heavy.cancel()
        await asyncio.gather(heavy, return_exceptions=True)
        await asyncio.sleep(0.3)
        assert calls(server, "heavy") - during <= 2
        assert (await ask(judge, "later", 3))["order"].null_count == 0
        await judge.endpoint.close()

    asyncio.run(main())
