"""What a judge takes while it answers: time of its engines and GPUs, for its budget; and the timeline of its stage."""

import logging
import time

import ray

from valueflow.distributed.error_limit import ErrorLimit
from valueflow.distributed.worker_deaths import Attempts, reason_of
from valueflow.judging.configs import AnyJudge
from valueflow.llm.configs import EndpointModel, LlmModel, Price
from valueflow.llm.cost import Spent, exceeds
from valueflow.store import Journal, Sample

log = logging.getLogger(__name__)


class Meter:
    """Counts while answers come; once the judge's budget is spent, no further batch begins.

    An endpoint has no engines, and the actor that calls it refuses each call that the budget does not cover.

    Attributes:
        is_spent: whether the budget was found spent.
    """

    def __init__(self, config: AnyJudge, journal: Journal, limit: ErrorLimit, attempts: Attempts) -> None:
        self.config, self.journal, self.limit, self.attempts = config, journal, limit, attempts
        self.counted = time.monotonic()
        self.is_spent = self._over()

    def look(self) -> list[str]:
        """Count the time since the last look; return a line for each death of a worker since then."""
        now = time.monotonic()
        seconds, self.counted = now - self.counted, now
        seen = self.attempts.look()
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        sample = Sample(self.journal.time.seconds(), nodes, seen.workers, self.journal.totals.rows)
        self.journal.time.add(seconds * self.config.most_engines, seconds * self.config.most_gpus, sample)
        self.journal.save_in_time()
        if not self.is_spent and self._over():
            self.is_spent = True
            log.warning("the budget of judge %r is spent; what is in flight is answered and stored", self.config.name)
            self.limit.stop()
        return [
            f"a worker on node {death.place.node[:8]} died with {death.size} questions (attempt {death.attempt}): "
            f"{reason_of(death.place)}"
            for death in seen.deaths
        ]

    def _over(self) -> bool:
        if isinstance(self.config, EndpointModel):
            return False
        return exceeds(self.config.spending_limit, self.config.price or Price(), spent_on(self.config, self.journal))


def spent_on(config: AnyJudge, journal: Journal) -> Spent:
    """Return what the answers in a build have taken: tokens, whether it paid for them or found them in the cache, and time."""
    totals = journal.totals
    tokens = (totals.tokens_in, totals.tokens_out) if isinstance(config, LlmModel) else (0, 0)
    return Spent(*tokens, journal.time.engine_seconds / 3600, journal.time.gpu_seconds / 3600)
