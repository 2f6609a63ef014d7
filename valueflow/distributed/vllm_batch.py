"""LLMs in vLLM engines run by ray.data.llm, and their replies from the call cache."""

import asyncio
import functools
import importlib.util
import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from valueflow import store
from valueflow.distributed.actor_pools import Finish
from valueflow.distributed.cluster import STAGE_CPUS
from valueflow.distributed.error_limit import ErrorLimit
from valueflow.distributed.vllm_engine import EngineActor
from valueflow.errors import InputError
from valueflow.judging.logprobs import LogprobJudge, reads_logprobs
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import Question, Task, option_logprobs, option_probability, replies_of, with_replies
from valueflow.llm.vllm import (
    NEEDS_VLLM,
    engine_settings,
    finish_reason,
    prompt_tokens,
    sampled_tokens,
    sampling,
    vllm_key,
    vllm_prompt_hash,
)
from valueflow.models import locate

# Number of cached replies read or written at once: object stores answer slowly but in parallel.
CACHE_THREADS = 16
ENGINE_STAGE = "vLLMEngineStage"
# Tasks of an engine that render prompts, and as many that read answers. Each is a process that imports vLLM, which takes a core
# ten seconds; Ray would start one for each block.
TASKS_PER_ENGINE = 2


def answer_by_engines(
    config: VllmModel, task: Task, cache: str, _: tuple[int, int], limit: ErrorLimit, finish: Finish
) -> Callable[[Dataset], Dataset]:
    """Return the function that answers datasets by vLLM engines and writes their replies to the call cache.

    Raises:
        InputError: vLLM is not installed, or the model is missing.
    """
    if reads_logprobs(config, task):
        return _answer_by_logprobs(config, cache, limit, finish)
    try:
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig
    except ImportError as error:
        raise InputError(NEEDS_VLLM) from error
    around = {"num_cpus": STAGE_CPUS, "concurrency": TASKS_PER_ENGINE * config.most_engines}
    bundle = {"CPU": config.cpus_per_engine} | ({"GPU": config.gpus_per_engine} if config.gpus_per_engine else {})
    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=locate(config.model),
            engine_kwargs=engine_settings(config),
            concurrency=(config.num_engines, config.most_engines),
            batch_size=config.batch_size,
            accelerator_type=None,
            placement_group_config={"bundles": [bundle]},
            # _Preprocess does it in the task that renders the prompt: three processes fewer, and the tokens that vLLM's own
            # chat would use (Ray's tokenizer stage adds a second begin-of-text before templates that write one).
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
            should_continue_on_error=True,
            log_engine_metrics=False,
            runtime_env={"env_vars": config.env},
        ),
        preprocess=_Preprocess(config, task),
        postprocess=_Postprocess(config, task),
        preprocess_map_kwargs=around,
        postprocess_map_kwargs=around,
    )
    # A copy, because an assignment would run Ray's validator a second time, which then asks for a GPU.
    engine = processor.stages[ENGINE_STAGE]
    processor.stages[ENGINE_STAGE] = engine.model_copy(update={"fn": _with_limit(engine.fn, limit)})

    def answer(questions: Dataset) -> Dataset:
        return processor(questions).map_batches(
            _read_replies,
            fn_kwargs={"config": config, "task": task, "cache": cache, "limit": limit, "finish": finish},
            batch_format="pyarrow",
            batch_size=config.batch_size,
            **around,
        )

    return answer


def _answer_by_logprobs(config: VllmModel, cache: str, limit: ErrorLimit, finish: Finish) -> Callable[[Dataset], Dataset]:
    """Return the function that answers windows of several calls each, in actors that hold an engine."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError(NEEDS_VLLM)
    locate(config.model)
    return lambda questions: questions.map_batches(
        EngineActor,
        fn_constructor_kwargs={"config": config, "cache": cache, "limit": limit, "finish": finish},
        batch_format="pyarrow",
        batch_size=config.batch_size,
        # Two batches, so that the engine has work while the last answers of one arrive.
        # Ray Data adds an engine while there are twice as many batches in flight as the engines work on.
        compute=ray.data.ActorPoolStrategy(
            min_size=config.num_engines, max_size=config.most_engines, max_tasks_in_flight_per_actor=4,
            max_concurrent_calls_per_actor=2,
        ),
        num_cpus=config.cpus_per_engine,
        num_gpus=config.gpus_per_engine,
    )  # fmt: skip


def _with_limit(stage: type, limit: ErrorLimit) -> type:
    """The engine stage, which drops batches once the limit is exceeded and names a failed question's error `failure`.

    Sampling parameters reach it as JSON: as a column, those of questions with and without log-probabilities would get one type,
    and an integer that only some have becomes a float, which stops vLLM's engine without an error.

    Ray's postprocess leaves out rows whose `__inference_error__` is set: they would come without the columns of the others.
    """

    class Engine(stage):
        async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
            if await limit.exceeded_async():
                return
            rows = batch[self.data_column]
            batch[self.data_column] = rows = rows.tolist() if hasattr(rows, "tolist") else rows
            for row in rows:
                row["sampling_params"] = json.loads(row.pop("sampling_json"))
            async for answers in super().__call__(batch):
                for row in answers.get(self.data_column, []):
                    row["failure"] = row.pop("__inference_error__", "")
                yield answers

    return Engine


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
        num_cpus=STAGE_CPUS,
    )


class _Preprocess:
    """A planned row with the tokens of its chat, the sampling parameters, and the key in the call cache."""

    def __init__(self, config: VllmModel, task: Task) -> None:
        self.config, self.task = config, task

    def __call__(self, row: dict) -> dict:
        question = self.task.question(row, self.config)
        tokens, parameters = prompt_tokens(question, self.config), sampling(question, self.config)
        return row | {
            "key": vllm_key(question, self.config, row["round"]),
            "sampling_json": json.dumps(parameters),
            "tokenized_prompt": tokens,
            "options_json": json.dumps(question.options if question.logprobs else []),
            "max_tokens": parameters["max_tokens"],
            "prompt_hash": "" if question.sampling is None else vllm_prompt_hash(question, self.config, tokens),
        }


class _Postprocess:
    """The columns that `Task.read` needs, as plain strings and numbers."""

    def __init__(self, config: VllmModel, task: Task) -> None:
        self.config, self.columns = config, (*task.columns, "folder", "key", "prompt_hash")

    def __call__(self, row: dict) -> dict:
        error = row.get("failure") or ""
        columns = {name: [str(i) for i in row[name]] if _is_list(row[name]) else row[name] for name in self.columns}
        text, options = str(row.get("generated_text") or ""), json.loads(row["options_json"])
        logprobs, token_ids = row.get("logprobs"), row.get("generated_tokens")
        token_ids = [] if token_ids is None else list(token_ids)
        tokens, tokens_in = sampled_tokens(token_ids, logprobs), int(row.get("num_input_tokens") or 0)
        ends = bool(columns["prompt_hash"] and not error)
        probability = option_probability(tokens, text, options) if options else None
        return columns | {
            "reply": "" if error else text,
            "failure": str(error)[:500],
            "tokens_in": tokens_in,
            "tokens_out": int(row.get("num_generated_tokens") or 0),
            # nan and not None: a column of nothing but nulls has no type.
            "first_probability": math.nan if probability is None else probability,
            "logprobs": (option_logprobs(tokens, text, options) if options else None) or [math.nan],
            "finish_reason": finish_reason(self.config, int(row["max_tokens"]), tokens_in, token_ids) if ends else "",
        }


def _is_list(column: Any) -> bool:
    return hasattr(column, "__iter__") and not isinstance(column, str)


def _read_replies(batch: pa.Table, config: VllmModel, task: Task, cache: str, limit: ErrorLimit, finish: Finish) -> pa.Table:
    name = "first_probability"
    probabilities = [None if math.isnan(p) else p for p in batch[name].to_pylist()]
    batch = batch.set_column(batch.column_names.index(name), name, pa.array(probabilities, pa.float64()))
    logprobs = [None if math.isnan(of_options[0]) else of_options for of_options in batch["logprobs"].to_pylist()]
    batch = batch.set_column(batch.column_names.index("logprobs"), "logprobs", pa.array(logprobs, pa.list_(pa.float64())))
    batch = batch.append_column("reasoning_tokens", pa.nulls(batch.num_rows, pa.int32()))
    if cache:
        calls = CallCache(cache)
        with ThreadPoolExecutor(CACHE_THREADS) as pool:
            list(pool.map(calls.put, batch["key"].to_pylist(), replies_of(batch)))
    answers = task.read(batch, config)
    limit.add(answers)
    return finish(answers)


def _read_cache(
    batch: pa.Table, config: VllmModel, task: Task, cache: str, limit: ErrorLimit, finish: Finish
) -> Iterator[pa.Table]:
    calls = CallCache(cache)
    if reads_logprobs(config, task):
        answers = asyncio.run(LogprobJudge(config, functools.partial(_cached, config, calls))(batch))
        if answers.num_rows:
            limit.add(answers)
            yield finish(answers)
        return
    rows = batch.to_pylist()
    with ThreadPoolExecutor(CACHE_THREADS) as pool:
        replies = list(pool.map(lambda row: calls.get(vllm_key(task.question(row, config), config, row["round"])), rows))
    cached = [i for i, reply in enumerate(replies) if reply is not None]
    if cached:
        answers = task.read(with_replies(batch.take(cached), [reply for reply in replies if reply is not None]), config)
        limit.add(answers)
        yield finish(answers)


async def _cached(config: VllmModel, calls: CallCache, question: Question, round_: int) -> Reply | None:
    return await asyncio.to_thread(calls.get, vllm_key(question, config, round_))
