"""A vLLM engine that answers windows as they come, for the service; the same prompts and sampling as in a dataset."""

import asyncio
import math
import os
import uuid

import pyarrow as pa

from valueflow.distributed.judge import NEEDS_VLLM, engine_settings, first_choice, prompt_tokens
from valueflow.errors import InputError
from valueflow.judging.tasks import RANK
from valueflow.llm.cache import Reply
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import sampling, with_replies
from valueflow.models import locate


class OnlineEngine:
    """Asks all windows of a table at once; vLLM batches them with those of other callers.

    Raises:
        InputError: vLLM is not installed, or the model is missing.
    """

    def __init__(self, judge: VllmModel) -> None:
        os.environ.update(judge.env)
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise InputError(NEEDS_VLLM) from error
        self.judge = judge
        self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=locate(judge.model), **engine_settings(judge)))

    async def __call__(self, windows: pa.Table) -> pa.Table:
        """Return rows of `rankings`, one a window; a caller that is cancelled takes its calls back."""
        replies = await asyncio.gather(*(self._reply(row) for row in windows.to_pylist()))
        return RANK.read(with_replies(windows, replies), self.judge)

    async def _reply(self, row: dict) -> Reply:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        judge = self.judge
        question = RANK.question(row, judge)
        settings = sampling(question, judge)
        settings["structured_outputs"] = StructuredOutputsParams(**settings["structured_outputs"])
        tokens = prompt_tokens(question, judge)
        last = None
        try:
            prompt = {"prompt_token_ids": list(tokens)}
            async for output in self.engine.generate(prompt, SamplingParams(**settings), uuid.uuid4().hex):
                last = output
        except (ValueError, RuntimeError) as error:  # one question that the engine refuses, as one that is too long
            return Reply("", str(error)[:500], len(tokens), 0)
        if last is None:
            return Reply("", "the engine gave no output", len(tokens), 0)
        said = last.outputs[0]
        first = first_choice(said.logprobs)
        return Reply(said.text, "", len(tokens), len(said.token_ids), None if math.isnan(first) else first)
