"""A vLLM engine: of a replica of the service, or of an actor that answers batches (`vllm_batch.py`)."""

import os
import uuid

import pyarrow as pa

from valueflow.callers import Slots
from valueflow.errors import InputError
from valueflow.judging.logprobs import llm_answers
from valueflow.judging.tasks import RANK
from valueflow.llm.cache import Reply
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import NO_LOGPROBS, Question, option_logprobs, option_probability
from valueflow.llm.vllm import NEEDS_VLLM, engine_settings, prompt_tokens, sampled_tokens, sampling, vllm_prompt_hash
from valueflow.models import locate


class OnlineEngine:
    """Judge in a vLLM engine, which batches the questions of all callers; they share its slots.

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
        self.answers = llm_answers(config, RANK, self._ask)
        self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=locate(config.model), **engine_settings(config)))
        vllm = self.engine.vllm_config
        self.slots = Slots(vllm.scheduler_config.max_num_seqs * vllm.parallel_config.data_parallel_size)

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of windows; if the caller is cancelled, so are its calls."""
        return await self.answers(windows)

    async def check(self) -> None:
        """Return if the engine's processes live.

        Raises:
            EngineDeadError: they do not.
        """
        await self.engine.check_health()

    @property
    def is_dead(self) -> bool:
        """Whether the engine's processes have ended, so that it can answer nothing any more."""
        return bool(self.engine.errored)

    async def ask(self, question: Question) -> Reply:
        """Return the reply to a question, of a constrained or free answer."""
        async with self.slots.slot():
            return await self._generate(question)

    async def _ask(self, question: Question, _: int) -> Reply:
        return await self.ask(question)

    async def _generate(self, question: Question) -> Reply:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        settings = sampling(question, self.config)
        if "structured_outputs" in settings:
            settings["structured_outputs"] = StructuredOutputsParams(**settings["structured_outputs"])
        tokens = prompt_tokens(question, self.config)
        prompt_hash = "" if question.sampling is None else vllm_prompt_hash(question, self.config, tokens)
        last = None
        try:
            prompt = {"prompt_token_ids": list(tokens)}
            async for output in self.engine.generate(prompt, SamplingParams(**settings), uuid.uuid4().hex):
                last = output
        except (ValueError, RuntimeError) as error:  # the engine refuses this question, for example because it is too long
            return Reply("", str(error)[:500], 0, 0, prompt_hash=prompt_hash)
        if last is None:
            return Reply("", "the engine gave no output", len(tokens), 0, prompt_hash=prompt_hash)
        completion = last.outputs[0]
        used = (len(tokens), len(completion.token_ids))
        if question.sampling is not None:
            finish = completion.finish_reason if completion.finish_reason in ("stop", "length") else "other"
            return Reply(completion.text, "", *used, finish_reason=finish, prompt_hash=prompt_hash)
        if not question.logprobs:
            return Reply(completion.text, "", *used)
        sampled, options = sampled_tokens(completion.token_ids, completion.logprobs), question.options
        logprobs = option_logprobs(sampled, completion.text, options)
        failure = NO_LOGPROBS if question.needs_logprobs and logprobs is None else ""
        return Reply(completion.text, failure, *used, option_probability(sampled, completion.text, options), logprobs)
