"""The engine of the service before a stand-in for vLLM: no more calls than its batch, shared by callers."""

import asyncio
import sys
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pytest

from valueflow.callers import CALLER, Caller, calling
from valueflow.distributed import vllm_engine
from valueflow.distributed.vllm_engine import OnlineEngine
from valueflow.llm.cache import Reply
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import Question


class FakeLlm:
    """Stands in for `AsyncLLM`: two sequences at once; `begun` and `ended` have the caller of each call."""

    vllm_config = SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=1), parallel_config=SimpleNamespace(data_parallel_size=2)
    )

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.running = self.most = 0
        self.params: list[dict] = []

    @classmethod
    def from_engine_args(cls, _: object) -> "FakeLlm":
        return cls()

    async def generate(self, prompt, params, request_id):
        self.begun.append(CALLER.get().name)
        self.params.append(params)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.002)
            kind = "length" if params["max_tokens"] < 5 else "stop" if params["max_tokens"] < 50 else "repetition"
            yield SimpleNamespace(outputs=[SimpleNamespace(text="A > B > C", token_ids=[1], logprobs=None, finish_reason=kind)])
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


def test_a_free_text_has_its_end_and_the_hash_of_its_prompt_and_parameters_stay_what_they_are(engine):
    """Whole numbers stay whole, whatever questions are beside this one: vLLM's engine does not take others."""
    chat = [{"role": "user", "content": "Why?"}]
    asked = [Question(chat, None, n, sampling={"temperature": 0.7, "seed": 3}) for n in (4, 40, 400)]

    async def main() -> list[Reply]:
        with calling(Caller("a", "a")):
            return await asyncio.gather(*map(engine.ask, [*asked, Question(chat, {"choice": ["A", "B"]}, 8, True, 20)]))

    *free, letter = asyncio.run(main())
    assert [reply.finish_reason for reply in free] == ["length", "stop", "other"]
    assert len({reply.prompt_hash for reply in free}) == 3
    assert (letter.finish_reason, letter.prompt_hash) == ("", "")
    given = {params["max_tokens"]: params for params in engine.engine.params}
    assert given[40] == {"temperature": 0.7, "seed": 3, "max_tokens": 40}
    assert type(given[40]["seed"]) is type(given[8]["logprobs"]) is int
