"""Who waits for an answer."""

import contextlib
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple


class Caller(NamedTuple):
    """Who waits for an answer.

    name: of the API key; of the request if there are no keys.
    request: id of the request, unique.
    """

    name: str
    request: str


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)  # inherited by the tasks of a request


def new_caller(name: str = "") -> Caller:
    """Return the caller of a new request; without a name, one of its own."""
    request = uuid.uuid4().hex
    return Caller(name or request, request)


@contextlib.contextmanager
def calling(caller: Caller | None = None) -> Iterator[None]:
    """Work inside the block is the caller's; without argument, that of the caller there is, else of a new one."""
    token = CALLER.set(caller or CALLER.get() or new_caller())
    try:
        yield
    finally:
        CALLER.reset(token)
