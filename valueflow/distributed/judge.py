"""Judges and namers as functions Dataset -> Dataset: questions with their texts go in, rows of an answer table come out.

Judges with worker classes run in actor pools (`actor_pools.py`); LLMs run by kind (`vllm_batch.py`, `endpoint_actor.py`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ray.data import Dataset

from valueflow.distributed import endpoint_actor, vllm_batch
from valueflow.distributed.actor_pools import Finish, answer_in_actors, unchanged
from valueflow.distributed.cluster import require_resources
from valueflow.distributed.error_limit import NO_LIMIT, ErrorLimit
from valueflow.distributed.simulated_generator import answer_by_simulation
from valueflow.distributed.vllm_engine import OnlineEngine
from valueflow.distributed.warm_pools import warm_pool
from valueflow.judging.configs import AnyJudge
from valueflow.judging.kind import OnlineJudge
from valueflow.judging.kinds import kind_of
from valueflow.judging.online import online_judge
from valueflow.judging.tasks import RANK
from valueflow.llm.configs import LlmModel
from valueflow.llm.question import Task

Answerer = Callable[[Dataset], Dataset]


class LlmRunner(NamedTuple):
    """How a kind of LLM answers datasets; all functions take its settings, the task and the URL of the call cache ("": none);
    those that answer also the limit of errors, and what is done with an answered batch where it is (`Finish`).

    answer: asks the LLM; also takes the tokens in and out that the build has spent on it before.
    replay: answers from the call cache alone; None if `answer` looks into the cache before each call.
    engine: the judge in an engine of this process, for the service; None for kinds that `online_judge` has.
    """

    answer: Callable[[Any, Task, str, tuple[int, int], ErrorLimit, Finish], Answerer]
    replay: Callable[[Any, Task, str, ErrorLimit, Finish], Answerer | None] | None = None
    engine: Callable[[Any], OnlineJudge] | None = None


LLM_RUNNERS = {
    "vllm": LlmRunner(vllm_batch.answer_by_engines, vllm_batch.answer_from_cache, OnlineEngine),
    "openai": LlmRunner(endpoint_actor.answer_by_endpoint),
    "simulated": LlmRunner(answer_by_simulation),  # a generator, no judge
}


def answerer(
    config: AnyJudge, task: Task = RANK, cache: str = "", spent: tuple[int, int] = (0, 0), limit: ErrorLimit = NO_LIMIT,
    finish: Finish = unchanged,
) -> Answerer:  # fmt: skip
    """Return the function that answers datasets by a judge or namer, after a check that the cluster has room for it.

    Questions are put in blocks of the batch size: a block is answered and committed as one, so it is the most that a crash
    costs (with a call cache: only the calls in flight).

    Args:
        config: judge, voter or namer.
        task: type of question.
        cache: folder or URL of the call cache; "" for none.
        spent: tokens in and out that the same build has spent on it before, for its budget.
        limit: of errors; batches that are not begun when it is exceeded are dropped.
        finish: what is done with an answered batch in the task that answered it, such as `commit.Commit`; its tables are the
            dataset that is returned.

    Raises:
        InputError: the cluster has no room, or a model, API key or package is missing.
    """
    require_resources(*config.resources, f"judge {config.name!r}", "Lower the judge's actors or CPUs per actor")
    kind_of(config).check(config)
    kept = cache if isinstance(config, LlmModel) and config.cache else ""
    if pool := warm_pool(config, task):
        answer = pool.answerer(kept, limit, finish)
    elif isinstance(config, LlmModel):
        answer = LLM_RUNNERS[config.kind].answer(config, task, kept, spent, limit, finish)
    else:
        answer = answer_in_actors(config, task, limit, finish)
    return lambda questions: answer(questions.repartition(target_num_rows_per_block=config.batch_size))


def from_call_cache(config: AnyJudge, task: Task, cache: str, limit: ErrorLimit, finish: Finish) -> Answerer | None:
    """Return the function that answers the questions whose replies are in the call cache, and drops the others.

    None if there is no cache, or if the LLM's `answer` looks into it.
    """
    if not isinstance(config, LlmModel) or not config.cache:
        return None
    replay = LLM_RUNNERS[config.kind].replay
    return replay(config, task, cache, limit, finish) if replay else None


def served_judge(config: AnyJudge, cache: str) -> OnlineJudge:
    """Return the judge of a served replica: an engine in this process for vLLM, else `online_judge`.

    Raises:
        InputError: a model, API key or package is missing.
    """
    runner = LLM_RUNNERS.get(config.kind)
    return runner.engine(config) if runner and runner.engine else online_judge(config, cache)
