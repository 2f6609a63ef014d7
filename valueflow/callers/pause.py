"""Where long work lets short work of other callers go first."""

from collections.abc import Callable
from contextvars import ContextVar


def go_on() -> None:
    """Nobody waits: what a pause does outside of shared workers."""


PAUSE: ContextVar[Callable[[], None]] = ContextVar("pause", default=go_on)  # set by whoever shares the worker of this thread


def pause() -> None:
    """Return once short work of other callers is done; to be called between the steps of work that takes long.

    Raises:
        Exception: nobody waits for the work any more; its worker ends it.
    """
    PAUSE.get()()
