"""LLMs in vLLM engines, one per actor of Ray Data, and their replies from the call cache."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.actor_pools import Finish
from valueflow.distributed.cluster import stage_tasks
from valueflow.distributed.error_limit import ErrorLimit
from valueflow.distributed.preemption import Notice
from valueflow.distributed.vllm_engine import OnlineEngine
from valueflow.distributed.worker_deaths import Attempts, Gate, attempts
from valueflow.judging.logprobs import llm_answers
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import Question, Task, with_replies
from valueflow.llm.vllm import prompt_tokens, vllm_key

# Number of cached replies read at once: object stores answer slowly but in parallel.
CACHE_THREADS = 16
# Batches that an engine works on: it has questions while the last answers of one arrive. The same number waits, or Ray Data
# would add no engine: it does while there are twice as many batches in flight as the engines work on.
BATCHES = 4
LEAVE_SECONDS = 0.5  # between two looks of a batch that waits for the others, so that its worker can leave


def answer_by_engines(
    config: VllmModel, task: Task, cache: str, _: tuple[int, int], limit: ErrorLimit, finish: Finish
) -> Callable[[Dataset], Dataset]:
    """Return the function that answers datasets by vLLM engines, cache first."""
    return lambda questions: questions.map_batches(
        EngineActor,
        fn_constructor_args=(config, task, cache, attempts(config.name)),
        fn_kwargs={"limit": limit, "finish": finish},
        batch_format="pyarrow",
        batch_size=config.batch_size,
        compute=ray.data.ActorPoolStrategy(
            min_size=config.num_engines, max_size=config.most_engines, max_tasks_in_flight_per_actor=2 * BATCHES,
            max_concurrent_calls_per_actor=BATCHES,
        ),
        num_cpus=config.cpus_per_engine,
        num_gpus=config.gpus_per_engine,
    )  # fmt: skip


class EngineActor:
    """Actor with an engine that answers batches, cache first: one of a dataset, or one that outlives it.

    Its process ends with its engine, so that Ray starts both anew. A batch that was in work then is put alone, so that only
    the question that ends engines is blamed for it.
    """

    def __init__(self, config: VllmModel, task: Task, cache: str, attempts: Attempts) -> None:
        self.config, self.task, self.attempts = config, task, attempts
        self.calls = CallCache(cache) if cache else None
        self.engine = OnlineEngine(config)
        self.answers = llm_answers(config, task, self._ask)
        self.gate, self.notice, self.num_in_work = Gate(BATCHES), Notice(), 0

    async def __call__(self, batch: pa.Table, limit: ErrorLimit, finish: Finish) -> AsyncIterator[pa.Table]:
        """Yield the finished batch; nothing once the limit is exceeded."""
        answers = await self.answer(batch, limit, finish)
        if answers is not None:
            yield answers

    async def answer(self, batch: pa.Table, limit: ErrorLimit, finish: Finish) -> pa.Table | None:
        """Return the finished batch, whose questions are put at once; None once the limit is exceeded."""
        if await limit.exceeded_async():
            return None
        while self.notice.is_short():
            if not self.num_in_work:
                self.notice.leave()
            await asyncio.sleep(LEAVE_SECONDS)
        started = time.monotonic()
        self.num_in_work += 1
        try:
            answers = await self.attempts.answer_async(batch, self.task.id_column, self.answers, self._failed, self.gate)
            await limit.exceeded_async(answers)
            return await asyncio.to_thread(finish, answers)
        finally:
            self.num_in_work -= 1
            self.notice.took(time.monotonic() - started)

    async def _ask(self, question: Question, round_: int) -> Reply:
        key = vllm_key(question, self.config, round_)
        if self.calls and (cached := await asyncio.to_thread(self.calls.get, key)):
            return cached
        try:
            reply = await self.engine.ask(question)
        except Exception:
            if self.engine.is_dead:
                os._exit(1)
            raise
        if self.calls:
            await asyncio.to_thread(self.calls.put, key, reply)
        return reply

    def _failed(self, questions: pa.Table, reason: str) -> pa.Table:
        # With the tokens that the engine has read: what was paid for is not asked again.
        prompts = [prompt_tokens(self.task.question(row, self.config), self.config) for row in questions.to_pylist()]
        replies = [Reply("", reason, len(tokens), 0) for tokens in prompts]
        return self.task.read(with_replies(questions, replies), self.config)


def answer_from_cache(
    config: VllmModel, task: Task, cache: str, limit: ErrorLimit, finish: Finish
) -> Callable[[Dataset], Dataset] | None:
    """Return the function that answers the questions whose replies are cached, and drops the others; None without a cache."""
    if not store.exists(cache):
        return None
    return lambda questions: questions.map_batches(
        _read_cache,
        fn_kwargs={"config": config, "task": task, "cache": cache, "limit": limit, "finish": finish},
        batch_format="pyarrow",
        batch_size=config.batch_size,
        **stage_tasks(),
    )


def _read_cache(
    batch: pa.Table, config: VllmModel, task: Task, cache: str, limit: ErrorLimit, finish: Finish
) -> Iterator[pa.Table]:
    calls = CallCache(cache)

    async def cached(question: Question, round_: int) -> Reply | None:
        return await asyncio.to_thread(calls.get, vllm_key(question, config, round_))

    async def answer() -> pa.Table:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CACHE_THREADS))
        return await llm_answers(config, task, cached)(batch)

    answers = asyncio.run(answer())
    if answers.num_rows:
        limit.add(answers)
        yield finish(answers)
