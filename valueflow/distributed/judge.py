"""Judges as functions Dataset -> Dataset: windows or ballots with their texts go in, rankings or votes come out."""

import asyncio
import contextlib
import math
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.cluster import require_resources
from valueflow.errors import InputError
from valueflow.judging.configs import AnyJudge, EncoderJudge, SimulatedJudge
from valueflow.judging.encoder import EncoderRanker, EncoderVoter
from valueflow.judging.simulated import SimulatedRanker, SimulatedVoter
from valueflow.judging.tasks import RANK
from valueflow.llm.admission import BudgetLedger
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.chat import chat_tokens
from valueflow.llm.configs import EndpointModel, VllmModel
from valueflow.llm.endpoint import Endpoint
from valueflow.llm.question import REPLY, Question, Task, sampling, vllm_key, with_replies
from valueflow.models import locate
from valueflow.prompts.render import LETTERS

Judge = Callable[[Dataset], Dataset]
# The small tasks around an engine each hold this share of a logical CPU.
STAGE_CPUS = 0.1
NEEDS_VLLM = "judge kind 'vllm' needs vLLM: pip install 'valueflow[llm]' (GPU) or run `make llm` (CPU)"
# Cached replies read at once: object stores answer slowly but in parallel.
READERS = 16


class Resources(NamedTuple):
    """What a judge holds while it works."""

    cpus: float
    gpus: float


def resources(config: AnyJudge) -> Resources:
    """Return the logical CPUs and GPUs that a judge's actors or engines take."""
    if isinstance(config, VllmModel):
        return Resources(config.num_engines * config.cpus_per_engine + 2, config.num_engines * config.gpus_per_engine)
    if isinstance(config, EndpointModel):
        return Resources(config.num_cpus + 1, 0)
    gpus = config.num_actors * config.num_gpus if isinstance(config, EncoderJudge) else 0.0
    return Resources(config.num_actors * config.num_cpus, gpus)


def judge(config: AnyJudge, task: Task = RANK, cache: str = "", spent: tuple[int, int] = (0, 0)) -> Judge:
    """Return the judge that a config describes; the cluster is checked for room first.

    Questions go in in blocks of the judge's batch size: a block is answered and committed as one, so that is what a crash costs
    (with a call cache, only what was in flight).

    Args:
        config: the judge.
        task: what it is asked.
        cache: folder or URL of the call cache; "" for none.
        spent: tokens in and out that the same build has spent on it before, for its budget.
    """
    require_resources(*resources(config), f"judge {config.name!r}", "Lower the judge's actors or CPUs per actor")
    if isinstance(config, VllmModel):
        answer = _vllm(config, task, cache)
    elif isinstance(config, EndpointModel):
        answer = _endpoint(config, task, cache, spent)
    else:
        answer = _in_actors(config, task)
    return lambda questions: answer(questions.repartition(target_num_rows_per_block=config.batch_size))


def from_call_cache(config: AnyJudge, task: Task, cache: str) -> Judge | None:
    """Return the judge's memory: it answers the questions whose replies are in the cache and drops the others.

    None where there is nothing to replay, and for an endpoint, which looks into the cache before each call.
    """
    if not isinstance(config, VllmModel) or not config.cache or not store.exists(cache):
        return None
    return lambda questions: questions.map_batches(
        _from_cache,
        fn_kwargs={"config": config, "task": task, "cache": cache},
        batch_format="pyarrow",
        batch_size=config.batch_size,
        num_cpus=STAGE_CPUS,
    )


class JudgeActor:
    """A judge's worker that outlives a dataset; an actor when `ray.remote` wraps it."""

    def __init__(self, worker: type, config: AnyJudge) -> None:
        self.worker = worker(config)

    def answer(self, batch: pa.Table) -> pa.Table:
        """Return the answered batch."""
        return self.worker(batch)


class ActorPool:
    """The actors of a judge, started when they are first needed."""

    def __init__(self, config: EncoderJudge | SimulatedJudge, worker: type) -> None:
        self.config, self.worker = config, worker
        self.started: list = []

    def keepers(self) -> list:
        """Return the actors; a lost one starts again, and what it was asked is asked again."""
        if not self.started:
            config = self.config
            gpus = config.num_gpus if isinstance(config, EncoderJudge) else 0.0
            actor = ray.remote(JudgeActor).options(
                num_cpus=config.num_cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
            )
            self.started = [actor.remote(self.worker, config) for _ in range(config.num_actors)]
        return self.started


_POOLS: dict[tuple[str, str], ActorPool] = {}


@contextlib.contextmanager
def warm_pools(judges: Sequence[AnyJudge], task: Task) -> Iterator[None]:
    """Let the actors of judges live through a stage of many rounds, which would start them anew in each.

    Those for which the cluster has no room beside the tasks that plan and commit start in each round, and so do the engines of
    vLLM, which belong to `ray.data.llm`.
    """
    have, mine = ray.cluster_resources(), []
    room = Resources(have.get("CPU", 0) - 2, have.get("GPU", 0))
    for config in judges:
        needed = resources(config)
        if not isinstance(config, EncoderJudge | SimulatedJudge) or needed.cpus > room.cpus or needed.gpus > room.gpus:
            continue
        room = Resources(room.cpus - needed.cpus, room.gpus - needed.gpus)
        mine.append(_key(config, task))
        _POOLS[mine[-1]] = ActorPool(config, _worker(config, task))
    try:
        yield
    finally:
        for key in mine:
            for keeper in _POOLS.pop(key).started:
                ray.kill(keeper)


def _key(config: AnyJudge, task: Task) -> tuple[str, str]:
    return task.id_column, config.model_dump_json()


def _forward(batch: pa.Table, id_column: str, keepers: list) -> pa.Table:
    which = zlib.crc32(str(batch[id_column][0]).encode()) % len(keepers)
    return ray.get(keepers[which].answer.remote(batch))


def _worker(config: EncoderJudge | SimulatedJudge, task: Task) -> type:
    if isinstance(config, EncoderJudge):
        locate(config.model)  # a model that is not there is said here, not by a dying actor
        return EncoderRanker if task is RANK else EncoderVoter
    return SimulatedRanker if task is RANK else SimulatedVoter


def _in_actors(config: EncoderJudge | SimulatedJudge, task: Task) -> Judge:
    gpus = config.num_gpus if isinstance(config, EncoderJudge) else 0.0
    worker, crew = _worker(config, task), _POOLS.get(_key(config, task))

    def answer(questions: Dataset) -> Dataset:
        if crew:
            return questions.map_batches(
                _forward,
                fn_kwargs={"id_column": task.id_column, "keepers": crew.keepers()},
                batch_format="pyarrow",
                batch_size=config.batch_size,
                num_cpus=STAGE_CPUS,
            )
        return questions.map_batches(
            worker,
            fn_constructor_kwargs={"config": config},
            batch_format="pyarrow",
            batch_size=config.batch_size,
            compute=ray.data.ActorPoolStrategy(size=config.num_actors),
            num_cpus=config.num_cpus,
            num_gpus=gpus,
        )

    return answer


def _endpoint(config: EndpointModel, task: Task, cache: str, spent: tuple[int, int]) -> Judge:
    Endpoint(config, None, BudgetLedger())  # a missing key is said here, not by a dying actor

    def answer(questions: Dataset) -> Dataset:
        # One actor keeps thousands of calls in flight; enough batches are in it at once to fill the server's concurrency
        # while the slowest calls of other batches are still out.
        batches = math.ceil(2 * config.concurrency / config.batch_size) + 1
        return questions.map_batches(
            _EndpointActor,
            fn_constructor_kwargs={"config": config, "task": task, "cache": cache if config.cache else "", "spent": spent},
            batch_format="pyarrow",
            batch_size=config.batch_size,
            compute=ray.data.ActorPoolStrategy(
                size=1, max_tasks_in_flight_per_actor=batches, max_concurrent_calls_per_actor=batches
            ),
            num_cpus=config.num_cpus,
        )

    return answer


class _EndpointActor:
    """The one caller of an endpoint in a job; rows that the budget has no room for are left out."""

    def __init__(self, config: EndpointModel, task: Task, cache: str, spent: tuple[int, int]) -> None:
        self.config, self.task = config, task
        self.endpoint = Endpoint(config, CallCache(cache) if cache else None, BudgetLedger(*spent))

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """Ask all questions of a batch at once."""
        replies = await asyncio.gather(*(self._ask(row) for row in batch.to_pylist()))
        asked = [i for i, reply in enumerate(replies) if reply is not None]
        answered = with_replies(batch.take(pa.array(asked, pa.int64())), [reply for reply in replies if reply is not None])
        if answered.num_rows:
            yield self.task.read(answered, self.config)

    async def _ask(self, row: dict) -> Reply | None:
        question = self.task.question(row, self.config)
        return await self.endpoint.ask(*question, round_=row["round"])


def _from_cache(batch: pa.Table, config: VllmModel, task: Task, cache: str) -> Iterator[pa.Table]:
    calls = CallCache(cache)
    rows = batch.to_pylist()
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda row: calls.get(vllm_key(task.question(row, config), config, row["round"])), rows))
    known = [i for i, reply in enumerate(found) if reply is not None]
    if known:
        yield task.read(with_replies(batch.take(known), [reply for reply in found if reply is not None]), config)


def _vllm(config: VllmModel, task: Task, cache: str) -> Judge:
    try:
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig
    except ImportError as error:
        raise InputError(NEEDS_VLLM) from error
    bundle = {"CPU": config.cpus_per_engine} | ({"GPU": config.gpus_per_engine} if config.gpus_per_engine else {})
    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=locate(config.model),
            engine_kwargs=engine_settings(config),
            concurrency=config.num_engines,
            batch_size=config.batch_size,
            accelerator_type=None,
            placement_group_config={"bundles": [bundle]},
            # _Ask does it in the task that renders the prompt: three processes fewer, and the tokens that vLLM's own chat
            # would make (Ray's tokenizer stage puts a second begin-of-text before templates that write one).
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
            should_continue_on_error=True,
            log_engine_metrics=False,
            runtime_env={"env_vars": config.env},
        ),
        preprocess=_Preprocess(config, task),
        postprocess=_Postprocess(task),
        preprocess_map_kwargs={"num_cpus": STAGE_CPUS},
        postprocess_map_kwargs={"num_cpus": STAGE_CPUS},
    )

    def answer(questions: Dataset) -> Dataset:
        return processor(questions).map_batches(
            _read_replies,
            fn_kwargs={"config": config, "task": task, "cache": cache if config.cache else ""},
            batch_format="pyarrow",
            batch_size=config.batch_size,
            num_cpus=STAGE_CPUS,
        )

    return answer


def engine_settings(config: VllmModel) -> dict[str, Any]:
    """Return what vLLM's engine is started with, but for the model."""
    return config.engine | ({"revision": config.revision} if config.revision else {})


def prompt_tokens(question: Question, config: VllmModel) -> list[int]:
    """Return a question's chat as the model's tokens."""
    return chat_tokens(config.model, config.revision, question.messages, bool(config.engine.get("trust_remote_code")))


class _Preprocess:
    """A planned row as the tokens of a chat."""

    def __init__(self, config: VllmModel, task: Task) -> None:
        self.config, self.task = config, task

    def __call__(self, row: dict) -> dict:
        question = self.task.question(row, self.config)
        config = self.config
        return row | {
            "key": vllm_key(question, config, row["round"]),
            "sampling_params": sampling(question, config),
            "tokenized_prompt": prompt_tokens(question, config),
        }


class _Postprocess:
    """The columns that are read afterwards; errors and log-probabilities as plain strings and numbers."""

    def __init__(self, task: Task) -> None:
        self.columns = (*task.columns, "folder", "key")

    def __call__(self, row: dict) -> dict:
        error = row.get("__inference_error__") or ""
        warm_pools = {name: row[name] for name in self.columns}
        return {name: [str(i) for i in column] if _is_list(column) else column for name, column in warm_pools.items()} | {
            "reply": "" if error else str(row.get("generated_text") or ""),
            "failure": str(error)[:500],
            "tokens_in": int(row.get("num_input_tokens") or 0),
            "tokens_out": int(row.get("num_generated_tokens") or 0),
            "first": first_choice(row.get("logprobs")),
        }


def _is_list(column: Any) -> bool:
    return hasattr(column, "__iter__") and not isinstance(column, str)


def first_choice(logprobs: list | None) -> float:
    """Return P(first label) of the two labels by the first token's log-probabilities; nan where they were not asked for."""
    if logprobs is None or not len(logprobs):
        return math.nan
    seen: dict[str, float] = {}
    for entry in logprobs[0].values():
        token = str(entry["decoded_token"] if isinstance(entry, dict) else entry.decoded_token).strip()
        if token in LETTERS[:2]:
            seen[token] = seen.get(token, 0.0) + math.exp(entry["logprob"] if isinstance(entry, dict) else entry.logprob)
    return seen.get(LETTERS[0], 0.0) / sum(seen.values()) if sum(seen.values()) else math.nan


def _read_replies(batch: pa.Table, config: VllmModel, task: Task, cache: str) -> pa.Table:
    first = [None if math.isnan(p) else p for p in batch["first"].to_pylist()]
    batch = batch.set_column(batch.column_names.index("first"), "first", pa.array(first, pa.float64()))
    if cache:
        calls = CallCache(cache)
        columns = (batch[name].to_pylist() for name in ("key", *REPLY))
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda row: calls.put(row[0], Reply(*row[1:])), zip(*columns, strict=True)))
    return task.read(batch, config)
