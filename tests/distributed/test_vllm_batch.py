"""Actors with a vLLM engine, before stand-ins for the engine: questions that end it, and a node that will be taken away."""

import asyncio
import os
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from valueflow.distributed import preemption, vllm_batch
from valueflow.distributed.actor_pools import unchanged
from valueflow.distributed.error_limit import NO_LIMIT
from valueflow.distributed.preemption import Notice
from valueflow.distributed.warm_pools import ActorPool
from valueflow.distributed.worker_deaths import Gate
from valueflow.judging.logprobs import llm_answers
from valueflow.judging.tasks import RANK
from valueflow.llm.cache import Reply
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import Question

pytestmark = pytest.mark.ray
MODEL = VllmModel(name="llm", model="m", gpus_per_engine=0, cpus_per_engine=0.5, batch_size=8)


def actor_class(log: Path) -> type:
    """An `EngineActor` whose engine dies of a text that says so; it logs the begin and end of each call. Sent by value."""

    class Engine:
        is_dead = False

        async def ask(self, question: Question) -> Reply:
            text = question.messages[-1]["content"]
            number = text.partition("window ")[2].partition(" ")[0]
            with log.open("a") as file:
                file.write(f"{os.getpid()} {number}\n")
            if "deadly" in text:
                Engine.is_dead = True
            await asyncio.sleep(0.05)
            if Engine.is_dead:
                raise RuntimeError("EngineCore encountered an issue")
            return Reply("A > B", "", 9, 1)

    class Actor(vllm_batch.EngineActor):
        def __init__(self, config, task, cache, attempts) -> None:
            self.config, self.task, self.attempts = config, task, attempts
            self.calls, self.engine = None, Engine()
            self.answers = llm_answers(config, task, self._ask)
            self.gate, self.notice, self.num_in_work = Gate(vllm_batch.BATCHES), Notice(), 0

        def _failed(self, questions: pa.Table, reason: str) -> pa.Table:
            replies = [Reply("", reason, 9, 0)] * questions.num_rows
            return self.task.read(vllm_batch.with_replies(questions, replies), self.config)

    return Actor


def windows(count: int, deadly: set[int] = frozenset()) -> pa.Table:
    texts = [[f"window {n} {'deadly' if n in deadly else 'harmless'}", "I follow."] for n in range(count)]
    return pa.table(
        {
            "window_id": [f"{n:016d}" for n in range(count)], "theory": ["svt"] * count, "value": ["power"] * count,
            "text_ids": [["a", "b"]] * count, "round": pa.array([0] * count, pa.int32()), "texts": texts,
            "folder": [""] * count,
        }
    )  # fmt: skip


@pytest.mark.parametrize("warm", [False, True])
def test_the_question_that_ends_engines_is_a_failed_one_and_the_others_are_answered(cluster, tmp_path, monkeypatch, warm):
    log, deadly = tmp_path / "calls", {21, 60}
    monkeypatch.setattr(vllm_batch, "EngineActor", actor_class(log))
    monkeypatch.setattr("valueflow.distributed.warm_pools.EngineActor", vllm_batch.EngineActor)
    questions = ray.data.from_arrow(windows(80, deadly)).repartition(target_num_rows_per_block=8)
    pool = ActorPool(MODEL, RANK)
    if warm:
        answered = pool.answerer("", NO_LIMIT, unchanged)(questions)
    else:
        answered = vllm_batch.answer_by_engines(MODEL, RANK, "", (0, 0), NO_LIMIT, unchanged)(questions)
    rows = [row for batch in answered.iter_batches(batch_format="pyarrow") for row in batch.to_pylist()]
    for actor in pool.started:
        ray.kill(actor)
    assert sorted(row["window_id"] for row in rows) == windows(80)["window_id"].to_pylist()
    assert {int(row["window_id"]) for row in rows if row["error"]} == deadly
    assert {row["error"] for row in rows if row["error"]} == {"its worker died 2 times"}
    calls = Counter(int(line.split()[1]) for line in log.read_text().splitlines())
    # Twice in a batch, twice in a piece of it, twice alone; a batch beside it is begun once more.
    assert all(calls[n] <= 6 for n in deadly)
    assert max(calls[n] for n in range(80) if n // 8 not in {n // 8 for n in deadly}) <= 3


def test_a_gate_lets_several_in_or_one_alone():
    async def main() -> list[int]:
        gate, inside, seen = Gate(3), 0, []

        async def work(alone: bool) -> None:
            nonlocal inside
            async with gate.enter(alone):
                inside += 1
                await asyncio.sleep(0.01)
                seen.append(100 + inside if alone else inside)
                inside -= 1

        await asyncio.gather(*(work(n in (4, 9)) for n in range(14)))
        return seen

    seen = asyncio.run(main())
    assert seen.count(101) == 2
    assert max(n for n in seen if n < 100) == 3


@pytest.fixture
def notice(cluster, monkeypatch) -> Notice:
    left = {"seconds": float("inf")}
    monkeypatch.setattr(preemption, "seconds_left", lambda _: left["seconds"])
    monkeypatch.setattr(preemption, "LOOK_SECONDS", 0.0)
    notice = Notice()
    notice.left = left
    return notice


def test_a_worker_leaves_a_node_that_goes_before_another_batch_ends(notice):
    notice.took(4.0)
    assert not notice.is_short()
    notice.left["seconds"] = 60.0
    assert not notice.is_short()
    time.sleep(0.01)
    notice.left["seconds"] = 5.0
    assert notice.is_short()
