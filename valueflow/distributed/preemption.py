"""Notices that a node will be taken away: its workers begin no batch there that would not end in time.

Ray Data gives no further batch to the actors of such a node, but they have batches that wait. An actor that ends itself before
such a batch begins loses nothing: Ray starts it on another node, and the batch is put to it there.
"""

import logging
import os
import time
from typing import NoReturn

import ray
from ray._private import state

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
MARGIN = 1.5  # of the longest batch so far


def seconds_left(node: str) -> float:
    """Return how long a node will still be there; infinite without a notice."""
    deadline_ms = state.state.get_draining_nodes().get(node)
    if deadline_ms is None:
        return float("inf")
    return max(deadline_ms / 1000 - time.time(), 0.0) if deadline_ms else 0.0  # 0: no deadline, at any time


class Notice:
    """What the node of this worker says, looked up every few seconds, and how long its batches take."""

    def __init__(self) -> None:
        self.node = ray.get_runtime_context().get_node_id()
        self._longest, self._looked, self._ends = 0.0, -float("inf"), float("inf")

    def is_short(self) -> bool:
        """Return whether the node would go before another batch ends."""
        now = time.monotonic()
        if now > self._looked + LOOK_SECONDS:
            self._looked, self._ends = now, now + seconds_left(self.node)
        return self._ends < now + MARGIN * self._longest + LOOK_SECONDS

    def leave(self) -> NoReturn:
        """End this process, whose batches are put to the one that Ray starts on another node."""
        log.warning("node %s will be taken away before another batch ends; this worker moves", self.node[:8])
        os._exit(0)

    def took(self, seconds: float) -> None:
        """Take over how long a batch took."""
        self._longest = max(self._longest, seconds)
