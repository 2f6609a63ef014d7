"""A vLLM engine that answers windows as they arrive, for the service; the same prompts and sampling as in a dataset."""

import asyncio
import os
import uuid

import pyarrow as pa

from valueflow.errors import InputError
from valueflow.judging.tasks import RANK
from valueflow.llm.cache import Reply
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import Question, option_probability, with_replies
from valueflow.llm.vllm import NEEDS_VLLM, engine_settings, prompt_tokens, sampled_tokens, sampling
from valueflow.models import locate


class OnlineEngine:
    """Judge in a vLLM engine; the windows of a table are put at once, and vLLM batches them with those of other callers.

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
        self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=locate(config.model), **engine_settings(config)))

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of windows; if the caller is cancelled, so are its calls."""
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
        options = question.options if question.logprobs else []
        sampled = sampled_tokens(completion.token_ids, completion.logprobs)
        probability = option_probability(sampled, completion.text, options)
        return Reply(completion.text, "", len(tokens), len(completion.token_ids), probability)
