"""The call cache: one small file per answered call, shared between jobs; errors are not cached.

`{url}/{first two digits of the key}/{key}.json`. A file is written completely or not at all, concurrent writers of one key
write answers to the same question: concurrent writers and crashes need no lock.
"""

import hashlib
import json
from typing import NamedTuple

from valueflow import store

# Only free texts have them: other replies are stored as before they were added.
ADDED_FIELDS = ("finish_reason", "prompt_hash", "reasoning_tokens")


class Reply(NamedTuple):
    """Reply to one question; exactly one of text and error is not empty, unless the model answered nothing.

    `first_probability`: probability of the first option among the options, if log-probabilities were requested.
    `logprobs`: log-probability of each option then.
    `finish_reason`: of a free text, stop, length (cut at max_tokens) or other; "" if it is not known.
    `prompt_hash`: of a free text, the hash of the prompt as the model read it, and of the sampling.
    `reasoning_tokens`: those of `tokens_out` that the model spent on reasoning; None if nobody counted them.
    """

    text: str
    error: str
    tokens_in: int
    tokens_out: int
    first_probability: float | None = None
    logprobs: list[float] | None = None
    finish_reason: str = ""
    prompt_hash: str = ""
    reasoning_tokens: int | None = None


def call_key(model: str, revision: str, messages: list[dict], sampling: dict, round_: int) -> str:
    """Return the key of a call, a hash of all that determines its answer.

    Equal questions of different rounds are different samples.
    """
    call = json.dumps([model, revision, messages, sampling, round_], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(call.encode("utf-8", "surrogatepass")).hexdigest()


class CallCache:
    """Replies by key under a folder or URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, key: str) -> Reply | None:
        """Return the reply of an earlier call; None if there is none, or if its file is damaged and was set aside.

        Raises:
            StorageError: the file cannot be read, so nobody knows whether the call was paid for.
        """
        return store.read_or_set_aside(self._path(key), _reply, (ValueError, TypeError, LookupError), "a reply")

    def put(self, key: str, reply: Reply) -> None:
        """Store a reply, unless it is an error."""
        if not reply.error:
            optional = Reply._field_defaults
            content = {
                name: value
                for name, value in reply._asdict().items()
                if name != "error" and not (name in ADDED_FIELDS and value == optional[name])
            }
            store.write_bytes(self._path(key), store.sealed(content))

    def _path(self, key: str) -> str:
        return f"{self.url}/{key[:2]}/{key}.json"


def _reply(content: bytes) -> Reply:
    fields = store.unsealed(content).content
    # Caches of earlier code have a list; what was paid for is not asked again.
    reply = Reply("", "", *fields[1:])._replace(text=fields[0]) if isinstance(fields, list) else Reply(error="", **fields)
    text, _, tokens_in, tokens_out, first_probability, logprobs, finish_reason, prompt_hash, reasoning_tokens = reply
    if not isinstance(text, str) or not all(type(tokens) is int and tokens >= 0 for tokens in (tokens_in, tokens_out)):
        raise TypeError(f"a text and two numbers of tokens are expected, not {content[:100]!r}")
    if first_probability is not None and not (type(first_probability) in (int, float) and 0 <= first_probability <= 1):
        raise ValueError(f"{first_probability!r} is not a probability")
    if logprobs is not None and not all(type(logprob) in (int, float) for logprob in logprobs):
        raise ValueError(f"{logprobs!r} are not log-probabilities")
    if not isinstance(finish_reason, str) or not isinstance(prompt_hash, str):
        raise TypeError(f"finish_reason and prompt_hash are texts, not {finish_reason!r} and {prompt_hash!r}")
    if reasoning_tokens is not None and not (type(reasoning_tokens) is int and reasoning_tokens >= 0):
        raise ValueError(f"{reasoning_tokens!r} is no number of tokens")
    return reply
