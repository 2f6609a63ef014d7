"""The engine of the service before a stand-in for vLLM: no more calls than its batch, shared by callers."""

import asyncio
import sys
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pytest

from valueflow.callers import CALLER, Caller, calling
from valueflow.distributed import vllm_engine
from valueflow.distributed.vllm_engine import OnlineEngine
from valueflow.llm.configs import VllmModel


class FakeLlm:
    """Stands in for `AsyncLLM`: two sequences at once; `begun` and `ended` have the caller of each call."""

    vllm_config = SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=1), parallel_config=SimpleNamespace(data_parallel_size=2)
    )

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.running = self.most = 0

    @classmethod
    def from_engine_args(cls, _: object) -> "FakeLlm":
        return cls()

    async def generate(self, prompt, params, request_id):
        self.begun.append(CALLER.get().name)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.002)
            yield SimpleNamespace(outputs=[SimpleNamespace(text="A > B > C", token_ids=[1], logprobs=None)])
            self.ended.append(CALLER.get().name)
        finally:
            self.running -= 1


@pytest.fixture
def engine(monkeypatch) -> OnlineEngine:
    names = {
        "vllm": {"SamplingParams": dict},
        "vllm.sampling_params": {"StructuredOutputsParams": dict},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": dict},
        "vllm.v1.engine.async_llm": {"AsyncLLM": FakeLlm},
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vllm_engine, "locate", lambda model: model)
    monkeypatch.setattr(vllm_engine, "prompt_tokens", lambda question, config: [0])
    return OnlineEngine(VllmModel(name="llm", model="m"))


def ask(engine: OnlineEngine, name: str, count: int) -> asyncio.Task[pa.Table]:
    windows = {
        "window_id": [f"{name}{i}" for i in range(count)], "theory": ["svt"] * count, "value": ["power"] * count,
        "text_ids": [["a", "b", "c"]] * count, "round": pa.array([0] * count, pa.int32()),
        "texts": [[f"{name} {i}.", "I follow.", "I win."] for i in range(count)],
    }  # fmt: skip
    with calling(Caller(name, name)):
        return asyncio.create_task(engine(pa.table(windows)))


async def begin(engine: OnlineEngine) -> asyncio.Task[pa.Table]:
    heavy = ask(engine, "heavy", 200)
    while not engine.engine.ended:
        await asyncio.sleep(0)
    return heavy


def test_a_light_caller_waits_for_no_queue_of_a_heavy_one(engine):
    async def main() -> None:
        heavy = await begin(engine)
        before = len(engine.engine.ended)
        light = await ask(engine, "light", 3)
        assert light["order"].to_pylist() == [[0, 1, 2]] * 3
        assert engine.engine.ended[before:].count("heavy") <= 6
        assert (await heavy).num_rows == 200

    asyncio.run(main())
    assert engine.engine.most == 2


def test_a_caller_that_has_gone_leaves_the_calls_in_progress_and_these_are_cancelled_too(engine):
    async def main() -> None:
        heavy = await begin(engine)
        heavy.cancel()
        begun = engine.engine.begun.count("heavy")
        await asyncio.gather(heavy, return_exceptions=True)
        await ask(engine, "light", 3)
        assert engine.engine.begun.count("heavy") == begun
        assert engine.engine.running == 0

    asyncio.run(main())
