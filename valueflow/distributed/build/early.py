"""Fits that begin when the last window of a value is answered, while windows of other values are still put to judges.

The parts of the value are merged first, as they would be at the end of the stage, so that a fit reads the same rows in the
same order whenever it begins. A kill leaves merged parts, which hold the same answers; their values are fitted again.
"""

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import ray

from valueflow import store
from valueflow.config import Resources
from valueflow.distributed.build.aggregate import AggregateConfig, Part, Source, fit_value, split
from valueflow.distributed.cluster import user_error
from valueflow.distributed.watch import first_ready
from valueflow.judging.tasks import RANK
from valueflow.store import Build, File, FitSummary, Journal

log = logging.getLogger(__name__)


class Merge(NamedTuple):
    """Parts of a judge's answers to one value that are merged into one."""

    source: Source
    paths: list[str]


class Fitted(NamedTuple):
    """The fit of one value, and the records of its merged parts."""

    folder: str
    merged: list[tuple[Merge, pa.Table]]
    fit: FitSummary


class OneJudge(NamedTuple):
    """What `rank` tells of one judge (`rank.Follower`)."""

    early: "EarlyFits"
    judge: int

    def follow(self, journal: Journal) -> None:
        """Look at the answers, now and whenever the journal grows."""
        self.early.follow(self.judge, journal)

    def follow_finished(self, files: list[File]) -> None:
        """Take over answers that were finished before."""
        self.early.follow_finished(self.judge, files)

    def settled(self) -> contextlib.AbstractContextManager[None]:
        """Change nothing in the build within; the answers are finished then."""
        return self.early.settled(self.judge)


class EarlyFits:
    """Follows the journals of all judges of a build, and fits each value when all its windows are answered.

    A value of more windows than one process fits waits for the end: its actors could keep CPUs from the judges.

    Attributes:
        fits: of the values that are done, by folder.
        on_fit: is called with them after each.
    """

    def __init__(
        self, candidates: Build, plan: Build, sources: Sequence[Source], places: int, config: AggregateConfig, out: Build,
        on_fit: Callable[[dict[str, FitSummary]], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.candidates, self.sources, self.places, self.config, self.out = candidates, sources, places, config, out
        self.planned: Counter[str] = Counter()
        for file in store.require_manifest(plan).files:
            self.planned[_folder(file.path)] += file.rows
        self.fits: dict[str, FitSummary] = {}
        self.on_fit = on_fit
        self._begun: set[str] = set()
        self._tasks: list[ray.ObjectRef] = []
        self._journals: dict[int, Journal] = {}
        self._finished: dict[int, list[File]] = {}  # answers that nobody changes any more
        # Judges work in threads of their own. While one finishes its answers, no part of them is merged.
        self._lock = threading.RLock()

    def truncated(self) -> int:
        """Return the number of texts of which a judge read the beginning, of all answers so far."""
        return len(set().union(*(journal.totals.truncated for journal in self._journals.values())))

    def follow(self, judge: int, journal: Journal) -> None:
        """Look at what a judge has answered, now and whenever its journal grows."""
        with self._lock:
            self._journals[judge] = journal
        journal.on_rows = self._look
        self._look(self.planned)

    def follow_finished(self, judge: int, files: list[File]) -> None:
        """Take over the answers of a judge that were finished before."""
        with self._lock:
            self._finished[judge] = files
        self._look(self.planned)

    @contextlib.contextmanager
    def settled(self, judge: int) -> Iterator[None]:
        """Wait for the fits in progress; within, none begins, so that the judge's answers can be counted and finished."""
        with self._lock:
            while self._tasks:
                ready, self._tasks = first_ready("aggregate, values that are complete", self._tasks, Resources(1))
                self._enter(ready)
            journal = self._journals.get(judge)
            read = _hashes(journal.files.values()) if journal else {}
            yield
            if journal:
                self._finished[judge] = list(self._journals.pop(judge).files.values())
                now = _hashes(self._finished[judge])
                # Another attempt at the build may have answered some of the same windows, of which one answer stays.
                self.fits = {folder: fit for folder, fit in self.fits.items() if read[folder] == now[folder]}

    def _look(self, folders: Iterable[str]) -> None:
        with self._lock:
            if self._tasks:
                ready, self._tasks = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
                self._enter(ready)
            for folder in folders:
                if folder not in self._begun and self._is_complete(folder):
                    self._begun.add(folder)
                    self._begin(folder)

    def _is_complete(self, folder: str) -> bool:
        if len(self._journals) + len(self._finished) < len(self.sources):
            return False
        if len(self.sources) * self.planned[folder] > self.config.windows_per_shard:
            return False
        return all(journal.rows[folder] == self.planned[folder] for journal in self._journals.values())

    def _begin(self, folder: str) -> None:
        merges, parts = [], []
        for source in self.sources:
            journal = self._journals.get(source.judge)
            files = journal.files.values() if journal else self._finished[source.judge]
            of_value = {file.path: file for file in files if _folder(file.path) == folder}
            groups = store.merge_groups(of_value) if journal else []
            merges += [Merge(source, paths) for paths in groups]
            merged = {path for paths in groups for path in paths}
            parts += [Part(source, path, file.rows) for path, file in of_value.items() if path not in merged]
        task = ray.remote(_fit_complete).options(num_cpus=1)
        self._tasks.append(task.remote(self.candidates, folder, merges, parts, self.places, self.config, self.out))

    def _enter(self, ready: list[ray.ObjectRef]) -> None:
        for task in ready:
            try:
                fitted: Fitted = ray.get(task)
            except ray.exceptions.RayError as error:  # the end of the stage reads the parts again, and fits the value
                log.info("a value is fitted at the end: %s", user_error(error) or error)
                continue
            for merge, records in fitted.merged:
                self._journals[merge.source.judge].replace(merge.paths, records)
            self.fits[fitted.folder] = fitted.fit
        if ready:
            self.on_fit(self.fits)


def _fit_complete(
    candidates: Build, folder: str, merges: list[Merge], parts: list[Part], places: int, config: AggregateConfig, out: Build
) -> Fitted:
    merged = [(merge, store.compact(merge.source.rankings, merge.paths, RANK.id_column)) for merge in merges]
    for merge, records in merged:
        parts = [*parts, *(Part(merge.source, row["path"], row["rows"]) for row in records.to_pylist())]
    shards = split(parts, config.windows_per_shard)
    return Fitted(folder, merged, fit_value(candidates, folder, shards, places, config, out))


def _hashes(files: Iterable[File]) -> dict[str, set[str]]:
    """Hashes of the parts of each folder."""
    hashes: dict[str, set[str]] = {}
    for file in files:
        hashes.setdefault(_folder(file.path), set()).add(file.sha256)
    return hashes


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
