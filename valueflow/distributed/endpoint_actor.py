"""LLMs behind an OpenAI-compatible endpoint, called from one actor per job."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow.distributed.actor_pools import Finish
from valueflow.distributed.error_limit import ErrorLimit
from valueflow.judging.logprobs import llm_answers
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.cache import CallCache
from valueflow.llm.configs import EndpointModel
from valueflow.llm.endpoint import Endpoint
from valueflow.llm.question import Task


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
        self.limit, self.finish = limit, finish
        self.exceeded = False
        self.endpoint = Endpoint(config, CallCache(cache) if cache else None, BudgetLedger(*spent))
        # Of failed calls the endpoint tells itself.
        self.answers = llm_answers(config, task, self.endpoint.ask, self.endpoint.troubles.add)

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """Yield the answers to a batch, whose questions are put at once."""
        if self.exceeded:
            return
        answers = await self.answers(batch)
        if answers.num_rows:
            self.exceeded = await self.limit.exceeded_async(answers) or self.exceeded
            yield await asyncio.to_thread(self.finish, answers)
