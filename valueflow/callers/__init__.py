"""Callers of a judge, an encoder or the HTTP service, and how they share it."""

from valueflow.callers.caller import CALLER, Caller, calling, new_caller
from valueflow.callers.slots import CallQueue, QueuedCall, Slots, share_of_caller

__all__ = ["CALLER", "CallQueue", "Caller", "QueuedCall", "Slots", "calling", "new_caller", "share_of_caller"]
