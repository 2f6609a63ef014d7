"""Callers of a judge, an encoder or the HTTP service, and how they share it."""

from valueflow.callers.caller import CALLER, Caller, calling, new_caller
from valueflow.callers.pause import PAUSE, go_on, pause
from valueflow.callers.slots import CallQueue, QueuedCall, Slots, share_of_caller

__all__ = [
    "CALLER",
    "PAUSE",
    "CallQueue",
    "Caller",
    "QueuedCall",
    "Slots",
    "calling",
    "go_on",
    "new_caller",
    "pause",
    "share_of_caller",
]
