"""LLMs behind an OpenAI-compatible endpoint, called from one actor per job."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow.distributed.actor_pools import Finish
from valueflow.distributed.error_limit import ErrorLimit
from valueflow.judging.logprobs import LogprobJudge, reads_logprobs
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.configs import EndpointModel
from valueflow.llm.endpoint import Endpoint
from valueflow.llm.question import Task, with_replies


def answer_by_endpoint(
    config: EndpointModel, task: Task, cache: str, spent: tuple[int, int], limit: ErrorLimit, finish: Finish
) -> Callable[[Dataset], Dataset]:
    """Return the function that answers datasets by an endpoint, cache first."""

    def answer(questions: Dataset) -> Dataset:
        # One actor keeps thousands of calls in flight. It holds enough batches at once to fill the server's concurrency while
        # the slowest calls of other batches are still in flight.
        batches = math.ceil(2 * config.concurrency / config.batch_size) + 1
        return questions.map_batches(
            EndpointActor,
            fn_constructor_kwargs={
                "config": config,
                "task": task,
                "cache": cache,
                "spent": spent,
                "limit": limit,
                "finish": finish,
            },
            batch_format="pyarrow",
            batch_size=config.batch_size,
            compute=ray.data.ActorPoolStrategy(
                size=1, max_tasks_in_flight_per_actor=batches, max_concurrent_calls_per_actor=batches
            ),
            num_cpus=config.num_cpus,
        )

    return answer


class EndpointActor:
    """Actor that calls the endpoint (one per job); rows beyond the budget and batches beyond the error limit are dropped."""

    def __init__(
        self, config: EndpointModel, task: Task, cache: str, spent: tuple[int, int], limit: ErrorLimit, finish: Finish
    ) -> None:
        self.config, self.task, self.limit, self.finish = config, task, limit, finish
        self.exceeded = False
        self.endpoint = Endpoint(config, CallCache(cache) if cache else None, BudgetLedger(*spent))
        self.by_logprobs = LogprobJudge(config, self.endpoint.ask) if reads_logprobs(config, task) else None

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """Yield the answers to a batch, whose questions are put at once."""
        if self.exceeded:
            return
        answers = await (self.by_logprobs(batch) if self.by_logprobs else self._answers(batch))
        if answers.num_rows:
            self.exceeded = await self.limit.exceeded_async(answers) or self.exceeded
            yield await asyncio.to_thread(self.finish, answers)

    async def _answers(self, batch: pa.Table) -> pa.Table:
        replies = await asyncio.gather(*(self._reply(row) for row in batch.to_pylist()))
        rows = [i for i, reply in enumerate(replies) if reply is not None]
        sent = [reply for reply in replies if reply is not None]
        answers = self.task.read(with_replies(batch.take(pa.array(rows, pa.int64())), sent), self.config)
        for reply, error in zip(sent, answers["error"].to_pylist(), strict=True):
            if error and not reply.error:  # of failed calls the endpoint has told
                self.endpoint.troubles.add(error)
        return answers

    async def _reply(self, row: dict) -> Reply | None:
        return await self.endpoint.ask(self.task.question(row, self.config), round_=row["round"])
