"""The sharpness of a judge that did not build a version: estimates kept under the root, so that they are made once."""

import logging
import threading

from valueflow import __version__, store
from valueflow.errors import StorageError
from valueflow.records import ValueId
from valueflow.vidb.version import Vidb

log = logging.getLogger(__name__)
NAMED_VALUES = 4  # in a message


class SharpnessFile:
    """Estimates by value in one file for a version and a judge; in memory alone where the root refuses reads or writes."""

    def __init__(self, version: Vidb, judge_fingerprint: str) -> None:
        # Another version of the code may estimate in another way.
        self.url = store.sharpness_url(version.build.root, version.build.build_id, f"{judge_fingerprint}-{__version__}")
        self._lock = threading.Lock()
        try:
            self._estimates = self._read()
        except StorageError as error:
            log.warning("%s. The sharpness of the judge is estimated again", error)
            self._estimates = {}

    def get(self, value: ValueId) -> float | None:
        """Return the judge's nats per unit of theta; None if it was not estimated."""
        return self._estimates.get(value)

    def put(self, value: ValueId, sharpness: float) -> None:
        """Keep an estimate; where the file cannot be written that is said, and this process keeps it."""
        with self._lock:
            self._estimates[value] = sharpness
            try:
                # Other processes may have written since; an estimate that a race loses is made again by the next process.
                self._estimates = self._read() | self._estimates
                store.write_bytes(self.url, store.sealed(dict(sorted(self._estimates.items()))))
            except StorageError as error:
                log.warning("%s. The sharpness of the judge for %s is kept for this process alone", error, value)

    def _read(self) -> dict[str, float]:
        """The estimates in the file; none if it is absent or damaged, which sets it aside."""
        return (
            store.read_or_set_aside(self.url, _parse, (ValueError, AttributeError, OverflowError), "a list of sharpness") or {}
        )


def estimates_notice(judge: str, version: str, windows: dict[ValueId, int]) -> str:
    """Return what the estimates of a judge's sharpness take, and why; `windows` is by value."""
    values = ", ".join(windows) if len(windows) <= NAMED_VALUES else f"{len(windows)} values"
    return (
        f"judge {judge!r} did not build VIDB {version}: {sum(windows.values()):,} calls about anchors of {values} show how "
        "sharply it tells texts apart; the estimates are kept with the version and the judge"
    )


def _parse(content: bytes) -> dict[str, float]:
    estimates = store.unsealed(content).content
    if not all(type(sharpness) in (int, float) and sharpness > 0 for sharpness in estimates.values()):
        raise ValueError("a sharpness is a positive number")
    return {str(value): float(sharpness) for value, sharpness in estimates.items()}
