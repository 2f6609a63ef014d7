"""Calls to vLLM, without vLLM: sampling parameters, cache key, prompt tokens, engine arguments."""

from collections.abc import Sequence
from typing import Any

from valueflow.llm.cache import call_key
from valueflow.llm.chat import chat_tokens
from valueflow.llm.configs import VllmModel
from valueflow.llm.question import Question, SampledToken
from valueflow.records import digest

NEEDS_VLLM = "LLM kind 'vllm' needs vLLM: pip install 'valueflow[llm]' (GPU) or run `make llm` (CPU)"


def sampling(question: Question, config: VllmModel) -> dict[str, Any]:
    """Return vLLM's sampling parameters for a question; without `structured_outputs` if the answer is free text."""
    settings: dict[str, Any] = {"temperature": config.temperature, "max_tokens": question.max_tokens}
    if question.sampling is not None:
        settings = dict(question.sampling) | {"max_tokens": question.max_tokens + config.extra_tokens}
    if question.constraint is not None:
        settings["structured_outputs"] = question.constraint
    return settings | ({"logprobs": question.alternatives} if question.logprobs else {})


def vllm_key(question: Question, config: VllmModel, round_: int) -> str:
    """Return the call's key in the cache; engine arguments such as quantization and data type are part of it."""
    model = f"vllm {config.model} {sorted(config.engine.items())}"
    if config.chat_template_args:
        model += f" {sorted(config.chat_template_args.items())}"
    return call_key(model, config.revision, question.messages, sampling(question, config), round_)


def prompt_tokens(question: Question, config: VllmModel) -> list[int]:
    """Return a question's chat as token ids of the model."""
    trust_remote_code = bool(config.engine.get("trust_remote_code"))
    return chat_tokens(config.model, config.revision, question.messages, trust_remote_code, config.chat_template_args)


def vllm_prompt_hash(question: Question, config: VllmModel, tokens: Sequence[int]) -> str:
    """Return the hash of a rendered chat, as its token ids, and of the sampling."""
    return digest(list(tokens), sampling(question, config))


def engine_settings(config: VllmModel) -> dict[str, Any]:
    """Return the arguments of vLLM's engine other than the model."""
    return config.engine | ({"revision": config.revision} if config.revision else {})


def sampled_tokens(token_ids: Sequence[int], logprobs: Any) -> list[SampledToken]:
    """Return the tokens of an answer with vLLM's log-probabilities (objects or dicts by token id), [] without them."""
    tokens = []
    for token_id, entries in zip(token_ids, logprobs if logprobs is not None else [], strict=False):
        place = {int(i): entry if isinstance(entry, dict) else vars(entry) for i, entry in entries.items()}
        if sampled := place.get(int(token_id)):
            alternatives = [(str(entry["decoded_token"]), float(entry["logprob"])) for entry in place.values()]
            tokens.append(SampledToken(str(sampled["decoded_token"]), float(sampled["logprob"]), alternatives))
    return tokens
