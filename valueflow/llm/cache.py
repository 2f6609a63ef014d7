"""The call cache: one small file per answered call, shared between jobs. Errors never come here.

`{url}/{first two digits of the key}/{key}.json`. A file is written whole or not at all, two writers of one key write the same
question's answers, and a file that cannot be read is a miss: concurrent writers and crashes need no lock.
"""

import hashlib
import json
from typing import NamedTuple

from valueflow import store


class Reply(NamedTuple):
    """What came back for one question; exactly one of text and error is not empty, unless the model said nothing."""

    text: str
    error: str
    tokens_in: int
    tokens_out: int
    first: float | None = None  # probability of the first choice among the choices, where log-probabilities were asked for


def call_key(model: str, revision: str, messages: list[dict], sampling: dict, round_: int) -> str:
    """Return the key of a call: what decides its answer. Equal questions of different rounds are different samples."""
    asked = json.dumps([model, revision, messages, sampling, round_], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


class CallCache:
    """Replies by key under a folder or URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, key: str) -> Reply | None:
        """Return the reply of an earlier call, None where there is none that can be read."""
        try:
            text, tokens_in, tokens_out, first = json.loads(store.read_bytes(self._path(key)))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return Reply(text, "", tokens_in, tokens_out, first)

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; one with an error is not kept."""
        if not reply.error:
            content = json.dumps([reply.text, reply.tokens_in, reply.tokens_out, reply.first])
            store.write_bytes(self._path(key), content.encode("utf-8", "surrogatepass"))

    def _path(self, key: str) -> str:
        return f"{self.url}/{key[:2]}/{key}.json"
