"""A vLLM engine that answers windows as they arrive: for the service, and for windows that take several calls each.

The prompts and sampling are those of `vllm_batch.py`.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator

import pyarrow as pa

from valueflow.callers import Slots
from valueflow.distributed.actor_pools import Finish
from valueflow.distributed.error_limit import ErrorLimit
from valueflow.errors import InputError
from valueflow.judging.logprobs import LogprobJudge
from valueflow.judging.tasks import RANK
from valueflow.llm.cache import CallCache, Reply
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import NO_LOGPROBS, Question, option_logprobs, option_probability, with_replies
from valueflow.llm.vllm import NEEDS_VLLM, engine_settings, prompt_tokens, sampled_tokens, sampling, vllm_key
from valueflow.models import locate


class OnlineEngine:
    """Judge in a vLLM engine, which batches the windows of all callers; they share its slots.

    vLLM queues whatever exceeds its batch in order of arrival, so no more than the batch is handed over at once.

    Raises:
        InputError: vLLM is not installed, or the model is missing.
    """

    def __init__(self, config: VllmModel) -> None:
        os.environ.update(config.env)
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise InputError(NEEDS_VLLM) from error
        self.config = config
        self.by_logprobs = LogprobJudge(config, lambda question, _: self.ask(question)) if config.answer != "letter" else None
        self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=locate(config.model), **engine_settings(config)))
        vllm = self.engine.vllm_config
        self.slots = Slots(vllm.scheduler_config.max_num_seqs * vllm.parallel_config.data_parallel_size)

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of windows; if the caller is cancelled, so are its calls."""
        if self.by_logprobs:
            return await self.by_logprobs(windows)
        questions = [RANK.question(row, self.config) for row in windows.to_pylist()]
        replies = await asyncio.gather(*(self.ask(question) for question in questions))
        return RANK.read(with_replies(windows, replies), self.config)

    async def check(self) -> None:
        """Return if the engine's processes live.

        Raises:
            EngineDeadError: they do not.
        """
        await self.engine.check_health()

    async def ask(self, question: Question) -> Reply:
        """Return the reply to a question, of a constrained or free answer."""
        async with self.slots.slot():
            return await self._generate(question)

    async def _generate(self, question: Question) -> Reply:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        settings = sampling(question, self.config)
        if "structured_outputs" in settings:
            settings["structured_outputs"] = StructuredOutputsParams(**settings["structured_outputs"])
        tokens = prompt_tokens(question, self.config)
        last = None
        try:
            prompt = {"prompt_token_ids": list(tokens)}
            async for output in self.engine.generate(prompt, SamplingParams(**settings), uuid.uuid4().hex):
                last = output
        except (ValueError, RuntimeError) as error:  # the engine refuses this question, for example because it is too long
            return Reply("", str(error)[:500], 0, 0)
        if last is None:
            return Reply("", "the engine gave no output", len(tokens), 0)
        completion = last.outputs[0]
        used = (len(tokens), len(completion.token_ids))
        if not question.logprobs:
            return Reply(completion.text, "", *used)
        sampled, options = sampled_tokens(completion.token_ids, completion.logprobs), question.options
        logprobs = option_logprobs(sampled, completion.text, options)
        failure = NO_LOGPROBS if question.needs_logprobs and logprobs is None else ""
        return Reply(completion.text, failure, *used, option_probability(sampled, completion.text, options), logprobs)


class EngineActor:
    """Actor with an engine that answers windows by log-probabilities, cache first; drops batches beyond the error limit."""

    def __init__(self, config: VllmModel, cache: str, limit: ErrorLimit, finish: Finish) -> None:
        self.config, self.limit, self.finish = config, limit, finish
        self.exceeded = False
        self.calls = CallCache(cache) if cache else None
        self.engine = OnlineEngine(config)
        self.judge = LogprobJudge(config, self._ask)

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """Yield the answers to a batch, whose questions are put at once."""
        if self.exceeded:
            return
        answers = await self.judge(batch)
        self.exceeded = await self.limit.exceeded_async(answers) or self.exceeded
        yield await asyncio.to_thread(self.finish, answers)

    async def _ask(self, question: Question, round_: int) -> Reply:
        key = vllm_key(question, self.config, round_)
        if self.calls and (cached := await asyncio.to_thread(self.calls.get, key)):
            return cached
        reply = await self.engine.ask(question)
        if self.calls:
            await asyncio.to_thread(self.calls.put, key, reply)
        return reply
