"""Time of the attempts at an unfinished build of answers: what their engines and GPUs took, and what happened when.

Kept beside the journal, one file for each attempt, which a rerun adds to its own.
"""

import time
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from valueflow.errors import DamageError
from valueflow.store.files import log, set_aside, sizes
from valueflow.store.json_files import read_record, write_record
from valueflow.store.layout import ATTEMPT_TIME, JOURNAL, Build

MAX_SAMPLES = 240


class Sample(NamedTuple):
    """A moment while answers came.

    Attributes:
        seconds: since the attempt began; of a whole timeline: of work, all attempts one after another.
        nodes: of the cluster.
        workers: that answer; 0 where calls go to an endpoint.
        answers: in the build.
    """

    seconds: float
    nodes: int
    workers: int
    answers: int


class AttemptTime(BaseModel):
    """One attempt."""

    model_config = ConfigDict(frozen=True)

    started: float  # seconds since 1970
    engine_seconds: float = 0.0
    gpu_seconds: float = 0.0
    timeline: list[Sample] = []


class StageTime:
    """The attempts at a build: this one, and those that left a record."""

    def __init__(self, build: Build, attempt: str) -> None:
        self.folder, self.name = f"{build.url}/{JOURNAL}", f"{attempt}{ATTEMPT_TIME}"
        self.own, self.others = AttemptTime(started=time.time()), list[AttemptTime]()
        self._begun = time.monotonic()
        self.is_saved = True

    def seconds(self) -> float:
        """Return the seconds since this attempt began."""
        return round(time.monotonic() - self._begun, 1)

    @property
    def engine_seconds(self) -> float:
        """Time of all engines in all attempts."""
        return sum(attempt.engine_seconds for attempt in (*self.others, self.own))

    @property
    def gpu_seconds(self) -> float:
        """Time of all GPUs in all attempts."""
        return sum(attempt.gpu_seconds for attempt in (*self.others, self.own))

    def load(self) -> None:
        """Read the records of the other attempts; a damaged one is set aside."""
        self.others = []
        for name in sizes(self.folder):
            if name.endswith(ATTEMPT_TIME) and name != self.name:
                url = f"{self.folder}/{name}"
                try:
                    self.others.append(read_record(url, AttemptTime, "the time of an attempt"))
                except FileNotFoundError:  # the other attempt has finished the build
                    continue
                except DamageError as error:
                    log.warning("%s; it is set aside, and its time does not count", error)
                    set_aside(url)
        self.others.sort(key=lambda attempt: attempt.started)

    def add(self, engine_seconds: float, gpu_seconds: float, sample: Sample) -> None:
        """Count time of this attempt."""
        changed = {
            "engine_seconds": self.own.engine_seconds + engine_seconds,
            "gpu_seconds": self.own.gpu_seconds + gpu_seconds,
            "timeline": with_sample(self.own.timeline, sample),
        }
        self.own, self.is_saved = self.own.model_copy(update=changed), False

    def save(self) -> None:
        """Write the record of this attempt if it has changed."""
        if not self.is_saved:
            write_record(f"{self.folder}/{self.name}", self.own)
            self.is_saved = True

    def timeline(self) -> list[Sample]:
        """Return the samples of all attempts, one after another without the time between them."""
        samples: list[Sample] = []
        for attempt in sorted((*self.others, self.own), key=lambda attempt: attempt.started):
            begin = samples[-1].seconds if samples else 0.0
            samples += [sample._replace(seconds=round(begin + sample.seconds, 1)) for sample in attempt.timeline]
        return thinned(samples)


def with_sample(samples: list[Sample], sample: Sample) -> list[Sample]:
    """Return the samples with a new last one; the one before it stays if it is as far from its neighbour as the others are."""
    if len(samples) > 2 and samples[-1].seconds - samples[-2].seconds < samples[1].seconds - samples[0].seconds:
        samples = samples[:-1]
    return thinned([*samples, sample])


def thinned(samples: list[Sample]) -> list[Sample]:
    """Return the samples, or if they are more than `MAX_SAMPLES` every second one and the last."""
    while len(samples) > MAX_SAMPLES:
        samples = [*samples[:-1:2], samples[-1]]
    return samples
